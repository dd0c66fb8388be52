"""Walks of directory trees that a tenant filled: removal and measurement.

The trees may be as deep as a container could make them, wide, full of links, fifos and directories
without permissions. So: one descriptor at a time whatever the depth, no recursion, names resolved
in one open directory only, links never followed. The way up is `..`, and what is found there must
be the directory that we came from; otherwise somebody moved directories under us, and the walk
ends. Mounts are never entered, bind mounts of the same file system neither (RESOLVE_NO_XDEV).
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice
from typing import TYPE_CHECKING

from sampan.kernel import numbers as n
from sampan.kernel.paths import openat2

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_BENEATH = n.RESOLVE_NO_XDEV | n.RESOLVE_NO_SYMLINKS
_BATCH = 1024
_BLOCK = 512  # unit of st_blocks


class _Cursor:
    """An open directory that moves down into a child or up to the parent it came from."""

    __slots__ = ("_above", "_here", "fd")

    def __init__(self, parent_fd: int, name: str) -> None:
        self.fd = _open_directory(parent_fd, name)
        self._here = _identity(self.fd)
        self._above: list[tuple[str, tuple[int, int]]] = []

    @property
    def depth(self) -> int:
        return len(self._above)

    def down(self, name: str) -> None:
        """Enter a child. Raises OSError EXDEV when it is a mount."""
        child = _open_directory(self.fd, name)
        self._above.append((name, self._here))
        os.close(self.fd)
        self.fd, self._here = child, _identity(child)

    def up(self) -> str:
        """Return to the parent; the name of the child that was left. Raises OSError ESTALE."""
        name, identity = self._above.pop()
        parent = openat2(self.fd, "..", _DIRECTORY, 0, _BENEATH)
        os.close(self.fd)
        self.fd = parent
        if _identity(parent) != identity:
            raise OSError(errno.ESTALE, "a directory was moved during the walk", name)
        self._here = identity
        return name

    def close(self) -> None:
        os.close(self.fd)


def remove(parent_fd: int, name: str) -> None:
    """Remove the file or tree `name` in the directory `parent_fd`; no error when it is not there.

    Raises:
        OSError: something cannot be removed (a mount, an immutable file); the rest may be gone.
    """
    if _unlink(parent_fd, name):
        return
    cursor = _Cursor(parent_fd, name)
    try:
        pending = [_clear(cursor.fd)]
        while cursor.depth or pending[-1] != ([], True):
            below, is_all = pending[-1]
            if below:
                cursor.down(below.pop())
                pending.append(_clear(cursor.fd))
            elif not is_all:
                pending[-1] = _clear(cursor.fd)
            else:
                pending.pop()
                left = cursor.up()
                os.rmdir(left, dir_fd=cursor.fd)
    finally:
        cursor.close()
    os.rmdir(name, dir_fd=parent_fd)


def measure(parent_fd: int, name: str, *, apparent: bool = False) -> tuple[int, int]:
    """Bytes on disk and inodes of the tree `name`, as du counts: blocks, each hard link once.

    A tree that changes meanwhile is counted as well as it can be. With `apparent` it is what the
    files hold, whatever they take: their bytes as `ls` tells them, and directories as nothing.
    """
    total = _Total(apparent=apparent)
    cursor = _Cursor(parent_fd, name)
    pending: list[Iterator[str]] = []
    try:
        total.add(os.fstat(cursor.fd))
        pending.append(iter(_count(cursor.fd, total)))
        while pending:
            below = next(pending[-1], None)
            if below is not None:
                _enter(cursor, below, total, pending)
                continue
            pending.pop()
            if pending:
                cursor.up()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    finally:
        cursor.close()
    return total.size, total.inodes


class _Total:
    __slots__ = ("_apparent", "_seen", "inodes", "size")

    def __init__(self, *, apparent: bool) -> None:
        self._apparent = apparent
        self.size = 0
        self.inodes = 0
        self._seen: set[tuple[int, int]] = set()

    def add(self, status: os.stat_result) -> None:
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory and self._apparent:
            return
        if status.st_nlink > 1 and not is_directory:
            identity = (status.st_dev, status.st_ino)
            if identity in self._seen:
                return
            self._seen.add(identity)
        self.size += status.st_size if self._apparent else status.st_blocks * _BLOCK
        self.inodes += 1


def _enter(cursor: _Cursor, name: str, total: _Total, pending: list[Iterator[str]]) -> None:
    try:
        cursor.down(name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            return  # gone, replaced or a mount since it was listed
        raise
    pending.append(iter(_count(cursor.fd, total)))


def _count(fd: int, total: _Total) -> list[str]:
    """Add the entries of one directory; return the names of its directories."""
    below = []
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                total.add(entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
    return below


def _clear(fd: int) -> tuple[list[str], bool]:
    """Remove files and empty directories until some others are met.

    Returns these, and whether they are all that is left.
    """
    while True:
        # Closing the iterator rewinds the directory, so that each round sees what is left.
        with os.scandir(fd) as entries:
            batch = list(islice(entries, _BATCH))
        is_all = len(batch) < _BATCH
        below = []
        for entry in batch:
            if not entry.is_dir(follow_symlinks=False):
                _unlink(fd, entry.name)
            elif not _rmdir(fd, entry.name):
                below.append(entry.name)
        if below or is_all:
            return below, is_all


def _rmdir(fd: int, name: str) -> bool:
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _unlink(fd: int, name: str) -> bool:
    """Remove a name that is no directory; whether it is gone."""
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


def _open_directory(parent_fd: int, name: str) -> int:
    """Open for reading; a directory of ours that forbids it is made to allow it.

    Only without CAP_DAC_OVERRIDE does this matter. `chmod` through the descriptor's entry in /proc
    reaches the very directory that was opened.
    """
    try:
        fd = openat2(parent_fd, name, _DIRECTORY, 0, _BENEATH)
    except PermissionError:
        _permit(parent_fd, name)
        return openat2(parent_fd, name, _DIRECTORY, 0, _BENEATH)
    if os.geteuid() != 0 and os.fstat(fd).st_mode & 0o700 != 0o700:
        os.fchmod(fd, 0o700)
    return fd


def _permit(parent_fd: int, name: str) -> None:
    fd = openat2(parent_fd, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, 0, _BENEATH)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
