"""Rows that say when an image was last used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.store.database import Connection


def put(conn: Connection, used: Mapping[str, int]) -> None:
    """Note image ids and when they were used; an earlier time changes nothing."""
    conn.executemany(
        "INSERT INTO image_use (id, used_ns) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET"
        " used_ns = max(used_ns, excluded.used_ns)",
        used.items(),
    )


def list(conn: Connection) -> dict[str, int]:  # noqa: A001 - the field's word
    """Image id -> nanoseconds since 1970."""
    return dict(conn.execute("SELECT id, used_ns FROM image_use"))


def forget(conn: Connection, known: frozenset[str]) -> None:
    """Drop the rows of images that are not `known` any more."""
    gone = [(image,) for image in list(conn) if image not in known]
    conn.executemany("DELETE FROM image_use WHERE id = ?", gone)
