"""ExecSync: a command in a container, to its end, with all that it said, or no further.

What a command prints is kept up to LARGEST bytes for both streams together; the rest is read and
dropped, and a line says so. The time that is given covers the reading as well: whoever leaves a
child behind that keeps the pipe open ends with it. When the time is over, the command and every
process of its session are killed (CVE-2022-1708, CVE-2026-53495).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.engine.model import Attachment, ExecConfig
from sampan.errors import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    SampanError,
)

if TYPE_CHECKING:
    from sampan.engine.engine import Engine
    from sampan.engine.model import Container

LARGEST = 15 << 20
"""Bytes of both streams; with the message around them they stay below the client's 16 MiB."""

CUT = b"\n[output truncated]\n"
_HEADER = struct.Struct(">BxxxI")
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said."""

    stdout: bytes
    stderr: bytes
    code: int


class Execs:
    """Runs commands to their end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, container: Container, command: tuple[str, ...], timeout: int) -> Done:
        """Run `command`; `timeout` in seconds, 0 without end.

        Raises:
            DeadlineExceeded: it was killed, for its time was over.
            FailedPrecondition: the container does not run.
            InvalidArgument: there is no command, or a time before now.
        """
        if not command or not command[0]:
            raise InvalidArgument("exec: no command is given")
        if timeout < 0:
            raise InvalidArgument(f"exec: timeout {timeout} is negative")
        try:
            wanted = ExecConfig(command=command)
            # A kubelet's probes come every few seconds: nobody wants to read of each.
            exec_id = await self._engine.exec_create(container.id, wanted, quiet=True)
        except Conflict as error:
            raise FailedPrecondition(str(error)) from error
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        output = _Output()
        try:
            await self._engine.exec_start(exec_id, Attachment(fd=theirs.detach()))
            async with asyncio.timeout(timeout or None):
                await output.read(ours)
                code = await self._engine.exec_wait(exec_id)
        except TimeoutError:
            await self._kill(exec_id)
            raise DeadlineExceeded(f"exec {command[0]}: timed out after {timeout} s") from None
        except asyncio.CancelledError:
            await self._kill(exec_id)
            raise
        finally:
            ours.close()
        return output.done(code)

    async def _kill(self, exec_id: str) -> None:
        try:
            await self._engine.exec_kill(exec_id)
        except SampanError:
            return  # the container is gone, and the command with it


class _Output:
    """Both streams, unframed, up to LARGEST bytes."""

    def __init__(self) -> None:
        self._streams = (bytearray(), bytearray(), bytearray())
        self._kept = 0
        self._cut = 0

    async def read(self, sock: socket.socket) -> None:
        """Read frames until the other end closes."""
        loop = asyncio.get_running_loop()
        pending = bytearray()
        while piece := await loop.sock_recv(sock, _PIECE):
            pending += piece
            start = 0
            while len(pending) - start >= _HEADER.size:
                stream, size = _HEADER.unpack_from(pending, start)
                end = start + _HEADER.size + size
                if end > len(pending):
                    break
                self._take(stream, pending[start + _HEADER.size : end])
                start = end
            del pending[:start]

    def done(self, code: int) -> Done:
        """What was read."""
        if self._cut:
            self._streams[self._cut].extend(CUT)
        return Done(bytes(self._streams[1]), bytes(self._streams[2]), code)

    def _take(self, stream: int, data: bytearray) -> None:
        room = LARGEST - self._kept
        if len(data) > room:
            self._cut = self._cut or stream
            data = data[:room]
        self._kept += len(data)
        self._streams[stream].extend(data)
