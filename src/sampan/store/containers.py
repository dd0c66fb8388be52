"""Rows of containers: what must be unique or must be kept, and the engine's record.

`record` is JSON text with a version, `{"v": 1, ...}`; only the engine reads it. The snapshot and
the image in a row cannot be removed while the row is there. Functions take a connection, to be
composed in one `Database.write` with the snapshot and the event of the same change.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import AlreadyExists, ContainerNotFound, FailedPrecondition, NameInUse

if TYPE_CHECKING:
    from sampan.store.database import Connection

_SELECT = "SELECT id, name, record, snapshot, image, created_ns FROM containers"


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """One container. `snapshot` is the key of its writable layer, `image` the digest of a blob
    (the image's config or manifest) that is kept with all that it needs."""

    id: str
    name: str
    record: str
    snapshot: str | None
    image: str | None
    created_ns: int


def insert(conn: Connection, row: ContainerRow) -> None:
    """Add a container; its snapshot's row must be there.

    Raises:
        NameInUse: another container has the name.
        AlreadyExists: the id is taken.
        FailedPrecondition: there is no such snapshot.
    """
    try:
        conn.execute(
            "INSERT INTO containers (id, name, record, snapshot, image, created_ns)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (row.id, row.name, row.record, row.snapshot, row.image, row.created_ns),
        )
    except sqlite3.IntegrityError as error:
        _refuse_taken(conn, row.id, row.name)
        raise FailedPrecondition(
            f"create container {row.id}: no such snapshot: {row.snapshot}"
        ) from error


def update(conn: Connection, container_id: str, record: str, *, name: str | None = None) -> None:
    """Replace the record, and the name when one is given.

    Raises:
        ContainerNotFound: no such container.
        NameInUse: another container has the name.
    """
    try:
        done = conn.execute(
            "UPDATE containers SET record = ?, name = coalesce(?, name) WHERE id = ?",
            (record, name, container_id),
        ).rowcount
    except sqlite3.IntegrityError as error:
        raise NameInUse(f"the name {name} is in use by container {_owner(conn, name)}") from error
    if not done:
        raise ContainerNotFound(f"no such container: {container_id}")


def delete(conn: Connection, container_id: str) -> ContainerRow | None:
    """Remove the row and return it; None when it was gone already, so that it can be repeated."""
    found = conn.execute(
        "DELETE FROM containers WHERE id = ?"
        " RETURNING id, name, record, snapshot, image, created_ns",
        (container_id,),
    ).fetchall()
    return ContainerRow(*found[0]) if found else None


def get(conn: Connection, container_id: str) -> ContainerRow:
    """The container of that whole id. Raises ContainerNotFound."""
    row = conn.execute(f"{_SELECT} WHERE id = ?", (container_id,)).fetchone()
    if row is None:
        raise ContainerNotFound(f"no such container: {container_id}")
    return ContainerRow(*row)


def list(conn: Connection) -> tuple[ContainerRow, ...]:  # noqa: A001 - the field's word
    """All containers, oldest first."""
    rows = conn.execute(f"{_SELECT} ORDER BY created_ns, id")
    return tuple(ContainerRow(*row) for row in rows)


def _owner(conn: Connection, name: str | None) -> str:
    row = conn.execute("SELECT id FROM containers WHERE name = ?", (name,)).fetchone()
    return row[0] if row else "unknown"


def _refuse_taken(conn: Connection, container_id: str, name: str) -> None:
    if conn.execute("SELECT 1 FROM containers WHERE id = ?", (container_id,)).fetchone():
        raise AlreadyExists(f"container {container_id} exists already")
    if conn.execute("SELECT 1 FROM containers WHERE name = ?", (name,)).fetchone():
        raise NameInUse(f"the name {name} is in use by container {_owner(conn, name)}")
