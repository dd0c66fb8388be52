"""The containers in memory: what they are, who watches them, and how a change reaches the disk.

The engine is the only writer of its root, so this table is what everybody reads; each change is
written through, in order, with its events in the same transaction. `change` queues the row and
returns at once: where the truth of a change lies in a shim's record, nobody waits for the row.
Whoever makes a promise to a client awaits the future.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from sampan.engine import events as bus
from sampan.engine import records
from sampan.engine.model import Status, WaitCondition, WaitResult
from sampan.errors import ContainerNotFound, InvalidArgument, NameInUse
from sampan.ids import check_name, new_name
from sampan.store import containers as rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from sampan.engine.exec import Session
    from sampan.engine.model import Attachment, Container, Event
    from sampan.snapshots.base import Mount
    from sampan.store.database import Connection, Database
    from sampan.tasks.task import Task

log = logging.getLogger(__name__)

_MIN_PREFIX = 1
_NAME_ATTEMPTS = 16


class Wait:
    """An armed wait. `await` it for the WaitResult; `cancel()` forgets it."""

    __slots__ = ("_future", "condition")

    def __init__(self, condition: WaitCondition) -> None:
        self.condition = condition
        self._future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[object, None, WaitResult]:
        return self._future.__await__()

    @property
    def is_done(self) -> bool:
        """Whether awaiting it would not wait."""
        return self._future.done()

    def when_done(self, call: Callable[[], object]) -> None:
        """Call it when the wait is over."""
        self._future.add_done_callback(lambda _: call())

    def resolve(self, result: WaitResult) -> None:
        """Let whoever awaits it go on."""
        if not self._future.done():
            self._future.set_result(result)

    def cancel(self) -> None:
        """Forget the wait; the table drops it with the next one that it resolves."""
        self._future.cancel()


class Entry:
    """One container and everything that belongs to it while this engine runs."""

    __slots__ = (
        "attachments",
        "backoff",
        "container",
        "execs",
        "launched",
        "lock",
        "mount",
        "restart_timer",
        "settled",
        "shim_state",
        "task",
        "waits",
    )

    def __init__(self, container: Container, mount: Mount | None = None) -> None:
        self.container = container
        self.mount = mount
        self.task: Task | None = None
        self.shim_state: dict[str, object] = {}
        self.lock = asyncio.Lock()
        self.waits: list[Wait] = []
        self.attachments: list[Attachment] = []
        self.execs: dict[str, Session] = {}
        self.launched: asyncio.Future[dict[str, object]] | None = None
        self.settled: asyncio.Future[None] | None = None
        self.restart_timer: asyncio.TimerHandle | None = None
        self.backoff = 0.0

    @property
    def id(self) -> str:
        """The container's id."""
        return self.container.id

    @property
    def execs_running(self) -> bool:
        """Whether an exec's end is still to come."""
        return any(session.exec.running for session in self.execs.values())

    def arm(self, condition: WaitCondition) -> Wait:
        """A wait for `condition`, done already when that is the case now."""
        wait = Wait(condition)
        running = self.container.status.is_running or self.container.status is Status.RESTARTING
        if condition is WaitCondition.NOT_RUNNING and not running and self.launched is None:
            wait.resolve(self.result())
            return wait
        if len(self.waits) > 64:
            self.waits = [other for other in self.waits if not other.is_done]
        self.waits.append(wait)
        return wait

    def result(self) -> WaitResult:
        """How the container ended last."""
        state = self.container.state
        return WaitResult(exit_code=state.exit_code, error=state.error)

    def resolve(self, *conditions: WaitCondition) -> None:
        """Let the waits for `conditions` go on."""
        result = self.result()
        kept = []
        for wait in self.waits:
            if wait.condition in conditions:
                wait.resolve(result)
            else:
                kept.append(wait)
        self.waits = kept


