"""The door of the streaming server: who wants SPDY goes one way, all others go to aiohttp.

aiohttp's parser takes what follows an upgrade that it does not know for the next request. So the
head of a connection's first request is looked at here, before the parser sees it. A head that does
not end within HEAD_SECONDS or MAX_HEAD bytes ends the connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

HEAD_SECONDS = 30.0
MAX_HEAD = 64 << 10
PIECE = 1 << 16
_LINGER = 2.0


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers of a request; names are in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]

    def words(self, name: str) -> list[str]:
        """The values of every header of that name, which may hold several each."""
        texts = [value for key, value in self.headers if key == name]
        return [word.strip() for text in texts for word in text.split(",") if word.strip()]

    @property
    def wants_spdy(self) -> bool:
        """Whether the connection is to become SPDY."""
        return "spdy/3.1" in [word.lower() for word in self.words("upgrade")]


class Raw:
    """A connection that carries bytes; a `spdy.Pipe`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        """The next bytes, b"" at the end."""
        return await self._reader.read(PIECE)

    async def write(self, data: bytes) -> None:
        """Send, and wait while the client reads slowly."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self, rest: Awaitable[object] | None = None) -> None:
        """Close, after `rest` (who reads what still comes) has seen the client leave.

        A connection that is closed with input in it is reset, and takes along what the client has
        not read yet.
        """
        try:
            if rest is not None and not self._writer.is_closing():
                self._writer.write_eof()
                async with asyncio.timeout(_LINGER):
                    await rest
        except (OSError, TimeoutError):
            pass
        self._writer.close()


class Front(asyncio.Protocol):
    """A new connection. `spdy` answers those who want it, `other` makes a protocol for the rest."""

    def __init__(
        self,
        spdy: Callable[[Head, Raw], Coroutine[Any, Any, None]],
        other: Callable[[], asyncio.Protocol],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._spdy, self._other, self._tasks = spdy, other, tasks
        self._head = b""
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HEAD_SECONDS, transport.abort)

    def connection_lost(self, _error: Exception | None) -> None:
        """It went before it said what it wants."""
        self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        """A part of the head."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= MAX_HEAD:
            return
        self._deadline.cancel()
        head = parse_head(self._head[:end]) if 0 <= end <= MAX_HEAD else None
        if head is not None and head.wants_spdy:
            self._become_raw(head, self._head[end + 4 :])
            return
        other = self._other()
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        other.data_received(self._head)

    def _become_raw(self, head: Head, rest: bytes) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=4 * PIECE, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        writer = asyncio.StreamWriter(self._transport, protocol, reader, loop)
        if rest:
            reader.feed_data(rest)
        task = loop.create_task(self._spdy(head, Raw(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def parse_head(text: bytes) -> Head | None:
    """A request's head, None when it is none."""
    lines = text.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            return None
        headers.append((name.strip().lower(), value.strip()))
    return Head(words[0], words[1], tuple(headers))
