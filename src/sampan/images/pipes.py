"""Pipes between the event loop and a worker, without a thread in between."""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

T = TypeVar("T")

SIZE: Final = 1 << 20


class _Pipe:
    """Both ends of a large pipe, closed at the end of the block."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        try:
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, SIZE)
        except OSError:
            pass  # more than this user may have; the usual size does too

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_writer()
        self.end_reader()

    def end_writer(self) -> None:
        """Close our copy of the writing end."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def end_reader(self) -> None:
        """Close our copy of the reading end."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


class FromWorker(_Pipe):
    """What a worker writes. Iterating gives what comes out, until `fill` has ended."""

    def __init__(self) -> None:
        super().__init__()
        os.set_blocking(self.reader, False)

    async def fill(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for what writes into the pipe; then there is no more."""
        try:
            return await work
        finally:
            self.end_writer()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                piece = os.read(self.reader, SIZE)
            except BlockingIOError:
                await _ready(self.reader, writing=False)
                continue
            if not piece:
                return
            yield piece


class ToWorker(_Pipe):
    """What a worker reads."""

    def __init__(self) -> None:
        super().__init__()
        os.set_blocking(self.writer, False)

    async def drain(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for what reads from the pipe; who still writes is told then."""
        try:
            return await work
        finally:
            self.end_reader()

    async def feed(self, content: AsyncIterator[bytes]) -> None:
        """Write all of `content`, then the end. A reader that has left needs no more."""
        try:
            async for piece in content:
                await self._write(memoryview(piece))
        except BrokenPipeError:
            return  # what the worker says is why
        finally:
            self.end_writer()

    async def _write(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self.writer, data) :]
            except BlockingIOError:
                await _ready(self.writer, writing=True)


async def _ready(fd: int, *, writing: bool) -> None:
    """Wait until `fd` can be read or written, or its other end is closed."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    if writing:
        loop.add_writer(fd, ready.set)
    else:
        loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        if writing:
            loop.remove_writer(fd)
        else:
            loop.remove_reader(fd)