class Containers:
    """All containers of the engine, by id and by name."""

    def __init__(self, db: Database, events: bus.Events) -> None:
        self._db = db
        self._events = events
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def load(self) -> None:
        """Read every row; at start, before anything else."""
        for row in self._db.read_now(rows.list):
            self._enter(Entry(records.decode(row)))

    def find(self, ref: str) -> Entry:
        """The container of an id, a name or a unique prefix of an id, in this order.

        Raises:
            ContainerNotFound: there is none; InvalidArgument: the prefix fits several.
        """
        entry = self._entries.get(ref)
        if entry is not None:
            return entry
        owner = self._names.get(ref.removeprefix("/"))
        if owner is not None and owner in self._entries:
            return self._entries[owner]
        if len(ref) >= _MIN_PREFIX:
            fitting = [key for key in self._entries if key.startswith(ref)]
            if len(fitting) > 1:
                raise InvalidArgument(f"Multiple IDs found with provided prefix: {ref}")
            if fitting:
                return self._entries[fitting[0]]
        raise ContainerNotFound(f"No such container: {ref}")

    # names

    def reserve(self, name: str | None, container_id: str) -> str:
        """Take `name`, or a free one of our own, for a container that is being made.

        Raises:
            NameInUse: it is taken; InvalidArgument: it cannot be a name.
        """
        if name:
            name = check_name(name.removeprefix("/"))
            self._refuse_taken(name)
        else:
            name = self._free_name(container_id)
        self._names[name] = container_id
        return name

    def release(self, name: str) -> None:
        """Give a name back."""
        self._names.pop(name, None)

    def _refuse_taken(self, name: str) -> None:
        owner = self._names.get(name)
        if owner is not None:
            raise NameInUse(
                f'Conflict. The container name "/{name}" is already in use by container '
                f'"{owner}". You have to remove (or rename) that container to be able to reuse '
                "that name."
            )

    def _free_name(self, container_id: str) -> str:
        for _ in range(_NAME_ATTEMPTS):
            name = new_name()
            if name not in self._names:
                return name
        return f"{new_name()}_{container_id[:8]}"

    # changes

    async def insert(
        self,
        container: Container,
        prepare: Callable[[Connection], Mount] | None,
        image: str | None,
    ) -> Entry:
        """Write a new container, its snapshot and its event in one transaction."""
        made = self.event(container, "create")
        record = records.encode(container)

        def write(conn: Connection) -> tuple[Mount | None, list[Event]]:
            mount = prepare(conn) if prepare else None
            key = container.id if prepare else None
            rows.insert(
                conn,
                rows.ContainerRow(
                    container.id, container.name, record, key, image, container.created_at
                ),
            )
            return mount, bus.store(conn, [made])

        mount, stored = await self._db.write(write)
        entry = Entry(container, mount)
        self._enter(entry)
        self._events.publish(stored)
        return entry

    def change(
        self, entry: Entry, container: Container, *made: Event, name: str | None = None
    ) -> asyncio.Future[None]:
        """Make `container` what the entry is now, and queue the row with its events."""
        entry.container = container
        record = records.encode(container)

        def write(conn: Connection) -> list[Event]:
            rows.update(conn, container.id, record, name=name)
            return bus.store(conn, made)

        return self._submit(container.id, write)

    async def delete(
        self, entry: Entry, made: Event, also: Callable[[Connection], int] | None
    ) -> int | None:
        """Delete the row, and the snapshot's with it; the number of the latter."""

        def write(conn: Connection) -> tuple[int | None, list[Event]]:
            rows.delete(conn, entry.id)
            return also(conn) if also else None, bus.store(conn, [made])

        number, stored = await self._db.write(write)
        self._entries.pop(entry.id, None)
        self.release(entry.container.name)
        self._events.publish(stored)
        return number

    def rename(self, entry: Entry, old: str) -> None:
        """After a rename was written: forget the old name."""
        self._names.pop(old, None)

    def event(self, container: Container, action: str, **attributes: str) -> Event:
        """An event of a container, with Docker's attributes."""
        everything = {
            **container.image_labels,
            **container.config.labels,
            "image": container.image_name or container.config.rootfs or "",
            "name": container.name,
            **attributes,
        }
        return bus.make("container", action, container.id, everything)

    def emit(self, container: Container, action: str, **attributes: str) -> None:
        """Queue an event that changes no row."""
        made = self.event(container, action, **attributes)
        self._submit(container.id, lambda conn: bus.store(conn, [made]))

    def _submit(
        self, container_id: str, write: Callable[[Connection], list[Event]]
    ) -> asyncio.Future[None]:
        """Queue a write; the future is done when its events are published."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written = self._db.submit(write)
        if written.done():
            self._written(container_id, done, written)
        else:
            written.add_done_callback(partial(self._written, container_id, done))
        return done

    def _enter(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._names[entry.container.name] = entry.id

    def _written(
        self, container_id: str, done: asyncio.Future[None], future: asyncio.Future[list[Event]]
    ) -> None:
        if future.cancelled():
            done.cancel()
            return
        error = future.exception()
        if error is None:
            self._events.publish(future.result())
            if not done.done():
                done.set_result(None)
            return
        # The change stands in memory and in the shim's record; the next one writes it all again.
        log.error("write container %s: %s", container_id, error)
        if not done.done():
            done.set_exception(error)
            done.exception()  # looked at: not everyone waits for it
