"""Snapshots as trees to read: a mount that nobody sees, behind a descriptor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.runtime import rootfs

if TYPE_CHECKING:
    from sampan.snapshots.base import Mount


def open_lower(mount: Mount) -> int:
    """What a mount has below its writable directory, as one tree: a descriptor that the caller
    closes, -1 when there is nothing.

    Raises:
        OSError: it cannot be mounted.
    """
    if mount["type"] == "bind":
        return -1
    return open_tree(mount["lowers"])


def open_tree(lowers: list[str]) -> int:
    """The directories `lowers`, topmost first, as one read-only tree. As `open_lower`."""
    if not lowers:
        return -1
    if len(lowers) == 1:
        return os.open(lowers[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mounted = rootfs.mount({"type": "overlay", "lowers": lowers})
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
    finally:
        os.close(mounted)
