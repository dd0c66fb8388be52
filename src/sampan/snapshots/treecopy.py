"""Whole trees where overlayfs cannot be had: copied, or laid under what a layer changes.

A committed tree never changes, so another one may share its files by hard links; what will be
written to is a copy, which costs nothing on a file system with reflinks (FICLONE: btrfs, xfs).
Both trees are ours alone while this runs. Every step is one component below an open directory, and
no link is followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from dataclasses import dataclass, field
from typing import Final

from sampan.kernel import overlaymarks

_FICLONE: Final = 0x40049409
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_REFLINK: Final = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM)
_NO_LINK: Final = (errno.EMLINK, errno.EPERM, errno.EXDEV)
_MAX_DEPTH: Final = 500  # two descriptors each; layers are refused at less
_MAX_PATH: Final = 4000
_PIECE: Final = 1 << 30
_BLOCK: Final = 512


@dataclass(slots=True)
class Shared:
    """Files that were counted: bytes on the disk and inodes, links once. `apparent` counts the
    bytes that are in them, as `ls` does."""

    apparent: bool = False
    size: int = 0
    inodes: int = 0
    _seen: set[int] = field(default_factory=set)

    def add(self, status: os.stat_result) -> None:
        """Count a file, by whichever of its names it comes first."""
        if status.st_ino not in self._seen:
            self._seen.add(status.st_ino)
            self.size += status.st_size if self.apparent else status.st_blocks * _BLOCK
            self.inodes += 1


def copy_tree(source: int, target: int) -> None:
    """Fill the empty directory `target` with a copy of all that is in `source`.

    Owners, modes, times, attributes, hard links and holes are kept. Raises OSError.
    """
    _Copier(target).fill(source, target, b"", 0)


def lay_under(upper: int, lower: int) -> Shared:
    """Make the whole tree of what a layer changes (`upper`) above the whole tree `lower`.

    Files of `lower` that the layer leaves alone are linked into `upper`; the layer's whiteouts go
    with what they hide. Raises OSError.
    """
    shared = Shared()
    _lay_under(upper, lower, shared, _Copier(upper), b"", 0)
    return shared


def changed_size(tree: int, began: int) -> int:
    """Bytes of the files in `tree` that are not as in `began`, by what `stat` tells: links once,
    directories not. Raises OSError.
    """
    changed = Shared(apparent=True)
    _add_changed(tree, began, changed, 0)
    return changed.size


def _add_changed(tree: int, began: int, changed: Shared, depth: int) -> None:
    for name in _names(tree):
        status = os.stat(name, dir_fd=tree, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            there = _open_directory(began, name)
            try:
                with _opened(name, tree, depth) as here:
                    _add_changed(here, there, changed, depth + 1)
            finally:
                if there >= 0:
                    os.close(there)
        elif _look(status) != _look(_status(began, name)):
            changed.add(status)


def _status(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False) if parent >= 0 else None
    except FileNotFoundError:
        return None


def _look(status: os.stat_result | None) -> tuple[int, ...]:
    if status is None:
        return ()
    return status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns


class _Copier:
    """Copies entries into the tree whose root is `root`."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._links: dict[tuple[int, int], bytes] = {}

    def fill(self, source: int, target: int, path: bytes, depth: int) -> None:
        for name in _names(source):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self.directory(source, name, target, path, depth)
            else:
                self.file(source, name, target, path, status)

    def directory(self, source: int, name: bytes, target: int, path: bytes, depth: int) -> None:
        """Copy a directory with all that is in it."""
        os.mkdir(name, 0o700, dir_fd=target)
        with _opened(name, source, depth) as below, _opened(name, target, depth) as made:
            self.fill(below, made, _join(path, name), depth + 1)
            dress(below, made)

    def file(
        self, source: int, name: bytes, target: int, path: bytes, status: os.stat_result
    ) -> None:
        """Copy anything that is no directory."""
        if status.st_nlink > 1 and self._link(status, target, name, _join(path, name)):
            return
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            _copy_file(source, name, target)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)

    def _link(self, status: os.stat_result, target: int, name: bytes, path: bytes) -> bool:
        """Whether it is another name of what was copied, and is one here too now."""
        identity = (status.st_dev, status.st_ino)
        first = self._links.get(identity)
        if first is None:
            if len(path) <= _MAX_PATH:
                self._links[identity] = path
            return False
        os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target, follow_symlinks=False)
        return True


