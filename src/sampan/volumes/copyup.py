"""Copy a directory of an image into a new volume: by descriptors, once, whole or not at all.

The image's tree belongs to whoever made it, so nothing of it is looked up by a joined path: the
directory is resolved inside of the image's root, every step below it is relative to a descriptor
and follows no link, and files are opened without waiting (a FIFO blocks nobody). Links, devices,
owners, modes, times and attributes come along, hard links as hard links.

The copy is made beside the volume's data and takes its place by one rename, which the kernel
refuses unless that place is still empty. What a crash leaves is removed by the next try.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, ResourceExhausted
from sampan.kernel.paths import Root
from sampan.runtime import rootfs
from sampan.store import trees

if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 200
"""Directories below one another; each holds two descriptors open while it is copied."""

DATA = "_data"
_DRAFT = "_copy"
# Before Linux 6.8 an overlay of many layers is mounted relative to the working directory.
_MOUNTING = threading.Lock()
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def populate(tree: dict[str, Any], path: str, volume: str) -> bool:
    """Fill the empty data directory of the volume in `volume` from `path` in the image `tree`.

    `tree` is the snapshots' word for a mount. Blocks. Returns whether anything was copied: not
    where the image has no such directory, nor where the volume holds something already.

    Raises:
        InvalidArgument: the image's directories are nested too deep.
        ResourceExhausted: the disk is full. OSError: anything else; the volume is as it was.
    """
    if os.listdir(f"{volume}/{DATA}"):
        return False
    with _MOUNTING:
        mount = rootfs.mount(tree)
    try:
        source = _open_directory(mount, path)
        if source < 0:
            return False
        try:
            return _fill(source, volume)
        finally:
            os.close(source)
    finally:
        os.close(mount)


def _open_directory(mount: int, path: str) -> int:
    """The directory `path` inside of the image, -1 when it has none there."""
    try:
        return Root(mount).open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise


def _fill(source: int, volume: str) -> bool:
    top = os.open(volume, _DIRECTORY)
    try:
        trees.remove(top, _DRAFT)
        try:
            os.mkdir(_DRAFT, 0o700, dir_fd=top)
            _Copy(top).directory(source, _DRAFT)
            os.rename(_DRAFT, DATA, src_dir_fd=top, dst_dir_fd=top)
        except OSError as error:
            trees.remove(top, _DRAFT)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            if error.errno in _FULL:
                raise ResourceExhausted(f"copy the image's files to a volume: {error}") from error
            raise
    finally:
        os.close(top)
    return True


class _Copy:
    """One copy into the directory behind `top`; remembers hard links by their path below it.

    The paths are safe to join: the draft is ours alone until it takes its place.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._links: dict[tuple[int, int], str] = {}

    def directory(self, source: int, path: str, depth: int = 0) -> None:
        """Copy everything below `source` into the directory `path`, then owner, mode and times."""
        if depth > MAX_DEPTH:
            raise InvalidArgument(
                f"copy the image's files to a volume: more than {MAX_DEPTH} nested directories"
            )
        target = os.open(path, _DIRECTORY, dir_fd=self._top)
        try:
            for name in os.listdir(source):
                self._entry(source, target, name, f"{path}/{name}", depth)
            _dress(source, target)
        finally:
            os.close(target)

    def _entry(self, source: int, target: int, name: str, path: str, depth: int) -> None:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            below = os.open(name, _DIRECTORY, dir_fd=source)
            try:
                os.mkdir(name, 0o700, dir_fd=target)
                self.directory(below, path, depth + 1)
            finally:
                os.close(below)
            return
        key = (found.st_dev, found.st_ino)
        first = self._links.setdefault(key, path) if found.st_nlink > 1 else path
        if first != path:
            os.link(first, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
        else:
            _leaf(source, target, name, found)


def _leaf(source: int, target: int, name: str, found: os.stat_result) -> None:
    """Copy something that is no directory."""
    if stat.S_ISREG(found.st_mode):
        _file(source, target, name)
        return
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISSOCK(found.st_mode) or (stat.S_ISCHR(found.st_mode) and not found.st_rdev):
        return  # nobody listens on a socket of an image; 0:0 is overlayfs' mark of a deletion
    else:
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
    os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    times = (found.st_atime_ns, found.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _file(source: int, target: int, name: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    reading = os.open(name, flags, dir_fd=source)
    try:
        made = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(name, made, 0o600, dir_fd=target)
        try:
            while os.sendfile(writing, reading, None, 1 << 26):
                pass
            _dress(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _dress(source: int, target: int) -> None:
    """Owner, attributes, mode and times. A change of owner takes rights away, so it comes first."""
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    for key in os.listxattr(source):
        if not key.startswith("trusted.overlay."):
            os.setxattr(target, key, os.getxattr(source, key))
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
