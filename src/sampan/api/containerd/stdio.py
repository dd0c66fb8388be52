"""Streams of a task: between the FIFOs that a client made and the shim's socket.

Only FIFOs and `file:` are taken. `binary:` would have us execute what a container's record names,
and is refused by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from sampan.engine.model import Attachment, Framing
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.api.containerd.records import TaskNotes

_PIECE: Final = 64 << 10
_HEADER: Final = 8
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def check(notes: TaskNotes) -> None:
    """Raises InvalidArgument for a stream of a kind that is not taken."""
    for path in (notes.stdin, notes.stdout, notes.stderr):
        scheme, colon, rest = path.partition("://")
        if colon and (scheme != "file" or not rest.startswith("/")):
            raise InvalidArgument(f"streams of the kind {scheme}: are not taken, only FIFOs")
        if path and not colon and not path.startswith("/"):
            raise InvalidArgument(f"stream {path[:200]!r}: not an absolute path")


class Streams:
    """The pumps of one process. `attachment` goes to the engine, which owns its descriptor."""

    def __init__(self, notes: TaskNotes) -> None:
        """Open what was asked for. Raises OSError, InvalidArgument."""
        self._opened = contextlib.ExitStack()
        try:
            self._stdin = self._open(notes.stdin, os.O_RDWR)
            self._stdout = self._open(notes.stdout, os.O_RDWR)
            self._stderr = self._open(notes.stderr, os.O_RDWR)
        except BaseException:
            self._opened.close()
            raise
        self._terminal = notes.terminal
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._socket = ours
        framing = Framing.RAW if notes.terminal else Framing.MULTIPLEXED
        self.attachment = Attachment(
            fd=theirs.detach(),
            stdin=not notes.terminal or self._stdin >= 0,
            stdout=self._stdout >= 0,
            stderr=self._stderr >= 0 and not notes.terminal,
            framing=framing,
            detach_keys=b"",
        )
        self._writing: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._has_ended = False

    def _open(self, path: str, flags: int) -> int:
        """A descriptor of a FIFO or of a file to append to; -1 for none."""
        if not path:
            return -1
        if path.startswith("file://"):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        # A FIFO that is open both ways waits for nobody, and ends when we close it.
        fd = os.open(path.removeprefix("file://"), flags | _FLAGS, 0o600)
        self._opened.callback(os.close, fd)
        kind = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(kind) or (stat.S_ISREG(kind) and flags & os.O_APPEND)):
            raise InvalidArgument(f"stream {path[:200]!r} is no FIFO")
        return fd

    async def pump(self) -> None:
        """Carry bytes until the shim closes its end."""
        if self._stdin >= 0:
            self._writing = asyncio.create_task(self._feed())
        elif not self._terminal:
            self._socket.shutdown(socket.SHUT_WR)  # its input is empty
        try:
            await (self._raw() if self._terminal else self._framed())
        except OSError:
            pass  # a peer has gone
        finally:
            if self._writing is not None:
                self._writing.cancel()
                await asyncio.gather(self._writing, return_exceptions=True)
            self._socket.close()
            self._opened.close()

    def close_stdin(self) -> None:
        """The client has nothing more to say; what it has said is in the FIFO."""
        self._has_ended = True
        self._stirred.set()

    async def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._stdin, self._stirred.set)
        try:
            while True:
                self._stirred.clear()
                with contextlib.suppress(BlockingIOError):
                    await loop.sock_sendall(self._socket, os.read(self._stdin, _PIECE))
                    continue
                if self._has_ended:
                    break
                await self._stirred.wait()
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the process reads no more
        finally:
            loop.remove_reader(self._stdin)

    async def _raw(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._socket, _PIECE):
            await self._write(self._stdout, data)

    async def _framed(self) -> None:
        """Take the shim's frames apart: a header of eight bytes says stream and length."""
        loop = asyncio.get_running_loop()
        pending = b""
        left, target = 0, -1
        while data := await loop.sock_recv(self._socket, _PIECE):
            pending += data
            while pending:
                if not left:
                    if len(pending) < _HEADER:
                        break
                    target = self._stderr if pending[0] == 2 else self._stdout
                    left = int.from_bytes(pending[4:_HEADER], "big")
                    pending = pending[_HEADER:]
                    continue
                part, pending = pending[:left], pending[left:]
                left -= len(part)
                await self._write(target, part)

    async def _write(self, fd: int, data: bytes) -> None:
        if fd < 0:
            return
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                await _ready(fd, loop.add_writer, loop.remove_writer)


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    """Wait for a descriptor."""
    ready = asyncio.Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)
