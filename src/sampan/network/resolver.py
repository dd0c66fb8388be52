"""The name server of containers: names of their networks from memory, the rest from elsewhere.

Each container has sockets of its own (`doors`), so it is known who asks. A name that `Names` knows
is answered at once. Others go to the servers of that container, in order, each with an id and a
socket of its own, from the host's namespace; whoever is closed in gets "no such name" instead, and
nothing leaves. All is bounded: questions under way, clients of streams, sizes, times.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sampan.errors import InvalidArgument
from sampan.network import dns

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from sampan.network.doors import Doors

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds that one server has to answer."""

IDLE = 10.0
"""Seconds that a stream may be silent."""

MAX_ASKED = 128
"""Questions under way for one container; more are dropped, and the client asks again."""

MAX_STREAMS = 32
_MAX_MESSAGE = 65535


class Names(Protocol):
    """What the name server knows of a container."""

    def find(self, owner: str, name: str) -> Sequence[str] | None:
        """The addresses of a name as `owner` sees it; None when it is no name of ours."""

    def name_of(self, owner: str, address: str) -> str:
        """The name of an address in the networks of `owner`; "" when it has none."""

    def servers(self, owner: str) -> Sequence[str]:
        """Where `owner` asks for what we do not know; none: nowhere."""

    def permits(self, owner: str, name: str) -> bool:
        """Whether `owner` may ask others for a name."""

    async def learned(self, owner: str, name: str, message: bytes) -> None:
        """An answer is about to be given to `owner`."""


@dataclass(slots=True)
class _Client:
    owner: str
    doors: Doors
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    streams: int = 0


class Resolver:
    """Answers every container. Belongs to the event loop."""

    def __init__(self, names: Names, port: int = 53) -> None:
        """`port` is the port of the servers that are asked."""
        self._names = names
        self._port = port
        self._clients: dict[str, _Client] = {}

    def open(self, owner: str, doors: Doors) -> None:
        """Answer on these sockets, which are ours from now on."""
        self.close(owner)
        client = self._clients[owner] = _Client(owner, doors)
        loop = asyncio.get_running_loop()
        loop.add_reader(doors[0].fileno(), self._datagram, client)
        loop.add_reader(doors[1].fileno(), self._stream, client)

    def serves(self, owner: str) -> bool:
        """Whether a container can ask us."""
        return owner in self._clients

    def close(self, owner: str) -> None:
        """Answer no more; nothing to close is fine."""
        client = self._clients.pop(owner, None)
        if client is None:
            return
        loop = asyncio.get_running_loop()
        for sock in client.doors:
            loop.remove_reader(sock.fileno())
            sock.close()
        for task in client.tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Answer nobody."""
        running = [task for client in self._clients.values() for task in client.tasks]
        for owner in tuple(self._clients):
            self.close(owner)
        await asyncio.gather(*running, return_exceptions=True)

    # readers

    def _datagram(self, client: _Client) -> None:
        sock = client.doors[0]
        try:
            data, peer = sock.recvfrom(dns.MAX_UDP)
        except OSError:
            return
        if len(client.tasks) >= MAX_ASKED:
            return
        self._spawn(client, self._answer_datagram(client, data, peer))

    def _stream(self, client: _Client) -> None:
        try:
            sock, _ = client.doors[1].accept()
        except OSError:
            return
        if client.streams >= MAX_STREAMS or len(client.tasks) >= MAX_ASKED:
            sock.close()
            return
        sock.setblocking(False)
        self._spawn(client, self._answer_stream(client, sock))

    def _spawn(self, client: _Client, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)

    async def _answer_datagram(self, client: _Client, data: bytes, peer: object) -> None:
        message = await self._answer(client, data, stream=False)
        if message:
            try:
                client.doors[0].sendto(message, peer)  # type: ignore[call-overload]
            except OSError as error:
                if error.errno not in (errno.EBADF, errno.EAGAIN):
                    log.debug("answer %s: %s", client.owner[:12], error)

    async def _answer_stream(self, client: _Client, sock: socket.socket) -> None:
        client.streams += 1
        try:
            reader, writer = await asyncio.open_connection(sock=sock)
        except OSError:
            client.streams -= 1
            sock.close()
            return
        try:
            while True:
                async with asyncio.timeout(IDLE):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(size)
                message = await self._answer(client, data, stream=True)
                if not message:
                    return
                writer.write(len(message).to_bytes(2, "big") + message)
                async with asyncio.timeout(IDLE):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            client.streams -= 1
            writer.close()

    # answers

    async def _answer(self, client: _Client, data: bytes, *, stream: bool) -> bytes:
        try:
            query = dns.parse(data)
        except InvalidArgument:
            return dns.malformed(data)
        if not query.is_plain:
            return dns.failure(query, dns.NOT_IMPLEMENTED)
        own = self._own(client.owner, query)
        if own:
            return own if stream else dns.shorten(query, own, 512)
        message = await self._forward(client.owner, query, data, stream=stream)
        if message:
            await self._names.learned(client.owner, query.name, message)
        return message or dns.failure(query, dns.SERVER_FAILURE)

    def _own(self, owner: str, query: dns.Query) -> bytes:
        """Our own answer; b"" when others must be asked."""
        if query.kind == dns.PTR:
            address = dns.reverse_address(query.name)
            name = self._names.name_of(owner, address) if address else ""
            if name:
                return dns.pointer(query, name)
        else:
            found = self._names.find(owner, query.name)
            if found is not None:
                return dns.answer(query, found)
        if not self._names.servers(owner) or not self._names.permits(owner, query.name):
            return dns.failure(query, dns.NO_SUCH_NAME)
        return b""

    async def _forward(self, owner: str, query: dns.Query, data: bytes, *, stream: bool) -> bytes:
        """The answer of the first server that gives one; b"" for none."""
        refused = b""
        for server in self._names.servers(owner):
            number = int.from_bytes(os.urandom(2), "big")
            ask = _ask_stream if stream else _ask_datagram
            try:
                async with asyncio.timeout(PATIENCE):
                    message = await ask(server, self._port, dns.with_id(data, number), query)
            except (OSError, EOFError, TimeoutError):
                continue
            message = dns.with_id(message, query.id)
            if message[3] & 0xF not in (dns.SERVER_FAILURE, dns.REFUSED):
                return message
            refused = message
        return refused


async def _ask_datagram(server: str, port: int, data: bytes, query: dns.Query) -> bytes:
    """Ask a server once. Raises OSError; waits without end."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, (server, port))
        await loop.sock_sendall(sock, data)
        while True:
            message = await loop.sock_recv(sock, _MAX_MESSAGE)
            if message[:2] == data[:2] and dns.answers(message, query):
                return message


async def _ask_stream(server: str, port: int, data: bytes, query: dns.Query) -> bytes:
    """The same over a stream. Raises OSError, EOFError."""
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        size = int.from_bytes(await reader.readexactly(2), "big")
        message = await reader.readexactly(size)
        if message[:2] != data[:2] or not dns.answers(message, query):
            raise OSError(errno.EBADMSG, "not an answer to what was asked")
        return message
    finally:
        writer.close()
