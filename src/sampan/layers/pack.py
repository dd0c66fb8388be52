"""The pipeline behind the tar writer: one thread hashes, one compresses and writes out.

The writer's small pieces are gathered to large blocks first. Hashing, compressing and writing of
those release the interpreter lock, so the stages overlap; a few blocks are under way at most. The
first failure of a thread is raised in the writer's next call.
"""

from __future__ import annotations

import _thread
import hashlib
import os
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, cast

import zstandard
from isal import isal_zlib

from sampan.layers.compression import Compression
from sampan.layers.limits import LayerError

if TYPE_CHECKING:

    class _Compressor:
        def compress(self, data: bytes, /) -> bytes: ...
        def flush(self) -> bytes: ...


BLOCK: Final = 1 << 20
_UNDER_WAY: Final = 4
# isal's 2 packs as tight as zlib's 2 at ten times its speed.
GZIP_LEVEL: Final = 2
ZSTD_LEVEL: Final = 3
_GZIP_FORMAT: Final = 31  # a window of 32 KiB and gzip's frame, without name or time


class Packer:
    """Takes the bytes of a tar; `finish` gives their digest. `out` stays the caller's."""

    def __init__(self, out: int, compression: Compression, algorithm: str = "sha256") -> None:
        self._out = out
        self._hash = hashlib.new(algorithm)
        self._machine = _compressor(compression)
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._room: SimpleQueue[None] = SimpleQueue()
        self._to_hash: SimpleQueue[bytes | None] = SimpleQueue()
        self._to_pack: SimpleQueue[bytes | None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._failed: BaseException | None = None
        for _ in range(_UNDER_WAY):
            self._room.put(None)
        _thread.start_new_thread(self._digest, ())
        _thread.start_new_thread(self._pack, ())

    def write(self, data: bytes) -> None:
        """Take `data`. Raises OSError when what was written earlier could not be."""
        self._pieces.append(data)
        self._gathered += len(data)
        if self._gathered >= BLOCK:
            self._hand_over()

    def finish(self) -> str:
        """Write out the rest and end; the hexadecimal digest of everything taken.

        Raises:
            OSError: the output cannot be written.
        """
        self._hand_over()
        self._to_hash.put(None)
        self._ended.get()
        if self._failed is not None:
            raise self._failed
        return self._hash.hexdigest()

    def _hand_over(self) -> None:
        block, self._pieces, self._gathered = b"".join(self._pieces), [], 0
        self._room.get()
        if self._failed is not None:
            raise self._failed
        self._to_hash.put(block)

    def _digest(self) -> None:
        while (block := self._to_hash.get()) is not None:
            self._hash.update(block)
            self._to_pack.put(block)
        self._to_pack.put(None)

    def _pack(self) -> None:
        while (block := self._to_pack.get()) is not None:
            self._try(block)
            self._room.put(None)
        self._try(None)
        self._ended.put(None)

    def _try(self, block: bytes | None) -> None:
        """Compress and write one block, or at the end what is left."""
        if self._failed is not None:
            return
        machine = self._machine
        try:
            if machine is None:
                data = block or b""
            else:
                data = machine.flush() if block is None else machine.compress(block)
            _write(self._out, data)
        except BaseException as error:  # raised again in the writer's thread
            self._failed = error


def _compressor(compression: Compression) -> _Compressor | None:
    match compression:
        case Compression.NONE:
            return None
        case Compression.GZIP:
            deflated = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_FORMAT)
            return cast("_Compressor", deflated)
        case Compression.ZSTD:
            machine: Any = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
            return cast("_Compressor", machine)
        case Compression.XZ | Compression.BZIP2:
            raise LayerError(f"make layer: {compression} is not a compression of layers")


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
