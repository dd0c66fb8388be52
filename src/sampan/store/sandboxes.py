"""Rows of sandboxes. Functions take a connection, to be composed in one `Database.write`."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import AlreadyExists, NotFound

if TYPE_CHECKING:
    from sampan.store.database import Connection


@dataclass(frozen=True, slots=True)
class SandboxRow:
    """One sandbox."""

    id: str
    name: str
    record: str
    created_ns: int


def insert(conn: Connection, row: SandboxRow) -> None:
    """Add a sandbox. Raises AlreadyExists when the name is taken."""
    try:
        conn.execute(
            "INSERT INTO sandboxes (id, name, record, created_ns) VALUES (?, ?, ?, ?)",
            (row.id, row.name, row.record, row.created_ns),
        )
    except sqlite3.IntegrityError as error:
        raise AlreadyExists(f"sandbox {row.name} exists already") from error


def update(conn: Connection, sandbox_id: str, record: str) -> None:
    """Replace the record. Raises NotFound."""
    done = conn.execute(
        "UPDATE sandboxes SET record = ? WHERE id = ?", (record, sandbox_id)
    ).rowcount
    if not done:
        raise NotFound(f"no such sandbox: {sandbox_id}")


def delete(conn: Connection, sandbox_id: str) -> None:
    """Remove the row; fine when it is gone already."""
    conn.execute("DELETE FROM sandboxes WHERE id = ?", (sandbox_id,))


def list(conn: Connection) -> tuple[SandboxRow, ...]:  # noqa: A001 - the field's word
    """All sandboxes, oldest first."""
    rows = conn.execute(
        "SELECT id, name, record, created_ns FROM sandboxes ORDER BY created_ns, id"
    )
    return tuple(SandboxRow(*row) for row in rows)
