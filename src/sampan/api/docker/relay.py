"""A bridge for the rare client that sends stdin together with its request.

Bytes that were read past a request cannot be put back into a socket. When there are any, the shim
gets one end of a socket pair in place of the client's socket, and this process copies: first those
bytes, then whatever comes, in both directions, with half-closes passed on. A bridge ends with its
connection. It does not outlive this process, unlike a socket that was handed over whole.
"""

from __future__ import annotations

import asyncio
import socket

_CHUNK = 64 << 10


class Relays:
    """The bridges of one server."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, fd: int, first: bytes) -> int:
        """Bridge the client's socket `fd`, which is owned from now on; gives the shim's end."""
        client = socket.socket(fileno=fd)
        ours, theirs = socket.socketpair()
        for end in (client, ours):
            end.setblocking(False)
        task = asyncio.get_running_loop().create_task(_bridge(client, ours, first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return theirs.detach()

    async def aclose(self) -> None:
        """End every bridge."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _bridge(client: socket.socket, ours: socket.socket, first: bytes) -> None:
    with client, ours:
        back = asyncio.ensure_future(_copy(ours, client))
        try:
            await _copy(client, ours, first)
            await back
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)


async def _copy(source: socket.socket, target: socket.socket, first: bytes = b"") -> None:
    """Copy until the source ends or one of them breaks, then end the target's input."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(target, first)
        while data := await loop.sock_recv(source, _CHUNK):
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
