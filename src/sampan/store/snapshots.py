"""Rows of the snapshot tree. The directories are the snapshotter's.

One namespace of keys: an active snapshot's key and a committed one's name. The number of a row is
the name of its directory. Rows refuse what would break the tree: a parent that is not committed,
the removal of a parent or of something a container uses.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sampan.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.store.database import Connection

MAX_KEY_LENGTH = 512
# overlayfs stacks at most 500 lower layers (OVL_MAX_STACK).
MAX_DEPTH = 500

_FIND = (
    "SELECT s.number, s.key, s.kind, p.key, s.created_ns, s.size, s.inodes, s.boot"
    " FROM snapshots s LEFT JOIN snapshots p ON p.number = s.parent WHERE s.key = ?"
)
# A parent may be given at commit, so numbers alone do not order the tree.
_LIST = (
    "WITH RECURSIVE tree (number, depth) AS ("
    " SELECT number, 0 FROM snapshots WHERE parent IS NULL"
    " UNION ALL SELECT c.number, depth + 1 FROM snapshots c JOIN tree ON c.parent = tree.number)"
    " SELECT s.number, s.key, s.kind, p.key, s.created_ns, s.size, s.inodes, s.boot"
    " FROM tree JOIN snapshots s ON s.number = tree.number"
    " LEFT JOIN snapshots p ON p.number = s.parent ORDER BY depth, s.number"
)


class Kind(StrEnum):
    """What may be done with a snapshot.

    prepare -> active --commit--> committed <--view-- view
    """

    ACTIVE = "active"
    VIEW = "view"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One snapshot. `size` and `inodes` are None until they were measured."""

    number: int
    key: str
    kind: Kind
    parent: str | None
    created_ns: int
    size: int | None
    inodes: int | None
    boot: str | None


def get(conn: Connection, key: str) -> SnapshotRow:
    """The snapshot `key`. Raises NotFound."""
    found = find(conn, key)
    if found is None:
        raise NotFound(f"no such snapshot: {key}")
    return found


def find(conn: Connection, key: str) -> SnapshotRow | None:
    """The snapshot `key`, or None."""
    row = conn.execute(_FIND, (key,)).fetchone()
    return None if row is None else _row(row)


def list(conn: Connection) -> tuple[SnapshotRow, ...]:  # noqa: A001 - the field's word
    """All snapshots, parents before children."""
    return tuple(map(_row, conn.execute(_LIST)))


def chain(conn: Connection, key: str) -> tuple[int, ...]:
    """The directory numbers of the committed snapshot `key` and of all below it, topmost first.

    Raises:
        NotFound: no such snapshot.
        FailedPrecondition: it is not committed.
    """
    rows = conn.execute(
        "WITH RECURSIVE up (number, parent, kind, depth) AS ("
        " SELECT number, parent, kind, 0 FROM snapshots WHERE key = ?"
        " UNION ALL SELECT s.number, s.parent, s.kind, depth + 1"
        " FROM snapshots s JOIN up ON s.number = up.parent"
        ") SELECT number, kind FROM up ORDER BY depth",
        (key,),
    ).fetchall()
    if not rows:
        raise NotFound(f"no such snapshot: {key}")
    if rows[0][1] != Kind.COMMITTED:
        raise FailedPrecondition(f"snapshot {key} is {rows[0][1]}, a parent must be committed")
    if len(rows) > MAX_DEPTH:
        raise FailedPrecondition(f"snapshot {key} has {len(rows)} layers, more than {MAX_DEPTH}")
    return tuple(row[0] for row in rows)


def parents(conn: Connection, key: str) -> tuple[int, ...]:
    """The directory numbers below `key`, topmost first. Raises NotFound."""
    row = get(conn, key)
    return chain(conn, row.parent) if row.parent is not None else ()


def insert(conn: Connection, key: str, kind: Kind, parent: int | None) -> int:
    """Add an active or view snapshot above the committed row `parent`; return its number.

    Raises:
        AlreadyExists: the key is taken.
    """
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        raise InvalidArgument(f"invalid snapshot key of {len(key)} characters")
    cursor = conn.execute(
        "INSERT INTO snapshots (key, kind, parent, created_ns) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (key, kind, parent, time.time_ns()),
    )
    if not cursor.rowcount:
        raise AlreadyExists(f"snapshot {key} exists already")
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def commit(conn: Connection, name: str, key: str, *, parent: str | None, boot: str) -> int:
    """Rename the active row `key` to the committed `name`; return its number.

    Raises:
        AlreadyExists: `name` is taken.
        NotFound: no such key or parent.
        FailedPrecondition: `key` is not active, or has another parent, or is its own parent.
    """
    row = get(conn, key)
    if row.kind is not Kind.ACTIVE:
        raise FailedPrecondition(f"commit snapshot {key}: it is {row.kind}, not active")
    if find(conn, name) is not None:
        raise AlreadyExists(f"snapshot {name} exists already")
    below = _parent_of_commit(conn, row, parent)
    conn.execute(
        "UPDATE snapshots SET key = ?, kind = ?, parent = ?, boot = ?, created_ns = ?"
        " WHERE number = ?",
        (name, Kind.COMMITTED, below, boot, time.time_ns(), row.number),
    )
    return row.number


def _parent_of_commit(conn: Connection, row: SnapshotRow, parent: str | None) -> int | None:
    if parent is None:
        parent = row.parent
    elif row.parent not in (None, parent):
        raise FailedPrecondition(f"commit snapshot {row.key}: its parent is {row.parent}")
    return None if parent is None else chain(conn, parent)[0]


def delete(conn: Connection, key: str) -> int:
    """Remove the row `key`; return its number, so that its directory can follow.

    Raises:
        NotFound: no such key.
        Conflict: a container or another snapshot needs it.
    """
    try:
        found = conn.execute(
            "DELETE FROM snapshots WHERE key = ? RETURNING number", (key,)
        ).fetchall()
    except sqlite3.IntegrityError as error:
        raise Conflict(f"remove snapshot {key}: {_user(conn, key)}") from error
    if not found:
        raise NotFound(f"no such snapshot: {key}")
    number: int = found[0][0]
    return number


def _user(conn: Connection, key: str) -> str:
    user = conn.execute("SELECT id FROM containers WHERE snapshot = ?", (key,)).fetchone()
    return f"container {user[0]} uses it" if user else "other snapshots are above it"


def set_usage(conn: Connection, number: int, size: int, inodes: int) -> None:
    """Remember what a committed snapshot takes on disk."""
    conn.execute(
        "UPDATE snapshots SET size = ?, inodes = ? WHERE number = ? AND kind = 'committed'",
        (size, inodes, number),
    )


def set_synced(conn: Connection, numbers: Iterable[int]) -> None:
    """Record that the files of committed snapshots are on the disk."""
    conn.executemany("UPDATE snapshots SET boot = NULL WHERE number = ?", [(n,) for n in numbers])


def _row(
    row: tuple[int, str, str, str | None, int, int | None, int | None, str | None],
) -> SnapshotRow:
    return SnapshotRow(row[0], row[1], Kind(row[2]), *row[3:])
