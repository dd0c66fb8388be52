"""Rows of the builder's cache: what instructions made, and the directories of cache mounts.

A result is found by its key and its parent, so that a chain of results is always the chain that was
built. The newest one of a key counts; older ones stay until they are pruned, because images and
other results are above them. Functions take a connection, to be composed in one `Database.write`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import NotFound

if TYPE_CHECKING:
    from sampan.store.database import Connection

_SELECT = (
    "SELECT id, key, parent, snapshot, layer, title, made_s, created_ns, used_ns, uses"
    " FROM build_results"
)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What one instruction made. `layer` is JSON, None until somebody wanted the layer."""

    id: int
    key: str
    parent: int | None
    snapshot: str | None
    layer: str | None
    title: str
    made_s: int
    created_ns: int
    used_ns: int
    uses: int


@dataclass(frozen=True, slots=True)
class MountRow:
    """The directory of a cache mount, a volume. `name` is what the Dockerfile calls it."""

    volume: str
    name: str
    created_ns: int
    used_ns: int


def find(conn: Connection, key: str, parent: int | None) -> ResultRow | None:
    """The newest result of a key above `parent`."""
    row = conn.execute(
        f"{_SELECT} WHERE key = ? AND parent IS ? ORDER BY id DESC LIMIT 1", (key, parent)
    ).fetchone()
    return None if row is None else ResultRow(*row)


def get(conn: Connection, result_id: int) -> ResultRow:
    """One result. Raises NotFound."""
    row = conn.execute(f"{_SELECT} WHERE id = ?", (result_id,)).fetchone()
    if row is None:
        raise NotFound(f"no such build result: {result_id}")
    return ResultRow(*row)


def insert(
    conn: Connection, key: str, parent: int | None, snapshot: str | None, title: str, made_s: int
) -> int:
    """Add a result; its id."""
    now = time.time_ns()
    cursor = conn.execute(
        "INSERT INTO build_results"
        " (key, parent, snapshot, title, made_s, created_ns, used_ns, uses)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
        (key, parent, snapshot, title[:1000], made_s, now, now),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def touch(conn: Connection, result_id: int) -> None:
    """Note that a result was used."""
    conn.execute(
        "UPDATE build_results SET used_ns = ?, uses = uses + 1 WHERE id = ?",
        (time.time_ns(), result_id),
    )


def set_layer(conn: Connection, result_id: int, layer: str, blob: str) -> None:
    """Note the layer that was made of a result."""
    conn.execute(
        "UPDATE build_results SET layer = ?, blob = ? WHERE id = ?", (layer, blob, result_id)
    )


def rename_snapshot(conn: Connection, result_id: int, name: str) -> None:
    """Let the snapshot of a result have `name` (its chain id), so that images find it.

    When there is one of that name, the result takes it: the bytes are the same.
    """
    row = get(conn, result_id)
    if row.snapshot is None or row.snapshot == name:
        return
    if conn.execute("SELECT 1 FROM snapshots WHERE key = ?", (name,)).fetchone():
        conn.execute(
            "UPDATE build_results SET snapshot = ? WHERE snapshot = ?", (name, row.snapshot)
        )
        return
    conn.execute("UPDATE snapshots SET key = ? WHERE key = ?", (name, row.snapshot))


def list(conn: Connection) -> tuple[ResultRow, ...]:  # noqa: A001 - the field's word
    """All results, oldest first."""
    return tuple(ResultRow(*row) for row in conn.execute(f"{_SELECT} ORDER BY id"))


def delete(conn: Connection, result_id: int) -> None:
    """Remove a result and everything above it. The collector takes what it held."""
    conn.execute("DELETE FROM build_results WHERE id = ?", (result_id,))


def has_mount(conn: Connection, volume: str) -> bool:
    """Whether a volume is known as the directory of a cache mount; removed ones are not."""
    found = conn.execute("SELECT 1 FROM build_mounts WHERE volume = ?", (volume,)).fetchone()
    return found is not None


def put_mount(conn: Connection, volume: str, name: str) -> None:
    """Add the directory of a cache mount, or note that it was used."""
    now = time.time_ns()
    conn.execute(
        "INSERT INTO build_mounts (volume, name, created_ns, used_ns) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (volume) DO UPDATE SET used_ns = excluded.used_ns",
        (volume, name, now, now),
    )


def mounts(conn: Connection) -> tuple[MountRow, ...]:
    """All directories of cache mounts."""
    rows = conn.execute("SELECT volume, name, created_ns, used_ns FROM build_mounts")
    return tuple(MountRow(*row) for row in rows)
