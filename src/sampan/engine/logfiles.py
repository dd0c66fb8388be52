"""The files of one log: which there are, which is which, and how one is opened.

A file is known by its inode. A compressed one is unpacked into a nameless file to be read, and has
in its header the number of the inode that it was made of (see shim/rotation.py), so that a reader
who stands in the middle of the plain one finds its place again.
"""

from __future__ import annotations

import os
import tempfile
import zlib

PACKED = ".gz"
MAX_FILES = 1000
_HEAD = 10  # bytes before the name in the header of a gzip file that has one
_MAX_NAME = 300
_CHUNK = 1 << 18


class LogFile:
    """An open file of the log; the owner closes it. `fd` is plain text."""

    __slots__ = ("_identity", "_packed", "fd")

    def __init__(self, path: str) -> None:
        """Open it. Raises OSError; FileNotFoundError when it has been renamed meanwhile."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self.fd = os.open(path, flags)
        status = os.fstat(self.fd)
        self._identity = status.st_dev, status.st_ino
        self._packed = path.endswith(PACKED)
        if self._packed:
            self.fd = _unpacked(self.fd, os.path.dirname(path))

    def is_at(self, path: str) -> bool:
        """Whether the file named `path` is this one, or was made of it."""
        try:
            status = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not path.endswith(PACKED) or self._packed:
            return (status.st_dev, status.st_ino) == self._identity
        return _origin(path) == self._identity[1]

    def close(self) -> None:
        """Close it. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def close_all(*files: LogFile | None) -> None:
    """Close those that are there."""
    for one in files:
        if one is not None:
            one.close()


def open_file(path: str) -> LogFile | None:
    """The file, or what it was compressed to meanwhile; None when it is not there."""
    for name in (path,) if path.endswith(PACKED) else (path, path + PACKED):
        try:
            return LogFile(name)
        except FileNotFoundError:
            pass
    return None


def paths(path: str) -> list[str]:
    """Newest first. In the middle of a rotation one number is missing, never two in a row."""
    found = [path] if os.path.exists(path) else []
    missing = 0
    for number in range(1, MAX_FILES):
        name = f"{path}.{number}"
        # Both are there for a moment, and after a kill in it: they are the same. The packed one
        # comes before the plain one goes, so it is looked for again.
        packed = name + PACKED
        form = next((one for one in (packed, name, packed) if os.path.exists(one)), "")
        if form:
            found.append(form)
            missing = 0
            continue
        missing += 1
        if missing == 2:
            break
    return found


def _origin(path: str) -> int:
    """The inode of the plain file that a packed one was made of; 0 when it does not say."""
    try:
        with open(path, "rb") as file:
            name = file.read(_HEAD + _MAX_NAME)[_HEAD:].partition(b"\0")[0]
    except OSError:
        return 0
    number = name.rpartition(b".")[2]
    return int(number) if number.isdigit() else 0


def _unpacked(source: int, directory: str) -> int:
    """A nameless file with what `source` holds; what is damaged ends there. Closes `source`."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    with tempfile.TemporaryFile(dir=directory) as target:
        try:
            while data := os.read(source, _CHUNK):
                target.write(unpacker.decompress(data))
            target.write(unpacker.flush())
        except zlib.error:
            pass
        finally:
            os.close(source)
        target.flush()
        return os.dup(target.fileno())
