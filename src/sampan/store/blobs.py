"""Rows of content: which blobs are here, and what each needs.

A row says that the file is complete, verified and fsynced (content.py sees to that). *Links* are
how the collector walks: an index links its manifests, a manifest its config and layers, a config
the snapshot of its topmost layer. Whoever parsed a document writes its links, in the transaction
that makes the document reachable or before.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sampan.errors import Conflict, NotFound
from sampan.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.store.database import Connection

LinkKind = Literal["blob", "snapshot"]


@dataclass(frozen=True, slots=True)
class BlobRow:
    """One blob."""

    digest: Digest
    size: int
    created_ns: int


def find(conn: Connection, digest: str) -> BlobRow | None:
    """The row of one blob, or None."""
    row = conn.execute(
        "SELECT size, created_ns FROM blobs WHERE digest = ?", (str(digest),)
    ).fetchone()
    return None if row is None else BlobRow(Digest(digest), *row)


def insert(conn: Connection, digest: Digest, size: int) -> None:
    """Add a blob; no change when it is there."""
    conn.execute(
        "INSERT INTO blobs (digest, size, created_ns) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (digest, size, time.time_ns()),
    )


def delete(conn: Connection, digest: str) -> None:
    """Remove the row of a blob. Its file is the content store's.

    Raises:
        NotFound: no such blob.
        Conflict: an image has it as its target.
    """
    try:
        done = conn.execute("DELETE FROM blobs WHERE digest = ?", (str(digest),)).rowcount
    except sqlite3.IntegrityError as error:
        raise Conflict(f"remove {digest}: an image points at it") from error
    if not done:
        raise NotFound(f"no such content: {digest}")


def list(conn: Connection) -> tuple[BlobRow, ...]:  # noqa: A001 - the field's word
    """All blobs, by digest."""
    rows = conn.execute("SELECT digest, size, created_ns FROM blobs ORDER BY digest")
    return tuple(BlobRow(Digest(row[0]), row[1], row[2]) for row in rows)


def link(
    conn: Connection, parent: str, *, blobs: Iterable[str] = (), snapshots: Iterable[str] = ()
) -> None:
    """Record that `parent` keeps these blobs and snapshots. Adds; repeated links are one.

    Raises:
        NotFound: `parent` is not here.
    """
    rows = [(str(parent), "blob", str(child)) for child in blobs]
    rows += [(str(parent), "snapshot", str(child)) for child in snapshots]
    try:
        conn.executemany(
            "INSERT INTO links (parent, kind, child) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows
        )
    except sqlite3.IntegrityError as error:
        raise NotFound(f"no such content: {parent}") from error


def unlink(conn: Connection, parent: str, children: Iterable[str]) -> None:
    """Let `parent` keep these blobs no longer, where it did."""
    conn.executemany(
        "DELETE FROM links WHERE parent = ? AND kind = 'blob' AND child = ?",
        [(str(parent), str(child)) for child in children],
    )


def links(conn: Connection, parent: str, kind: LinkKind = "blob") -> tuple[str, ...]:
    """What `parent` keeps."""
    rows = conn.execute(
        "SELECT child FROM links WHERE parent = ? AND kind = ? ORDER BY child", (str(parent), kind)
    )
    return tuple(row[0] for row in rows)


def below(conn: Connection, root: str) -> tuple[Digest, ...]:
    """`root` and every blob that it needs, as far as links tell; they need not be here."""
    rows = conn.execute(
        "WITH RECURSIVE reached (key) AS (SELECT ? UNION SELECT l.child FROM reached r"
        " JOIN links l ON l.parent = r.key AND l.kind = 'blob') SELECT key FROM reached",
        (str(root),),
    )
    return tuple(Digest(row[0]) for row in rows)
