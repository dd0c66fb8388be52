"""What mounts leave in a layer: the places that they were mounted on.

A container's mounts need something to be mounted on, and the runtime makes it where it is missing.
The image must not tell how it was built, so it is taken away afterwards: what is empty and not in
the layers below goes, and so does a directory that overlayfs copied up only for something in it.

Each step is one name in an open directory, no link is followed, nothing with content is removed.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from sampan.kernel import overlaymarks

if TYPE_CHECKING:
    from sampan.snapshots.base import Mount

_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_places(mount: Mount, places: tuple[str, ...]) -> None:
    """Clean a writable layer of what only mounts at `places` needed."""
    if mount["type"] == "bind" and "parent" in mount:
        _clean_copy(mount["source"], mount["parent"], places)
        return
    upper = mount["upper"] if mount["type"] == "overlay" else mount["source"]
    lowers = mount["lowers"] if mount["type"] == "overlay" else []
    for place in sorted(places, key=len, reverse=True):
        parts = [part for part in place.split("/") if part not in ("", ".")]
        if ".." in parts:
            continue
        while parts and _clean(upper, lowers, parts):
            parts.pop()


def _clean_copy(tree: str, began: str, places: tuple[str, ...]) -> None:
    """The same where the layer is a whole tree that began as a copy: what was there stays, and a
    directory that has nothing else than before has its time again."""
    for place in sorted(places, key=len, reverse=True):
        parts = [part for part in place.split("/") if part not in ("", ".")]
        while parts and ".." not in parts and _look(began, parts) is None:
            if not _remove(tree, parts, None):
                break
            parts.pop()
        _restore_time(tree, began, parts)
        _restore_time(tree, began, parts[:-1])


def _restore_time(tree: str, began: str, parts: list[str]) -> None:
    here, there = _walk(tree, parts), _walk(began, parts)
    try:
        if here >= 0 and there >= 0 and sorted(os.listdir(here)) == sorted(os.listdir(there)):
            before = os.stat(there)
            os.utime(here, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        for fd in (here, there):
            if fd >= 0:
                os.close(fd)


def _clean(upper: str, lowers: list[str], parts: list[str]) -> bool:
    """Remove one place, or what was copied up for it; whether it is gone from the layer."""
    below = next((found for lower in lowers if (found := _look(lower, parts)) is not None), None)
    if below is not None and not stat.S_ISDIR(below.st_mode):
        return False
    return _remove(upper, parts, below)


def _walk(root: str, parts: list[str]) -> int:
    """The open directory `parts` below `root`; -1 when it is not there, or a link is in the way."""
    fd = os.open(root, _LIST)
    for part in parts:
        try:
            following = os.open(part, _LIST, dir_fd=fd)
        except OSError:
            following = -1
        finally:
            os.close(fd)
        if following < 0:
            return -1
        fd = following
    return fd


def _look(root: str, parts: list[str]) -> os.stat_result | None:
    """What a layer has at a path; a file or link on the way counts as what is there."""
    for count in range(len(parts)):
        fd = _walk(root, parts[:count])
        if fd < 0:
            return None
        try:
            status = os.stat(parts[count], dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(fd)
        if not stat.S_ISDIR(status.st_mode) or count == len(parts) - 1:
            return status
    return None


def _remove(root: str, parts: list[str], below: os.stat_result | None) -> bool:
    """Remove an empty file or directory of a layer; whether nothing is there any more.

    What the layers below have too must be a plain copy of it, or it means something.
    """
    fd = _walk(root, parts[:-1])
    if fd < 0:
        return False
    try:
        status = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if below is not None and not _is_copy(fd, parts[-1], status, below):
                return False
            os.rmdir(parts[-1], dir_fd=fd)
        elif stat.S_ISREG(status.st_mode) and not status.st_size and below is None:
            os.unlink(parts[-1], dir_fd=fd)
        else:
            return False
    except FileNotFoundError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _is_copy(parent: int, name: str, status: os.stat_result, below: os.stat_result) -> bool:
    if (status.st_mode, status.st_uid, status.st_gid) != (
        below.st_mode,
        below.st_uid,
        below.st_gid,
    ):
        return False
    fd = os.open(name, _LIST, dir_fd=parent)
    try:
        return not overlaymarks.is_opaque(fd)
    finally:
        os.close(fd)
