"""The writer of one ingest: takes chunks, hashes and writes them off the event loop.

Chunks are gathered to blocks of a megabyte. One block is being hashed and written while the next
one is gathered; a caller that is faster than the disk waits in `write`. Hashing and writing of
large buffers release the interpreter lock, so several ingests use several processors.
"""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sampan.errors import (
    Conflict,
    DigestMismatch,
    FailedPrecondition,
    ResourceExhausted,
)
from sampan.spec.digest import Digest, Digester
from sampan.store.room import room

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor
    from types import TracebackType
    from typing import Self

    from sampan.spec.image import Descriptor

BLOCK = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(slots=True)
class OpenIngest:
    """The file of an ingest, and the hash of the `size` bytes in it."""

    path: str
    fd: int
    size: int
    digester: Digester


class Writer:
    """One ingest. `offset` counts the bytes accepted, those found at the start included."""

    def __init__(
        self,
        opened: OpenIngest,
        *,
        ref_key: str,
        expected: Descriptor | None,
        pool: Executor,
        commit: Callable[[str, Digest, int], Awaitable[None]],
        release: Callable[[], None],
    ) -> None:
        self.ref_key = ref_key
        self.offset = opened.size
        self._file = opened
        self._expected = expected
        self._pool = pool
        self._publish = commit
        self._release = release
        self._chunks: list[bytes] = []
        self._gathered = 0
        self._failed = False
        self._pending: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Append; returns when the bytes are taken, which is before they are on disk.

        Raises:
            FailedPrecondition: more bytes than were expected.
            ResourceExhausted: the disk is full. Said at this or a later call.
        """
        self._check_open()
        end = self.offset + len(data)
        if self._expected is not None and end > self._expected.size:
            raise FailedPrecondition(
                f"ingest {self.ref_key}: more than the {self._expected.size} bytes announced"
            )
        self._chunks.append(data)
        self._gathered += len(data)
        self.offset = end
        if self._gathered >= BLOCK:
            await self._flush()

    async def truncate(self, algorithm: str | None = None) -> None:
        """Forget all bytes: for a server that cannot go on where we stopped. `offset` is 0 then."""
        self._check_open()
        self._chunks, self._gathered = [], 0
        await self._settle()
        file = self._file
        await self._run(partial(os.ftruncate, file.fd, 0))
        file.size = self.offset = 0
        file.digester = Digester(algorithm or file.digester.algorithm)

    async def commit(self, size: int | None = None, digest: str | None = None) -> Digest:
        """Verify, make durable, and make the blob visible; return its digest. Ends the writer.

        What is not given is taken from what was expected, and not checked when nothing was.

        Raises:
            FailedPrecondition: the size is another; the bytes are thrown away.
            DigestMismatch: the digest is another; the bytes are thrown away.
            ResourceExhausted: the disk is full.
        """
        self._check_open()
        if self._expected is not None:
            size = self._expected.size if size is None else size
            digest = self._expected.digest if digest is None else digest
        await self._flush()
        await self._settle()
        file = self._file
        actual = file.digester.digest()
        problem = self._problem(actual, size, digest)
        if problem is not None:
            await self.abort()
            raise problem
        await self._run(partial(os.fsync, file.fd))
        await self._publish(file.path, actual, file.size)
        self._end()
        return actual

    async def abort(self) -> None:
        """Give up and throw the bytes away. Idempotent."""
        if self._file.fd < 0:
            return
        self._chunks = []
        try:
            await self._settle()
        except ResourceExhausted:
            pass  # the block that did not fit goes with the rest
        finally:
            _remove(self._file.path)
            self._end()

    async def close(self) -> None:
        """Stop, and keep what is there for a later writer. Idempotent."""
        if self._file.fd < 0:
            return
        try:
            await self._flush()
            await self._settle()
        except ResourceExhausted:
            pass  # less was kept; whoever resumes sees how much
        finally:
            self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _flush(self) -> None:
        """Hand the gathered block to the pool, after the one before it."""
        await self._settle()
        if not self._chunks:
            return
        chunks, self._chunks, self._gathered = self._chunks, [], 0
        loop = asyncio.get_running_loop()
        self._pending = loop.run_in_executor(self._pool, _append, self._file, chunks)

    async def _settle(self) -> None:
        """Wait for the block under way. A cancelled wait leaves it under way."""
        pending = self._pending
        if pending is None:
            return
        try:
            await asyncio.shield(pending)
        except OSError as error:
            self._pending = None
            self._raise(error)
        self._pending = None

    async def _run(self, fn: Callable[[], None]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, fn)
        except OSError as error:
            self._raise(error)

    def _problem(
        self, actual: Digest, size: int | None, digest: str | None
    ) -> FailedPrecondition | DigestMismatch | None:
        if size is not None and self._file.size != size:
            return FailedPrecondition(
                f"ingest {self.ref_key}: {self._file.size} bytes, {size} were announced"
            )
        if digest is not None and actual != digest:
            return DigestMismatch(f"ingest {self.ref_key}: expected {digest}, got {actual}")
        return None

    def _raise(self, error: OSError) -> None:
        self._failed = True
        if error.errno in FULL:
            raise ResourceExhausted(f"ingest {self.ref_key}: {error.strerror}") from error
        raise error

    def _check_open(self) -> None:
        if self._file.fd < 0:
            raise Conflict(f"ingest {self.ref_key}: the writer is closed")
        if self._failed:
            raise Conflict(f"ingest {self.ref_key}: an earlier write failed")

    def _end(self) -> None:
        fd, self._file.fd = self._file.fd, -1
        if fd < 0:
            return
        if self._pending is None:
            os.close(fd)
            self._release()
            return

        def finish(future: asyncio.Future[None]) -> None:
            # Cancelled while a block was being written: the descriptor is the pool's until then.
            future.exception()
            os.close(fd)
            self._release()

        self._pending.add_done_callback(finish)


def take_up(path: str, expected: Descriptor | None) -> OpenIngest:
    """Open the ingest at `path`, hash what it holds already. Blocks.

    Raises:
        ResourceExhausted: the disk has no room for what is still to come.
    """
    algorithm = "sha256" if expected is None else Digest.parse(expected.digest).algorithm
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_APPEND
    fd = os.open(path, flags, 0o600)
    try:
        size = os.fstat(fd).st_size
        if expected is not None and size > expected.size:
            os.ftruncate(fd, 0)
            size = 0
        if expected is not None:
            _check_room(path, fd, expected.size - size)
        digester = Digester(algorithm)
        done = 0
        while block := os.pread(fd, BLOCK, done):
            digester.update(block)
            done += len(block)
        return OpenIngest(path, fd, done, digester)
    except BaseException:
        os.close(fd)
        raise


def _check_room(path: str, fd: int, needed: int) -> None:
    free = room(fd)
    if free < needed:
        if os.fstat(fd).st_size == 0:
            _remove(path)
        raise ResourceExhausted(f"ingest {needed} bytes: the disk has room for {max(0, free)}")


def _append(file: OpenIngest, chunks: list[bytes]) -> None:
    """Write, then hash: what the hash has seen is in the file."""
    for chunk in _joined(chunks):
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(file.fd, view) :]
        except OSError:
            os.ftruncate(file.fd, file.size)
            raise
        file.digester.update(chunk)
        file.size += len(chunk)


def _joined(chunks: list[bytes]) -> list[bytes]:
    """Large chunks as they are, small ones as one: a call for each would cost more than a copy."""
    if sum(map(len, chunks)) >= len(chunks) * (BLOCK // 16):
        return chunks
    return [b"".join(chunks)]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
