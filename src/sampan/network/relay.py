"""Connections that reach the socket that guards a published port, carried by us.

The kernel rewrites what comes to a published port, so nothing comes to its guard, but for three
cases. It rewrites no IPv6 into IPv4, so a container without IPv6 is reached by it here only. IPv6
knows no `route_localnet`: a packet from `::1` never leaves loopback, whatever its
destination was rewritten to. And while somebody has flushed the packet filter, or a container
without a network keeps its ports, nobody rewrites. Such a connection is carried to the container,
which sees the host's address then; where there is nobody to carry it to, it is closed, for a guard
that only listened would let its client wait for ever.

Datagrams are carried as well: each client has a socket of its own towards the container, until
nothing has passed for a while. Answers come from the address that was asked.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Target = Callable[[], tuple[str, int] | None]

MAX_STREAMS = 256
"""Connections that are carried at once, for all ports; as many clients of datagrams besides."""

PATIENCE = 10.0
QUIET = 90.0
"""Seconds without a datagram after which a client is forgotten."""

_CHUNK = 1 << 16
_ANCILLARY = socket.CMSG_SPACE(20)  # struct in6_pktinfo


class Relays:
    """The guards that are listened on. Belongs to the event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._guards: set[int] = set()
        self._clients: dict[tuple[Any, ...], _Client] = {}

    def open(self, guard: socket.socket, target: Target) -> None:
        """Carry what comes to `guard` to (address, port); None: to nobody, for now."""
        guard.setblocking(False)
        self._guards.add(guard.fileno())
        accept = self._accept if guard.type == socket.SOCK_STREAM else self._receive
        if guard.type == socket.SOCK_DGRAM and guard.family == socket.AF_INET6:
            guard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        asyncio.get_running_loop().add_reader(guard.fileno(), accept, guard, target)

    def close(self, guard: socket.socket) -> None:
        """Take no more connections; those that there are go on."""
        if guard.fileno() in self._guards:
            self._guards.discard(guard.fileno())
            asyncio.get_running_loop().remove_reader(guard.fileno())
            for key, client in tuple(self._clients.items()):
                if key[0] == guard.fileno():
                    client.close()

    async def aclose(self) -> None:
        """Break every connection off."""
        for client in tuple(self._clients.values()):
            client.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, guard: socket.socket, target: Target) -> None:
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

    def _receive(self, guard: socket.socket, target: Target) -> None:
        try:
            data, asked, _, source = guard.recvmsg(_CHUNK, _ANCILLARY)
        except OSError:
            return
        key = (guard.fileno(), source, *asked)
        client = self._clients.get(key)
        where = target()
        if client is not None and client.where != where:
            client.close()
            client = None
        if client is None:
            if where is None or len(self._clients) >= MAX_STREAMS:
                return
            forget = partial(self._clients.pop, key, None)
            client = _Client(guard, source, asked, where, forget)
            self._clients[key] = client
        client.send(data)


class _Client:
    """One sender of datagrams, and the socket that speaks for it."""

    def __init__(
        self,
        guard: socket.socket,
        source: tuple[Any, ...],
        asked: list[tuple[int, int, bytes]],
        where: tuple[str, int],
        forget: Callable[[], object],
    ) -> None:
        self.where = where
        self._guard, self._source, self._forget = guard, source, forget
        self._asked = asked
        family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.connect_ex(where)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sock.fileno(), self._answer)
        self._end = loop.call_later(QUIET, self.close)

    def send(self, data: bytes) -> None:
        """On to the container; what does not fit is lost, as datagrams are."""
        self._again()
        try:
            self._sock.send(data)
        except OSError:
            return

    def close(self) -> None:
        """Forget it."""
        self._end.cancel()
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
        self._forget()

    def _answer(self) -> None:
        self._again()
        try:
            self._guard.sendmsg([self._sock.recv(_CHUNK)], self._asked, 0, self._source)
        except OSError:
            return

    def _again(self) -> None:
        self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(QUIET, self.close)


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
