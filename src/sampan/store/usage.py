"""What the store takes on the disk, as du counts it: blocks, each hard link once.

The whole is measured, not added up, so it is what du says; the parts that are known by their rows
are measured too, and what is left over is named as such.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.store import blobs, snapshots, trees
from sampan.store.snapshots import Kind

if TYPE_CHECKING:
    from sampan.store.database import Database
    from sampan.store.layout import Layout

_BLOCK = 512  # unit of st_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUsage:
    """Bytes on the disk. `other` has ingests, the trash, spares and directories."""

    total: int
    blobs: int
    layers: int  # committed snapshots
    writable: int  # of containers
    logs: int
    volumes: int
    database: int
    other: int


def measure(layout: Layout, db: Database) -> StoreUsage:
    """Measure the store of `layout`; blocks. What changes meanwhile is counted as well as it can
    be."""
    rows = db.read_now(snapshots.list)
    committed = [row.number for row in rows if row.kind is Kind.COMMITTED]
    active = [row.number for row in rows if row.kind is not Kind.COMMITTED]
    digests = [row.digest for row in db.read_now(blobs.list)]
    parts = {
        "blobs": sum(_file(layout.blob(digest)) for digest in digests),
        "layers": sum(_tree(layout.snapshot(number)) for number in committed),
        "writable": sum(_tree(layout.snapshot(number)) for number in active),
        "logs": _tree(layout.containers),
        "volumes": _tree(layout.volumes),
        "database": sum(_file(layout.database + end) for end in ("", "-wal", "-shm")),
    }
    total = max(_tree(layout.root), sum(parts.values()))
    return StoreUsage(total=total, other=total - sum(parts.values()), **parts)


def free_bytes(layout: Layout) -> tuple[int, int]:
    """What is free for us on the file system of the store, and its size."""
    status = os.statvfs(layout.root)
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def _file(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_blocks * _BLOCK
    except FileNotFoundError:
        return 0


def _tree(path: str) -> int:
    parent, name = os.path.split(path)
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return trees.measure(fd, name)[0]
    except FileNotFoundError:
        return 0
    finally:
        os.close(fd)
