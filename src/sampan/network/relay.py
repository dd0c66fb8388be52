"""Published ports on the host's own `::1`: relayed by us, because the kernel cannot rewrite them.

IPv6 knows no `route_localnet`: a packet from `::1` never leaves loopback, whatever its destination
was rewritten to. So who connects to `[::1]:PORT` reaches the socket that guards the port, and what
he says is carried to the container. The container sees the host's address. Streams only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

MAX_STREAMS = 256
"""Connections that are carried at once, for all ports."""

PATIENCE = 10.0
_CHUNK = 1 << 16


class Relays:
    """The guards that are listened on. Belongs to the event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._guards: set[int] = set()

    def open(self, guard: socket.socket, target: Callable[[], tuple[str, int] | None]) -> None:
        """Carry what connects to `guard` to (address, port); None: to nobody, for now."""
        guard.setblocking(False)
        self._guards.add(guard.fileno())
        asyncio.get_running_loop().add_reader(guard.fileno(), self._accept, guard, target)

    def close(self, guard: socket.socket) -> None:
        """Take no more connections; those that there are go on."""
        if guard.fileno() in self._guards:
            self._guards.discard(guard.fileno())
            asyncio.get_running_loop().remove_reader(guard.fileno())

    async def aclose(self) -> None:
        """Break every connection off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, guard: socket.socket, target: Callable[[], tuple[str, int] | None]) -> None:
        try:
            sock, _ = guard.accept()
        except OSError:
            return
        where = target()
        if where is None or len(self._tasks) >= MAX_STREAMS:
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(_carry(sock, *where))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _carry(sock: socket.socket, address: str, port: int) -> None:
    """Carry both directions, each to its own end."""
    sock.setblocking(False)
    try:
        async with asyncio.timeout(PATIENCE):
            inner, outward = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        sock.close()
        return
    try:
        outer, inward = await asyncio.open_connection(sock=sock)
    except OSError:
        outward.close()
        sock.close()
        return
    try:
        await asyncio.gather(_pump(outer, outward), _pump(inner, inward))
    finally:
        outward.close()
        inward.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()
