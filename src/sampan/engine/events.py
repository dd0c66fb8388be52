"""Events: stored in the transaction of the change they tell of, then told to those who listen.

A listener has a bounded queue; one that does not read is dropped and sees the end of its stream,
because nobody may hold the engine up. It can come back with `since` and miss nothing that is still
kept. Numbers come from the store and are in order.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.engine import filters, records
from sampan.engine.model import Event
from sampan.store import events as rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from sampan.engine.filters import Filters
    from sampan.store.database import Connection, Database

MAX_QUEUE = 4096


def make(
    type_: str, action: str, actor: str, attributes: Mapping[str, str], owner: str = ""
) -> Event:
    """An event of now, without a number yet."""
    return Event(
        id=0,
        time_ns=time.time_ns(),
        type=type_,
        action=action,
        actor_id=actor,
        attributes=attributes,
        owner=owner,
    )


def store(conn: Connection, made: Iterable[Event]) -> list[Event]:
    """Append events in the caller's transaction; the same events with their numbers."""
    return [
        replace(event, id=rows.append(conn, records.encode_event(event), event.time_ns))
        for event in made
    ]


class Listener:
    """One subscriber's queue."""

    __slots__ = ("_closed", "_queue", "_wake")

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._closed = False

    def put(self, event: Event) -> bool:
        """Queue an event; False when there is no room, which closes the listener."""
        if len(self._queue) >= MAX_QUEUE:
            self.close()
            return False
        self._queue.append(event)
        self._notify()
        return True

    def close(self) -> None:
        """End the stream after what is queued."""
        self._closed = True
        self._notify()

    async def get(self) -> Event | None:
        """The next event, None at the end."""
        while not self._queue:
            if self._closed:
                return None
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return self._queue.popleft()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Events:
    """The bus: `publish` what is stored, `stream` to whoever asks."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._listeners: set[Listener] = set()
        self._write_deferred: Callable[[], Awaitable[None]] | None = None

    def before_reading(self, write: Callable[[], Awaitable[None]]) -> None:
        """`write` stores events that somebody still holds back."""
        self._write_deferred = write

    @property
    def has_listeners(self) -> bool:
        """Whether anybody waits for what happens."""
        return bool(self._listeners)

    def publish(self, stored: Iterable[Event]) -> None:
        """Tell every listener; the events have their numbers."""
        for event in stored:
            for listener in tuple(self._listeners):
                if not listener.put(event):
                    self._listeners.discard(listener)

    async def emit(self, type_: str, action: str, actor: str, **attributes: str) -> None:
        """Store and publish an event that belongs to no change of a row."""
        await self.store([make(type_, action, actor, attributes)])

    async def store(self, made: Sequence[Event]) -> None:
        """Store and publish events that belong to no change of a row."""
        self.publish(await self._db.write(lambda conn: store(conn, made)))

    def stream(
        self, since: int | None, until: int | None, wanted: Filters | None, owner: str = ""
    ) -> AsyncIterator[Event]:
        """Kept events from `since` on, then new ones until `until`; subscribed now."""
        test = filters.event_filter(wanted)

        def matches(event: Event) -> bool:
            return event.owner == owner and test(event)

        listener = Listener()
        self._listeners.add(listener)
        return self._stream(listener, since, until, matches)

    def close(self) -> None:
        """End every stream."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def _stream(
        self,
        listener: Listener,
        since: int | None,
        until: int | None,
        matches: Callable[[Event], bool],
    ) -> AsyncIterator[Event]:
        try:
            last = 0
            if since is not None or until is not None:
                if self._write_deferred is not None:
                    await self._write_deferred()
                kept = await self._db.read(
                    lambda conn: rows.read(conn, since_ns=since, until_ns=until)
                )
                for row in kept:
                    last = row.id
                    event = records.decode_event(row)
                    if matches(event):
                        yield event
            async for event in _live(listener, until):
                if event.id > last and matches(event):
                    yield event
        finally:
            self._listeners.discard(listener)


async def _live(listener: Listener, until: int | None) -> AsyncIterator[Event]:
    """What the listener hears until the time `until`."""
    while True:
        patience = None if until is None else (until - time.time_ns()) / 1e9
        if patience is not None and patience <= 0:
            return
        try:
            async with asyncio.timeout(patience):
                event = await listener.get()
        except TimeoutError:
            return
        if event is None or (until is not None and event.time_ns > until):
            return
        yield event
