from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sampan.engine import containers as table
from sampan.engine import events as bus
from sampan.engine import records
from sampan.engine.containers import Containers
from sampan.engine.events import Events
from sampan.engine.model import (
    Container,
    ContainerConfig,
    HostConfig,
    Status,
    WaitCondition,
    WaitResult,
)
from sampan.errors import ContainerNotFound, InvalidArgument, NameInUse, ResourceExhausted
from sampan.store import containers as rows
from sampan.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


def nothing(_):
    """No snapshot goes with the container."""


def make(container_id: str, name: str) -> Container:
    return Container(
        id=container_id * 64,
        name=name,
        created_at=1,
        config=ContainerConfig(rootfs="/r"),
        host=HostConfig(),
        path="sh",
    )


def with_status(container: Container, status: Status) -> Container:
    return replace(container, state=replace(container.state, status=status))


class Table:
    """Containers over a real database, which can be told to fail."""

    def __init__(self, path: Path) -> None:
        self.db = Database.open(str(path / "metadata.db"))
        self.events = Events(self.db)
        self.containers = Containers(self.db, self.events)

    async def insert(self, container_id: str, name: str) -> table.Entry:
        container = make(container_id, name)
        self.containers.reserve(name, container.id)
        return await self.containers.insert(container, None, None)

    def stored(self) -> list[Container]:
        return [records.decode(row) for row in self.db.read_now(rows.list)]

    async def actions(self) -> list[str]:
        return [event.action async for event in self.events.stream(1, 2**61, None)]


@pytest.fixture
def drive(tmp_path: Path) -> Callable[[Callable[[Table], Awaitable[None]]], None]:
    def run(test: Callable[[Table], Awaitable[None]]) -> None:
        async def main() -> None:
            made = Table(tmp_path)
            try:
                async with asyncio.timeout(20):
                    await test(made)
            finally:
                await made.db.close()

        asyncio.run(main())

    return run


def test_references(drive):
    async def test(made: Table) -> None:
        await made.insert("a", "one")
        await made.insert("b", "two")
        find = made.containers.find
        assert find("a" * 64).container.name == "one"
        assert find("one") is find("/one") is find("aaa")
        for missing in ("", "c", "on", "a" * 65, "../a"):
            with pytest.raises(ContainerNotFound, match="No such container"):
                find(missing)
        made.containers.reserve("other", "ab" * 32)

    drive(test)


def test_a_prefix_of_several(drive):
    async def test(made: Table) -> None:
        for container_id, name in (("ab" * 32, "one"), ("ac" * 32, "two")):
            made.containers.reserve(name, container_id)
            container = replace(make("a", name), id=container_id)
            await made.containers.insert(container, None, None)
        with pytest.raises(InvalidArgument, match="Multiple IDs found with provided prefix: a"):
            made.containers.find("a")

    drive(test)


def test_names_are_reserved_before_there_is_a_row(drive):
    async def test(made: Table) -> None:
        made.containers.reserve("one", "a" * 64)
        with pytest.raises(NameInUse, match=f'by container "{"a" * 64}"'):
            made.containers.reserve("/one", "b" * 64)
        made.containers.release("one")
        made.containers.reserve("one", "b" * 64)
        names = {made.containers.reserve(None, "c" * 64) for _ in range(200)}
        assert len(names) == 200

    drive(test)


def test_what_is_deferred_is_written_together_and_in_order(drive):
    async def test(made: Table) -> None:
        first, second = await made.insert("a", "one"), await made.insert("b", "two")
        live = made.events.stream(None, None, None)
        for entry in (first, second):
            running = with_status(entry.container, Status.RUNNING)
            made.containers.defer(entry, running, made.containers.event(running, "start"))
        made.containers.emit(first, "attach")
        assert {c.status for c in made.stored()} == {Status.CREATED}
        heard = [(await anext(live)).action for _ in range(3)]
        assert heard == ["start", "attach", "start"]
        assert {c.status for c in made.stored()} == {Status.RUNNING}

    drive(test)


