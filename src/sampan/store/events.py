"""Durable events: numbered, in order, the last ten thousand.

An event is appended in the transaction that makes its change, so neither is there without the
other. Numbers grow and are never used twice, also when old events have gone; a reader that asks for
what came after a number can therefore tell that it missed some. `body` is JSON text that only the
engine reads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.store.database import Connection

KEEP = 10_000


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event."""

    id: int
    time_ns: int
    body: str


def append(conn: Connection, body: str, time_ns: int | None = None) -> int:
    """Add an event, forget the one that falls off the end; return the new number."""
    cursor = conn.execute(
        "INSERT INTO events (time_ns, body) VALUES (?, ?)",
        (time.time_ns() if time_ns is None else time_ns, body),
    )
    assert cursor.lastrowid is not None
    conn.execute("DELETE FROM events WHERE id <= ?", (cursor.lastrowid - KEEP,))
    return cursor.lastrowid


def read(
    conn: Connection,
    *,
    after: int = 0,
    since_ns: int | None = None,
    until_ns: int | None = None,
    limit: int = KEEP,
) -> tuple[EventRow, ...]:
    """Events in order: those with a number above `after`, from `since_ns` to `until_ns` (both
    inclusive), at most `limit`."""
    rows = conn.execute(
        "SELECT id, time_ns, body FROM events"
        " WHERE id > ? AND time_ns >= coalesce(?, time_ns) AND time_ns <= coalesce(?, time_ns)"
        " ORDER BY id LIMIT ?",
        (after, since_ns, until_ns, limit),
    )
    return tuple(EventRow(*row) for row in rows)


def last_id(conn: Connection) -> int:
    """The highest number given so far, 0 when there was none."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0
