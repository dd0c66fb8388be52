"""A living tree as a tar stream: what `cp` and `export` send.

The tree belongs to a container that may run and change it meanwhile. Every step is one `openat` of
one component with O_NOFOLLOW below a directory descriptor; only regular files are opened, without
blocking, and looked at again after that. A file that shrinks is filled up with zeros, one that
grows is cut: the header's size holds. File systems of the kernel (proc, sysfs, cgroups ...) are
shown as empty directories. Sockets are left out, as docker does.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from sampan.kernel import filesystems
from sampan.layers import header, tarwriter

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SMALL: Final = 64 << 10
_FLUSH: Final = 256 << 10
_PIECE: Final = 16 << 20
_GONE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO))
_KEPT: Final = (b"security.capability",)
_USER: Final = b"user."
_SECOND: Final = 1_000_000_000
_SPECIAL: Final = {
    stat.S_IFCHR: header.CHARACTER,
    stat.S_IFBLK: header.BLOCK_DEVICE,
    stat.S_IFIFO: header.FIFO,
}


class TreeTar:
    """Writes one archive to the descriptor `out`, a pipe or a file."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._waiting = bytearray()
        self._seen: dict[tuple[int, int], bytes] = {}

    def add(self, parent: int, name: bytes, shown: bytes) -> None:
        """Add `name` of the directory `parent`, with what is in it, as `shown`."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        self._add(parent, name, shown, status)

    def add_inside(self, directory: int, prefix: bytes = b"") -> None:
        """Add what is in `directory`, not itself; `prefix` stands before each name."""
        for name in _names(directory):
            try:
                self.add(directory, name, prefix + name)
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    def finish(self) -> None:
        """Write the end of the archive."""
        self._write(tarwriter.END)
        self._flush()

    def _add(self, parent: int, name: bytes, shown: bytes, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            self._directory(parent, name, shown)
        elif stat.S_ISREG(status.st_mode):
            self._file(parent, name, shown)
        elif stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=parent)
            self._write(_header(shown, header.SYMLINK, status, link=target))
        elif (kind := _SPECIAL.get(stat.S_IFMT(status.st_mode))) is not None:
            self._write(_header(shown, kind, status))

    def _directory(self, parent: int, name: bytes, shown: bytes) -> None:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            prefix = shown if shown.endswith(b"/") else shown + b"/"
            status = os.fstat(fd)
            attributes = _attributes(fd)
            self._write(_header(prefix, header.DIRECTORY, status, attributes=attributes))
            if not filesystems.is_of_kernel(fd):
                self.add_inside(fd, prefix)
        finally:
            os.close(fd)

    def _file(self, parent: int, name: bytes, shown: bytes) -> None:
        fd = os.open(name, _FILE, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return  # it was one a moment ago
            identity = (status.st_dev, status.st_ino)
            first = self._seen.get(identity) if status.st_nlink > 1 else None
            if first is not None:
                self._write(_header(shown, header.HARD_LINK, status, link=first))
                return
            if status.st_nlink > 1:
                self._seen[identity] = shown
            attributes = _attributes(fd)
            self._write(_header(shown, header.REGULAR, status, attributes=attributes))
            self._content(fd, status.st_size)
        finally:
            os.close(fd)

    def _content(self, fd: int, size: int) -> None:
        left = size
        if size > _SMALL:
            self._flush()
            while left and (sent := _send(self._out, fd, size - left, min(left, _PIECE))):
                left -= sent
        else:
            while left and (data := os.pread(fd, left, size - left)):
                self._waiting += data
                left -= len(data)
        while left:
            piece = min(left, _FLUSH)
            self._write(bytes(piece))
            left -= piece
        self._write(tarwriter.padding(size))

    def _write(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        with memoryview(self._waiting) as view:
            position = 0
            while position < len(view):
                position += os.write(self._out, view[position:])
        self._waiting.clear()


def _header(
    shown: bytes,
    kind: int,
    status: os.stat_result,
    *,
    link: bytes = b"",
    attributes: dict[bytes, bytes] | None = None,
) -> bytes:
    is_device = kind in (header.CHARACTER, header.BLOCK_DEVICE)
    device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0)
    return tarwriter.header(
        shown,
        kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == header.REGULAR else 0,
        mtime=max(0, status.st_mtime_ns // _SECOND),
        link=link,
        device=device,
        attributes=attributes,
    )


def _send(out: int, fd: int, offset: int, count: int) -> int:
    """Move up to `count` bytes from `offset` of the file to `out`; 0 at its end."""
    try:
        return os.sendfile(out, fd, offset, count)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without splice
            raise
    data = os.pread(fd, min(count, _FLUSH), offset)
    position = 0
    while position < len(data):
        position += os.write(out, data[position:])
    return len(data)


def _names(directory: int) -> list[bytes]:
    """The names in a directory, in the order of their bytes."""
    return sorted(os.fsencode(name) for name in os.listdir(directory))


def _attributes(fd: int) -> dict[bytes, bytes] | None:
    """Capabilities and the user's attributes; what is the host's own stays here."""
    try:
        names = [os.fsencode(name) for name in os.listxattr(fd)]
        kept = [n for n in names if n in _KEPT or n.startswith(_USER)]
        return {name: os.getxattr(fd, name) for name in kept} or None
    except OSError:
        return None
