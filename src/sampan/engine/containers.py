"""The containers in memory: what they are, who watches them, and how a change reaches the disk.

The engine is the only writer of its root, so this table is what everybody reads. A change that was
promised to a client is written before the answer (`change`, `insert`, `delete`), with its events in
the same transaction. A change whose truth lies in a shim's record (it runs, it has ended) is
*deferred*: it waits WINDOW seconds for company, or for the next written change of its container,
and a kill in between is made good by recovery from that record. Events keep their order either way.

A row that cannot be written (full disk) takes the reserve; without one it stays in memory and is
tried again.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sampan.engine import events as bus
from sampan.engine import links, records
from sampan.engine.model import HealthStatus, Status, WaitCondition, WaitResult
from sampan.errors import ContainerNotFound, InvalidArgument, NameInUse, ResourceExhausted
from sampan.ids import check_name, new_name
from sampan.store import containers as rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from sampan.engine.exec import Session
    from sampan.engine.health import Watch
    from sampan.engine.model import Attachment, Container, Event
    from sampan.engine.outofmemory import MemoryWatch
    from sampan.snapshots.base import Mount
    from sampan.store.database import Connection, Database
    from sampan.store.reserve import Reserve
    from sampan.tasks.task import Task

T = TypeVar("T")
log = logging.getLogger(__name__)

WINDOW = 0.01
"""Seconds that a deferred change waits for company."""

UNHEARD = 0.1
"""The same of what changes no row, while nobody listens: execs tell three things each."""

RETRY = 1.0
"""Seconds until a row that could not be written is tried again."""

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
        "memory_watch",
        "mount",
        "restart_timer",
        "stale",
        "task",
        "unwritten",
        "waits",
        "watch",
    )

    def __init__(self, container: Container, mount: Mount | None = None) -> None:
        self.container = container
        self.mount = mount
        self.task: Task | None = None
        self.lock = asyncio.Lock()
        self.waits: list[Wait] = []
        self.attachments: list[Attachment] = []
        self.execs: dict[str, Session] = {}
        self.launched: asyncio.Future[dict[str, object]] | None = None
        self.stale = False
        self.unwritten: list[Event] = []
        self.watch: Watch | None = None
        self.memory_watch: MemoryWatch | None = None
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
        health = self.container.state.health
        is_well = health is not None and health.status is HealthStatus.HEALTHY
        if condition is WaitCondition.HEALTHY and (not running or is_well):
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

    def __init__(self, db: Database, events: bus.Events, reserve: Reserve | None = None) -> None:
        self._db = db
        self._reserve = reserve
        self._events = events
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}
        self._deferred: dict[str, Entry] = {}
        self._timer: asyncio.TimerHandle | None = None
        events.before_reading(self.flush_all)

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
        if ref:
            fitting = [key for key in self._entries if key.startswith(ref)]
            if len(fitting) > 1:
                raise InvalidArgument(f"Multiple IDs found with provided prefix: {ref}")
            if fitting:
                return self._entries[fitting[0]]
        linked = self._linked(ref)
        if linked is not None:
            return linked
        raise ContainerNotFound(f"No such container: {ref}")

    def _linked(self, ref: str) -> Entry | None:
        """The container that is meant by PARENT/ALIAS."""
        parent, _, alias = ref.removeprefix("/").rpartition("/")
        owner = self._entries.get(self._names.get(parent, ""))
        name = links.target(owner.container, alias) if owner is not None else ""
        return self._entries.get(self._names.get(name, ""))

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
        also: Callable[[Connection], None] | None = None,
    ) -> Entry:
        """Write a new container, its snapshot and its event in one transaction, `also` with it."""
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
            if also is not None:
                also(conn)
            return mount, bus.store(conn, [made])

        mount, stored = await self._db.write(write)
        entry = Entry(container, mount)
        self._enter(entry)
        self._events.publish(stored)
        return entry

    async def change(
        self, entry: Entry, container: Container, *made: Event, name: str | None = None
    ) -> None:
        """Make `container` what the entry is now, and write it, with what was deferred before.

        Raises:
            SampanError: it could not be written; in memory it stands, and is tried again.
        """
        entry.container = container
        entry.unwritten.extend(made)
        entry.stale = True
        await self._write(_Batch((entry,), name))

    def defer(self, entry: Entry, container: Container, *made: Event) -> None:
        """Make `container` what the entry is now; the row follows soon."""
        entry.container = container
        entry.unwritten.extend(made)
        entry.stale = True
        self._mark(entry, WINDOW)

    def emit(self, entry: Entry, action: str, **attributes: str) -> None:
        """Tell of something that changes no row; it is stored soon."""
        entry.unwritten.append(self.event(entry.container, action, **attributes))
        self._mark(entry, WINDOW if self._events.has_listeners else UNHEARD)

    async def flush(self, entry: Entry) -> None:
        """Write what was deferred for one container. Raises as `change`."""
        if entry.stale or entry.unwritten:
            await self._write(_Batch((entry,)))

    async def flush_all(self) -> None:
        """Write everything that was deferred. Raises as `change`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deferred:
            await self._write(_Batch(tuple(self._deferred.values())))

    async def delete(
        self, entry: Entry, also: Callable[[Connection], T], *made: Event
    ) -> T:  # fmt: skip
        """Delete the row, and with it what `also` deletes in the same transaction."""
        batch = _Batch((entry,), gone=True)
        self._deferred.pop(entry.id, None)

        def write(conn: Connection) -> tuple[T, list[Event]]:
            rows.delete(conn, entry.id)
            return also(conn), bus.store(conn, (*batch.made, *made))

        try:
            result, stored = await self._save(write)
        except BaseException:
            self._put_back(batch)
            raise
        self._entries.pop(entry.id, None)
        self.release(entry.container.name)
        self._events.publish(stored)
        return result

    def event(self, container: Container, action: str, **attributes: str) -> Event:
        """An event of a container, with Docker's attributes."""
        everything = {
            **container.image_labels,
            **container.config.labels,
            "image": container.image_name or container.config.rootfs or "",
            "name": container.name,
            **attributes,
        }
        return bus.make("container", action, container.id, everything, container.owner)

    def _enter(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._names[entry.container.name] = entry.id

    # deferred changes

    def _mark(self, entry: Entry, delay: float) -> None:
        self._deferred[entry.id] = entry
        loop = asyncio.get_running_loop()
        if self._timer is not None and self._timer.when() <= loop.time() + delay:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        if not self._deferred:
            return
        batch = _Batch(tuple(self._deferred.values()))
        self._deferred.clear()
        written = self._db.submit(batch.write)
        if written.done():
            self._written(batch, written)
        else:
            written.add_done_callback(partial(self._written, batch))

    def _written(self, batch: _Batch, written: asyncio.Future[list[Event]]) -> None:
        if written.cancelled():
            return
        error = written.exception()
        if error is None:
            self._events.publish(written.result())
            return
        log.error("write containers: %s", error)
        self._put_back(batch)

    async def _write(self, batch: _Batch) -> None:
        for entry in batch.entries:
            self._deferred.pop(entry.id, None)
        try:
            stored = await self._save(batch.write)
        except BaseException:
            self._put_back(batch)
            raise
        self._events.publish(stored)

    async def _save(self, write: Callable[[Connection], T]) -> T:
        """Write a change of what is there; on a full disk it may take the reserve."""
        try:
            done = await self._db.write(write)
        except ResourceExhausted:
            if self._reserve is None or not self._reserve.release():
                raise
            log.warning("the disk is full: its reserve is used up now")
            return await self._db.write(write)
        if self._reserve is not None:
            self._reserve.keep()
        return done

    def _put_back(self, batch: _Batch) -> None:
        """What was not written waits again, before what came since."""
        batch.put_back()
        for entry in batch.entries:
            if entry.id in self._entries:
                self._mark(entry, RETRY)


class _Batch:
    """Rows and events of several containers for one transaction; takes them when it is made."""

    __slots__ = ("_name", "_taken", "entries")

    def __init__(
        self, entries: tuple[Entry, ...], name: str | None = None, *, gone: bool = False
    ) -> None:
        self.entries = entries
        self._name = name
        self._taken: list[tuple[str, str | None, list[Event]]] = []
        for entry in entries:
            record = records.encode(entry.container) if entry.stale and not gone else None
            self._taken.append((entry.id, record, entry.unwritten))
            entry.unwritten = []
            entry.stale = False

    @property
    def made(self) -> list[Event]:
        """The events, in order."""
        return [event for _, _, made in self._taken for event in made]

    def write(self, conn: Connection) -> list[Event]:
        """Write the rows and store the events."""
        for container_id, record, _ in self._taken:
            if record is not None:
                rows.update(conn, container_id, record, name=self._name)
        return bus.store(conn, self.made)

    def put_back(self) -> None:
        """The transaction failed."""
        for entry, (_, record, made) in zip(self.entries, self._taken, strict=True):
            entry.unwritten[:0] = made
            entry.stale = entry.stale or record is not None