def _lay_under(
    upper: int, lower: int, shared: Shared, copier: _Copier, path: bytes, depth: int
) -> None:
    below = frozenset(_names(lower)) if lower >= 0 else frozenset()
    for name in _names(upper):
        status = os.stat(name, dir_fd=upper, follow_symlinks=False)
        if overlaymarks.is_gone(upper, name, status):
            os.unlink(name, dir_fd=upper)
            below -= {name}
        elif stat.S_ISDIR(status.st_mode):
            _merge(upper, lower, name, shared, copier, path, depth)
            below -= {name}
        else:
            below -= {name}
    for name in sorted(below):
        _take(upper, lower, name, shared, copier, path, depth)


def _merge(
    upper: int, lower: int, name: bytes, shared: Shared, copier: _Copier, path: bytes, depth: int
) -> None:
    """A directory that the layer has; perhaps the tree below has one too."""
    with _opened(name, upper, depth) as here:
        times = os.fstat(here)
        there = -1 if overlaymarks.clear_opaque(here) else _open_directory(lower, name)
        try:
            _lay_under(here, there, shared, copier, _join(path, name), depth + 1)
        finally:
            if there >= 0:
                os.close(there)
        os.utime(here, ns=(times.st_atime_ns, times.st_mtime_ns))


def _take(
    upper: int, lower: int, name: bytes, shared: Shared, copier: _Copier, path: bytes, depth: int
) -> None:
    """What only the tree below has: files by links, directories anew."""
    status = os.stat(name, dir_fd=lower, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        try:
            os.link(name, name, src_dir_fd=lower, dst_dir_fd=upper, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            copier.file(lower, name, upper, path, status)
        else:
            shared.add(status)
        return
    os.mkdir(name, 0o700, dir_fd=upper)
    with _opened(name, lower, depth) as there, _opened(name, upper, depth) as here:
        for child in _names(there):
            _take(here, there, child, shared, copier, _join(path, name), depth + 1)
        dress(there, here)


def dress(source: int, target: int) -> None:
    """Give the directory or file `target` the owner, mode, attributes and times of `source`."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    for name in os.listxattr(source):
        os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, stat.S_IMODE(status.st_mode))  # last: a change of the owner clears set-id
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_file(source: int, name: bytes, target: int) -> None:
    reader = os.open(name, _READ, dir_fd=source)
    try:
        writer = os.open(name, _WRITE, 0o600, dir_fd=target)
        try:
            if not _reflink(reader, writer):
                _copy_data(reader, writer)
            dress(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _reflink(reader: int, writer: int) -> bool:
    """Whether the file system lets both share their blocks."""
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        return False
    return True


def _copy_data(reader: int, writer: int) -> None:
    """Copy what is data, and leave the holes."""
    size, position = os.fstat(reader).st_size, 0
    os.ftruncate(writer, size)
    while position < size:
        try:
            position = os.lseek(reader, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # only a hole is left
        end = os.lseek(reader, position, os.SEEK_HOLE)
        os.lseek(reader, position, os.SEEK_SET)
        os.lseek(writer, position, os.SEEK_SET)
        while position < end:
            done = os.sendfile(writer, reader, None, min(end - position, _PIECE))
            if not done:
                return
            position += done


class _opened:  # noqa: N801 - a context manager, used like a function
    """A child directory, open for a block."""

    def __init__(self, name: bytes, parent: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise OSError(errno.ELOOP, f"copy a tree of more than {_MAX_DEPTH} levels")
        self._fd = os.open(name, _DIRECTORY, dir_fd=parent)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _open_directory(parent: int, name: bytes) -> int:
    """The directory `name` of `parent`; -1 when it has none."""
    if parent < 0:
        return -1
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return -1


def _names(directory: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(directory)))


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name