def test_a_written_change_takes_along_what_was_deferred(drive):
    async def test(made: Table) -> None:
        entry = await made.insert("a", "one")
        running = with_status(entry.container, Status.RUNNING)
        made.containers.defer(entry, running, made.containers.event(running, "start"))
        paused = with_status(running, Status.PAUSED)
        await made.containers.change(entry, paused, made.containers.event(paused, "pause"))
        assert [c.status for c in made.stored()] == [Status.PAUSED]
        stored = await made.db.read(bus.rows.read)
        assert [records.decode_event(row).action for row in stored] == ["create", "start", "pause"]

    drive(test)


def test_a_removal_tells_everything_before_it(drive):
    async def test(made: Table) -> None:
        entry = await made.insert("a", "one")
        made.containers.defer(entry, entry.container, made.containers.event(entry.container, "die"))
        gone = made.containers.event(entry.container, "destroy")
        await made.containers.delete(entry, nothing, gone)
        assert made.stored() == []
        assert len(made.containers) == 0
        made.containers.reserve("one", "b" * 64)
        stored = await made.db.read(bus.rows.read)
        actions = [records.decode_event(row).action for row in stored]
        assert actions == ["create", "die", "destroy"]

    drive(test)


def test_a_row_that_cannot_be_written_is_kept_and_tried_again(drive, monkeypatch, caplog):
    monkeypatch.setattr(table, "RETRY", 0.01)

    async def test(made: Table) -> None:
        entry = await made.insert("a", "one")
        real, failures = rows.update, []

        def full(*arguments: object, **more: object) -> None:
            if len(failures) < 2:
                failures.append(1)
                raise ResourceExhausted("disk full")
            real(*arguments, **more)

        monkeypatch.setattr(rows, "update", full)
        running = with_status(entry.container, Status.RUNNING)
        with pytest.raises(ResourceExhausted):
            await made.containers.change(entry, running, made.containers.event(running, "start"))
        assert entry.container.status is Status.RUNNING
        live = made.events.stream(None, None, None)
        assert (await anext(live)).action == "start"
        assert [c.status for c in made.stored()] == [Status.RUNNING]
        assert len(failures) == 2

    drive(test)


def test_a_removal_that_fails_leaves_the_container(drive, monkeypatch):
    async def test(made: Table) -> None:
        entry = await made.insert("a", "one")

        def full(_: object) -> int:
            raise ResourceExhausted("disk full")

        gone = made.containers.event(entry.container, "destroy")
        with pytest.raises(ResourceExhausted):
            await made.containers.delete(entry, full, gone)
        assert made.containers.find("one") is entry
        assert len(made.stored()) == 1
        await made.containers.delete(entry, nothing, gone)
        assert made.stored() == []

    drive(test)


def test_waits(drive):
    async def test(made: Table) -> None:
        entry = await made.insert("a", "one")
        at_once = entry.arm(WaitCondition.NOT_RUNNING)
        assert at_once.is_done
        entry.container = with_status(entry.container, Status.RUNNING)
        stopped, ended = entry.arm(WaitCondition.NOT_RUNNING), entry.arm(WaitCondition.NEXT_EXIT)
        removed, dropped = entry.arm(WaitCondition.REMOVED), entry.arm(WaitCondition.REMOVED)
        dropped.cancel()
        state = replace(entry.container.state, exit_code=3, status=Status.EXITED)
        entry.container = replace(entry.container, state=state)
        entry.resolve(WaitCondition.NEXT_EXIT)
        assert ended.is_done
        assert not stopped.is_done
        entry.resolve(*WaitCondition)
        assert await stopped == await removed == WaitResult(exit_code=3)
        assert entry.waits == []

    drive(test)


def test_waits_that_were_forgotten_do_not_pile_up(drive):
    async def test(made: Table) -> None:
        entry = await made.insert("a", "one")
        for _ in range(1000):
            entry.arm(WaitCondition.REMOVED).cancel()
        assert len(entry.waits) < 100

    drive(test)
