"""Rows of images: a name and the descriptor of the index or manifest it points at.

Names are the canonical form of a reference (`docker.io/library/busybox:latest`); this module does
not read them. Functions take a connection, to be composed in one `Database.write`.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import FailedPrecondition, ImageNotFound
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.store.database import Connection

_SELECT = "SELECT name, media_type, digest, size, created_ns, updated_ns FROM images"


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One name. `created_ns` is when the name was first stored, `updated_ns` when it last moved."""

    name: str
    target: Descriptor
    created_ns: int
    updated_ns: int


def get(conn: Connection, name: str) -> ImageRow:
    """The image `name`. Raises ImageNotFound."""
    found = find(conn, name)
    if found is None:
        raise ImageNotFound(f"no such image: {name}")
    return found


def find(conn: Connection, name: str) -> ImageRow | None:
    """The image `name`, or None."""
    row = conn.execute(f"{_SELECT} WHERE name = ?", (name,)).fetchone()
    return None if row is None else _row(row)


def put(conn: Connection, name: str, target: Descriptor) -> ImageRow | None:
    """Point `name` at `target`; return the row that it replaced, if any.

    Raises:
        FailedPrecondition: the blob of the target is not in the content store.
    """
    before = find(conn, name)
    now = time.time_ns()
    try:
        conn.execute(
            "INSERT INTO images (name, media_type, digest, size, created_ns, updated_ns)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " media_type = excluded.media_type, digest = excluded.digest, size = excluded.size,"
            " updated_ns = excluded.updated_ns",
            (name, target.media_type, target.digest, target.size, now, now),
        )
    except sqlite3.IntegrityError as error:
        raise FailedPrecondition(f"name image {name}: {target.digest} is not here") from error
    return before


def delete(conn: Connection, name: str) -> ImageRow:
    """Take the name away; return the row. Its content goes with the next collection."""
    row = get(conn, name)
    conn.execute("DELETE FROM images WHERE name = ?", (name,))
    return row


def forget(conn: Connection, names: Iterable[str]) -> None:
    """Take names away that may not be there."""
    conn.executemany("DELETE FROM images WHERE name = ?", [(name,) for name in names])


def by_digest(conn: Connection, digest: Digest) -> tuple[ImageRow, ...]:
    """All names of one target."""
    return tuple(
        map(_row, conn.execute(f"{_SELECT} WHERE digest = ? ORDER BY name", (str(digest),)))
    )


def list(conn: Connection) -> tuple[ImageRow, ...]:  # noqa: A001 - the field's word
    """All images, by name."""
    return tuple(map(_row, conn.execute(f"{_SELECT} ORDER BY name")))


def version(conn: Connection) -> tuple[int, ...]:
    """What is another after every change of a name; for those who keep what they have read.

    How many there are, when the last one changed, and the sum of the fractions of all seconds.
    """
    select = (
        "SELECT count(*), ifnull(max(updated_ns), 0), ifnull(sum(updated_ns % 1000000000), 0)"
        " FROM images"
    )
    return tuple(conn.execute(select).fetchone())


def _row(row: tuple[str, str, str, int, int, int]) -> ImageRow:
    name, media_type, digest, size, created_ns, updated_ns = row
    target = Descriptor(media_type=media_type, digest=Digest.parse(digest), size=size)
    return ImageRow(name, target, created_ns, updated_ns)
