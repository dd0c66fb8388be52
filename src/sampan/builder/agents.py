"""The caller's ssh agent, for the time of one command of RUN.

A command never gets the agent's own socket: it gets one of ours, with the owner and mode that the
mount asks for, and what comes there is read message by message. Keys may be listed and used, which
is what a command needs; adding, removing and locking are refused, as BuildKit refuses them.

    a message: length (4 bytes, big endian), type (1 byte), the rest
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from sampan.errors import InvalidArgument, Unavailable
from sampan.ids import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_MESSAGE: Final = 256 << 10
_ALLOWED: Final = frozenset((11, 13))  # REQUEST_IDENTITIES, SIGN_REQUEST
_FAILURE: Final = b"\0\0\0\x01\x05"
_LENGTH: Final = struct.Struct(">I")
_MOST: Final = 64
"""Connections at a time that one command may have."""


@asynccontextmanager
async def relayed(
    agent: str, directory: str, *, mode: int, uid: int, gid: int
) -> AsyncIterator[str]:
    """The path of a socket in `directory` behind which the agent at `agent` answers.

    Raises:
        Unavailable: nobody answers at `agent`.
    """
    (await _connect(agent))[1].close()
    path = f"{directory}/{new_id()[:32]}"
    relay = _Relay(agent)
    server = await asyncio.start_unix_server(relay.serve, sock=_listening(path))
    try:
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        yield path
    finally:
        server.close()
        os.unlink(path)
        await relay.end()


def _listening(path: str) -> socket.socket:
    """A socket at a path of any length, that nobody but us can use yet."""
    sock = socket.socket(socket.AF_UNIX)
    parent = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mask = os.umask(0o177)
    try:
        sock.bind(f"/proc/self/fd/{parent}/{os.path.basename(path)}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(mask)
        os.close(parent)
    return sock


async def _connect(agent: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(agent)
    except OSError as error:
        raise Unavailable(f"ssh agent {agent}: {error.strerror or error}") from error


class _Relay:
    """The connections of one command."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= _MOST:
            writer.close()
            return
        self._tasks.add(task)
        try:
            with suppress(
                OSError, asyncio.IncompleteReadError, InvalidArgument, Unavailable
            ):  # either side went away
                await self._relay(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, asks = await _connect(self._agent)
        try:
            while True:
                message = await _message(reader)
                if message[4] in _ALLOWED:
                    asks.write(message)
                    await asks.drain()
                    writer.write(await _message(answers))
                else:
                    writer.write(_FAILURE)
                await writer.drain()
        finally:
            asks.close()

    async def end(self) -> None:
        """Cut what is still connected."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One message, with its length in front."""
    head = await reader.readexactly(_LENGTH.size)
    (size,) = _LENGTH.unpack(head)
    if not 0 < size <= MAX_MESSAGE:
        raise InvalidArgument("ssh agent: a message of an impossible length")
    return head + await reader.readexactly(size)
