"""The pipeline in front of the tar parser: one thread inflates, one hashes, the caller consumes.

A few large buffers go round: inflated, parsed and written out, hashed, inflated into again.
Inflating and hashing release the interpreter lock, so on two cores the three stages overlap. The
buffers are the whole memory of it. `close` ends both threads, whatever state they are in.
"""

from __future__ import annotations

import _thread
import hashlib
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.layers.inflate import Stream

CHUNK: Final = 1 << 20
_BUFFERS: Final = 5
_EMPTY: Final = memoryview(b"")

_Chunk = tuple[bytearray, int]


class Feed:
    """The inflated bytes of `stream` as chunks, hashed as they pass."""

    def __init__(self, stream: Stream, algorithm: str | None = "sha256") -> None:
        """Without an algorithm nothing is hashed."""
        self._stream = stream
        self._hash = None if algorithm is None else hashlib.new(algorithm)
        self._free: SimpleQueue[bytearray | None] = SimpleQueue()
        self._filled: SimpleQueue[_Chunk | BaseException | None] = SimpleQueue()
        self._used: SimpleQueue[_Chunk | None] = SimpleQueue()
        self._current: _Chunk | None = None
        self._ended = False
        for _ in range(_BUFFERS):
            self._free.put(bytearray(CHUNK))
        self._inflated = _start(self._inflate)
        self._hashed = _start(self._digest)

    def next_chunk(self) -> memoryview:
        """The next bytes; the view before becomes invalid. Empty at the end.

        Raises:
            LayerError: the compressed data is damaged or too large.
            OSError: the blob could not be read.
        """
        if self._current is not None:
            self._used.put(self._current)
            self._current = None
        if self._ended:
            return _EMPTY
        chunk = self._filled.get()
        if isinstance(chunk, BaseException):
            self._ended = True
            raise chunk
        if chunk is None:
            self._ended = True
            return _EMPTY
        self._current = chunk
        return memoryview(chunk[0])[: chunk[1]]

    def hexdigest(self) -> str:
        """The hash of all bytes, once `next_chunk` has given the empty view."""
        assert self._ended
        assert self._hash is not None
        self._used.put(None)
        self._hashed.acquire()
        self._hashed.release()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the threads and wait for them."""
        self._free.put(None)
        self._used.put(None)
        self._inflated.acquire()
        self._hashed.acquire()

    def _inflate(self) -> None:
        try:
            while (buffer := self._free.get()) is not None:
                count = self._fill(buffer)
                if count:
                    self._filled.put((buffer, count))
                if count < CHUNK:
                    self._filled.put(None)
                    return
        except BaseException as error:  # raised again in the consumer's thread
            self._filled.put(error)

    def _fill(self, buffer: bytearray) -> int:
        """Fill `buffer` wholly unless the end comes first: full chunks keep the stages few."""
        view = memoryview(buffer)
        count = 0
        while count < CHUNK:
            step = self._stream.readinto(view[count:])
            if not step:
                break
            count += step
        return count

    def _digest(self) -> None:
        while (chunk := self._used.get()) is not None:
            buffer, count = chunk
            if self._hash is not None:
                self._hash.update(memoryview(buffer)[:count])
            self._free.put(buffer)


def _start(body: Callable[[], None]) -> _thread.LockType:
    """Run `body` in a thread; the lock returned is free when it has ended.

    `_thread` instead of `threading`: no start-up event to wait for, and nothing that an interpreter
    exit would join.
    """
    ended = _thread.allocate_lock()
    ended.acquire()

    def run() -> None:
        try:
            body()
        finally:
            ended.release()

    _thread.start_new_thread(run, ())
    return ended
