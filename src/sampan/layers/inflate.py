"""The compressed bytes of a layer, read as the tar stream they stand for.

`open_stream` gives a `Stream` that inflates straight into the caller's buffer, so memory stays
bounded whatever the ratio. Gzip is read by isal at more than twice zlib's speed and without the
interpreter lock; members may follow one another. Damage is a LayerError, and so is a window or a
dictionary that wants more memory than the limits allow.
"""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import isal_zlib

from sampan.errors import DataLoss
from sampan.layers.compression import MAGIC_SIZE, Compression, detect
from sampan.layers.limits import (
    MAX_LAYER_SIZE,
    MAX_RATIO,
    MAX_XZ_MEMORY,
    MAX_ZSTD_WINDOW,
    RATIO_FLOOR,
    LayerError,
)

READ_SIZE = 1 << 18
_GZIP_BUFFER = 1 << 17


class _Reader(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


class _File:
    """The blob by position, so that a descriptor shared with others keeps its own offset."""

    __slots__ = ("fd", "offset")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.offset = 0

    def readinto(self, buffer: memoryview) -> int:
        count = os.preadv(self.fd, [buffer], self.offset)
        self.offset += count
        return count

    def read(self, size: int = -1) -> bytes:
        data = os.pread(self.fd, size if size >= 0 else READ_SIZE, self.offset)
        self.offset += len(data)
        return data


class _Sequential:
    """A pipe or a socket, read once from where it is, with a look at its first bytes."""

    __slots__ = ("_head", "fd", "offset")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.offset = 0
        self._head = b""

    def peek(self, count: int) -> bytes:
        """The first `count` bytes, fewer when there are fewer; they are read again later."""
        while len(self._head) < count and (more := os.read(self.fd, count - len(self._head))):
            self._head += more
        return self._head

    def readinto(self, buffer: memoryview) -> int:
        if self._head:
            count = min(len(self._head), len(buffer))
            buffer[:count], self._head = self._head[:count], self._head[count:]
        else:
            count = os.readv(self.fd, [buffer])
        self.offset += count
        return count

    def read(self, size: int = -1) -> bytes:
        wanted = size if size >= 0 else READ_SIZE
        if self._head:
            data, self._head = self._head[:wanted], self._head[wanted:]
        else:
            data = os.read(self.fd, wanted)
        self.offset += len(data)
        return data


class _Bounded:
    """xz and bzip2, whose objects of the standard library give bytes: copied, a piece each."""

    __slots__ = ("_file", "_kind", "_machine", "_used")

    def __init__(self, file: _File | _Sequential, kind: Compression) -> None:
        self._file = file
        self._kind = kind
        self._machine = self._fresh()
        self._used = False

    def _fresh(self) -> lzma.LZMADecompressor | bz2.BZ2Decompressor:
        if self._kind is Compression.XZ:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)
        return bz2.BZ2Decompressor()

    def readinto(self, buffer: memoryview) -> int:
        while True:
            data = self._input()
            if data is None:
                return 0
            out = self._machine.decompress(data, len(buffer))
            if out:
                buffer[: len(out)] = out
                return len(out)

    def _input(self) -> bytes | None:
        """The next compressed bytes, or None at the clean end of the last stream."""
        if self._machine.eof:
            rest = self._machine.unused_data or self._file.read(READ_SIZE)
            if not rest.strip(b"\0"):
                return None
            self._machine = self._fresh()
            return rest
        if not self._machine.needs_input:
            return b""
        data = self._file.read(READ_SIZE)
        if not data:
            raise EOFError("compressed data ends early")
        return data


class Stream:
    """The inflated bytes of one blob. `consumed` and `produced` count both sides."""

    __slots__ = ("_file", "_limit", "_reader", "compression", "produced")

    def __init__(self, file: _File | _Sequential, compression: Compression, limit: int) -> None:
        self.compression = compression
        self.produced = 0
        self._limit = limit
        self._file = file
        self._reader = _reader(file, compression)

    @property
    def consumed(self) -> int:
        """Bytes of the blob that were read so far."""
        return self._file.offset

    def readinto(self, buffer: memoryview) -> int:
        """Fill a part of `buffer`: the count of bytes, 0 at the end.

        Raises:
            LayerError: the data is damaged, cut short, or larger than a layer may be.
            DataLoss: the blob could not be read.
        """
        try:
            count = self._reader.readinto(buffer) or 0
        except OSError as error:
            if error.errno is not None:
                raise DataLoss(f"read layer blob: {(error.strerror or '').lower()}") from error
            raise self._damaged(error) from error  # gzip.BadGzipFile carries no errno
        except _FAILURES as error:
            raise self._damaged(error) from error
        self.produced += count
        self._check_bounds()
        return count

    def _damaged(self, error: Exception) -> LayerError:
        return LayerError(f"inflate layer: damaged {self.compression} data: {error}")

    def _check_bounds(self) -> None:
        if self.produced > self._limit:
            raise LayerError(f"inflate layer: larger than {self._limit} bytes")
        if self.produced > RATIO_FLOOR and self.produced > MAX_RATIO * self.consumed:
            raise LayerError(f"inflate layer: more than {MAX_RATIO} bytes out of each byte in")


_FAILURES = (
    EOFError,
    ValueError,
    zlib.error,
    cast("type[Exception]", isal_zlib.IsalError),
    lzma.LZMAError,
    zstandard.ZstdError,
)


def _reader(file: _File | _Sequential, compression: Compression) -> _Reader:
    match compression:
        case Compression.NONE:
            return file
        case Compression.GZIP:
            # What igzip.open wraps; its readinto inflates in place.
            reader: _Reader = isal_zlib._GzipReader(cast("BinaryIO", file), _GZIP_BUFFER)  # noqa: SLF001
            return reader
        case Compression.ZSTD:
            machine = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
            inflated: _Reader = machine.stream_reader(
                cast("BinaryIO", file), read_size=READ_SIZE, read_across_frames=True, closefd=False
            )
            return inflated
        case Compression.XZ | Compression.BZIP2:
            return _Bounded(file, compression)


def open_stream(
    fd: int, compression: Compression | None = None, *, limit: int = MAX_LAYER_SIZE
) -> Stream:
    """The inflated content of the regular file `fd`, from its start.

    Args:
        fd: stays the caller's.
        compression: detected from the first bytes when None.
        limit: bytes out, at most.
    """
    kind = detect(os.pread(fd, MAGIC_SIZE, 0)) if compression is None else compression
    return Stream(_File(fd), kind, min(limit, MAX_LAYER_SIZE))


def open_pipe(fd: int, *, limit: int) -> Stream:
    """The inflated content of what comes through the pipe `fd`, which stays the caller's.

    Raises:
        OSError: the pipe cannot be read.
    """
    file = _Sequential(fd)
    return Stream(file, detect(file.peek(MAGIC_SIZE)), limit)
