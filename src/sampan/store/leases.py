"""Leases: what keeps new things from the collector until something names them.

A pull works for minutes on blobs and snapshots that no image names yet. It takes a lease, hands its
id to every operation that makes or reuses something, and gives it back at the end. A process that
dies leaves a lease that ends by its deadline; until then its half of the work can be taken up.

    async with leases.lease(db) as lease:
        await content.put(data, lease=lease)
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sampan.errors import AlreadyExists, NotFound
from sampan.ids import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sampan.store.blobs import LinkKind
    from sampan.store.database import Connection, Database

DEADLINE_S = 24 * 3600


def create(conn: Connection, lease_id: str = "", *, seconds: float = DEADLINE_S) -> str:
    """Make a lease that ends in `seconds`; return its id, which is made up if none is given.

    Raises:
        AlreadyExists: there is one of this id.
    """
    now = time.time_ns()
    lease_id = lease_id or new_id()[:32]
    done = conn.execute(
        "INSERT INTO leases (id, created_ns, expires_ns) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (lease_id, now, now + int(seconds * 1e9)),
    )
    if not done.rowcount:
        raise AlreadyExists(f"lease {lease_id} exists already")
    return lease_id


def list(conn: Connection) -> tuple[tuple[str, int], ...]:  # noqa: A001 - the field's word
    """(id, created_ns) of all leases, oldest first."""
    return tuple(conn.execute("SELECT id, created_ns FROM leases ORDER BY created_ns, id"))


def items(conn: Connection, lease_id: str) -> tuple[tuple[LinkKind, str], ...]:
    """(kind, key) of what a lease keeps."""
    rows = conn.execute(
        "SELECT kind, key FROM lease_items WHERE lease = ? ORDER BY kind, key", (lease_id,)
    )
    return tuple(rows)


def drop(conn: Connection, lease_id: str, kind: LinkKind, key: str) -> None:
    """Keep one thing no more under a lease; no error when it was not."""
    row = (lease_id, kind, key)
    conn.execute("DELETE FROM lease_items WHERE lease = ? AND kind = ? AND key = ?", row)


def hold(conn: Connection, lease_id: str, kind: LinkKind, keys: Iterable[str]) -> None:
    """Keep these under the lease. Raises NotFound when there is no such lease any more."""
    try:
        conn.executemany(
            "INSERT INTO lease_items (lease, kind, key) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            [(lease_id, kind, str(key)) for key in keys],
        )
    except sqlite3.IntegrityError as error:
        raise NotFound(f"no such lease: {lease_id}") from error


def release(conn: Connection, lease_id: str) -> None:
    """End a lease; no error when it has ended."""
    conn.execute("DELETE FROM leases WHERE id = ?", (lease_id,))


def expire(conn: Connection, now_ns: int) -> int:
    """End the leases whose deadline has passed; return how many."""
    return conn.execute("DELETE FROM leases WHERE expires_ns <= ?", (now_ns,)).rowcount


@asynccontextmanager
async def lease(db: Database, *, seconds: float = DEADLINE_S) -> AsyncIterator[str]:
    """A lease for the time of the block; its value is the lease's id."""
    lease_id = await db.write(lambda conn: create(conn, seconds=seconds))
    try:
        yield lease_id
    finally:
        # Queued at once, so that it happens even when the waiting is cancelled.
        await db.write(lambda conn: release(conn, lease_id))
