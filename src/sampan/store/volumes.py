"""Rows of volumes: the name, what the user said of it, and since when it is there.

The content lies in the volume's directory (`Layout.volume`), and who uses it is known from the
containers' own records. Functions take a connection, to be composed in one `Database.write` with
the event of the same change.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.errors import AlreadyExists

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.store.database import Connection


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """One volume. `anonymous`: nobody named it, so it goes with its container."""

    name: str
    anonymous: bool
    created_ns: int
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


def insert(conn: Connection, row: VolumeRow) -> None:
    """Add a volume. Raises AlreadyExists when the name is taken."""
    labels, options = json.dumps(dict(row.labels)), json.dumps(dict(row.options))
    try:
        conn.execute(
            "INSERT INTO volumes (name, anonymous, labels, options, created_ns)"
            " VALUES (?, ?, ?, ?, ?)",
            (row.name, int(row.anonymous), labels, options, row.created_ns),
        )
    except sqlite3.IntegrityError as error:
        raise AlreadyExists(f"volume {row.name} exists already") from error


def delete(conn: Connection, name: str) -> bool:
    """Remove the row; whether it was there, so that it can be repeated."""
    return conn.execute("DELETE FROM volumes WHERE name = ?", (name,)).rowcount > 0


def list(conn: Connection) -> tuple[VolumeRow, ...]:  # noqa: A001 - the field's word
    """All volumes, by name."""
    rows = conn.execute(
        "SELECT name, anonymous, created_ns, labels, options FROM volumes ORDER BY name"
    )
    return tuple(
        VolumeRow(name, bool(anonymous), created, json.loads(labels), json.loads(options))
        for name, anonymous, created, labels, options in rows
    )
