"""OCI layout directories, as the archive that goes over the wire.

`pack` reads a directory as one would tar it; `unpack` writes the archive that the daemon made. Only
the names that a layout has are read or written.
"""

from __future__ import annotations

import os
import re

from sampan.cli.session import Failed, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 20
_BLOCK = 512
_DOCUMENTS = ("oci-layout", "index.json", "manifest.json")
_NAME = re.compile(r"oci-layout|index\.json|blobs/(?:sha256|sha384|sha512)/[0-9a-f]{64,128}")


def pack(directory: str) -> Iterator[bytes]:
    """The archive of the layout in `directory`.

    Raises:
        Failed: there is none.
    """
    if not os.path.isfile(os.path.join(directory, "index.json")):
        raise Failed(f"{directory} is not an OCI layout: it has no index.json")
    names = [name for name in _DOCUMENTS if os.path.isfile(os.path.join(directory, name))]
    blobs = os.path.join(directory, "blobs")
    for algorithm in sorted(os.listdir(blobs)):
        names += [
            f"blobs/{algorithm}/{name}" for name in sorted(os.listdir(f"{blobs}/{algorithm}"))
        ]
    for name in names:
        fd = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield from _file(name, fd)
        finally:
            os.close(fd)
    yield bytes(2 * _BLOCK)


def _file(name: str, fd: int) -> Iterator[bytes]:
    size = left = os.fstat(fd).st_size
    yield _header(name, size)
    while left:
        data = os.read(fd, min(left, _PIECE))
        if not data:
            raise Failed(f"{name} became shorter while it was read")
        left -= len(data)
        yield data
    yield bytes(-size % _BLOCK)


def _header(name: str, size: int) -> bytes:
    raw = name.encode()
    block = bytearray(_BLOCK)
    prefix, raw = (b"", raw) if len(raw) <= 100 else (raw[:12], raw[13:])  # blobs/sha512
    block[0 : len(raw)] = raw
    block[345 : 345 + len(prefix)] = prefix
    block[100:124] = b"0000644\0000000000\0000000000\0"
    block[124:148] = b"%011o\00000000000000\0" % size
    block[156:157] = b"0"
    block[257:265] = b"ustar\00000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def unpack(pieces: Iterator[bytes], directory: str) -> None:
    """Write the layout in the archive to `directory`, which is made or must be empty.

    Raises:
        Failed: it is not empty, or the archive ends early.
    """
    os.makedirs(directory, exist_ok=True)
    if os.listdir(directory):
        raise Failed(f"{directory} is not empty")
    source = _Source(pieces)
    while (block := source.read(_BLOCK)).strip(b"\0"):
        name = _name(block)
        size = int(block[124:135], 8)
        if block[156:157] != b"0":
            os.makedirs(os.path.join(directory, "blobs", "sha256"), exist_ok=True)
            continue
        if _NAME.fullmatch(name) is None:
            raise Failed(f"the archive has a file that no layout has: {name!r}")
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            source.copy(fd, size)
        finally:
            os.close(fd)
        source.read(-size % _BLOCK)
    source.end()


def _name(block: bytes) -> str:
    name = block[:100].rstrip(b"\0")
    prefix = block[345:500].rstrip(b"\0")
    return (prefix + b"/" + name if prefix else name).decode("ascii", "replace")


class _Source:
    """Pieces as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises Failed."""
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def copy(self, fd: int, size: int) -> None:
        """Write `size` bytes to `fd`. Raises Failed."""
        while size:
            if not self._buffer:
                self._more()
            data = self._buffer[:size]
            self._buffer = self._buffer[size:]
            size -= len(data)
            write(fd, data)

    def end(self) -> None:
        """Read what is left."""
        for _ in self._pieces:
            continue

    def _more(self) -> None:
        piece = next(self._pieces, b"")
        if not piece:
            raise Failed("the archive ends early")
        self._buffer += piece
