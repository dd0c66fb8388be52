from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from sampan.engine import events
from sampan.engine.events import Events, Listener
from sampan.engine.model import Event
from sampan.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


@pytest.fixture
def drive(tmp_path: Path) -> Callable[[Callable[[Events], Awaitable[None]]], None]:
    def run(test: Callable[[Events], Awaitable[None]]) -> None:
        async def main() -> None:
            db = Database.open(str(tmp_path / "metadata.db"))
            try:
                async with asyncio.timeout(20):
                    await test(Events(db))
            finally:
                await db.close()

        asyncio.run(main())

    return run


def test_replay_then_live_without_a_gap_or_a_double(drive):
    async def test(made: Events) -> None:
        for number in range(5):
            await made.emit("image", f"a{number}", "x")
        stream = made.stream(1, None, None)
        await made.emit("image", "a5", "x")
        heard = [await anext(stream) for _ in range(6)]
        await made.emit("image", "a6", "x")
        heard.append(await anext(stream))
        assert [event.action for event in heard] == [f"a{n}" for n in range(7)]
        assert [event.id for event in heard] == list(range(1, 8))
        await stream.aclose()

    drive(test)


def test_subscribed_at_the_call(drive):
    async def test(made: Events) -> None:
        stream = made.stream(None, None, {"event": ["wanted"]})
        await made.emit("image", "other", "x")
        await made.emit("image", "wanted", "x", name="n")
        event = await anext(stream)
        assert (event.action, event.attributes) == ("wanted", {"name": "n"})
        await stream.aclose()

    drive(test)


def test_until_ends_the_stream(drive):
    async def test(made: Events) -> None:
        await made.emit("image", "a", "x")
        soon = time.time_ns() + 50_000_000
        assert [event.action async for event in made.stream(1, soon, None)] == ["a"]
        assert [event async for event in made.stream(None, 1, None)] == []

    drive(test)


def test_what_is_held_back_is_stored_before_a_replay(drive):
    async def test(made: Events) -> None:
        made.before_reading(lambda: made.emit("image", "late", "x"))
        heard = [event.action async for event in made.stream(1, time.time_ns() + 10**8, None)]
        assert heard == ["late"]

    drive(test)


def test_a_listener_that_does_not_read_is_dropped(drive, monkeypatch):
    monkeypatch.setattr(events, "MAX_QUEUE", 3)

    async def test(made: Events) -> None:
        slow = made.stream(None, None, None)
        first = asyncio.ensure_future(anext(slow))
        await asyncio.sleep(0)
        made.publish([_event(number) for number in range(1, 10)])
        assert (await first).id == 1
        assert [event.id async for event in slow] == [2, 3]

    drive(test)


def test_the_end_of_the_engine_ends_every_stream(drive):
    async def test(made: Events) -> None:
        streams = [made.stream(None, None, None) for _ in range(3)]
        made.close()
        assert [[event async for event in stream] for stream in streams] == [[], [], []]

    drive(test)


def test_a_full_listener_keeps_what_it_has():
    async def main() -> None:
        listener = Listener()
        assert listener.put(_event(1))
        listener.close()
        assert (await listener.get()).id == 1
        assert await listener.get() is None

    asyncio.run(main())


def _event(number: int) -> Event:
    return Event(id=number, time_ns=number, type="image", action="a", actor_id="x")
