"""Connections, and how one becomes a raw stream.

Attach and exec take the connection over: after the answer's head its bytes are the container's
stdin and output, in both directions, until one side closes. So the socket leaves this process'
event loop for good: its descriptor is duplicated and given to the engine, which passes it to the
shim, and our own copy is closed without shutting the connection down.

The difficulty is what was read already. A client may send its first stdin bytes in the segment of
the request, and aiohttp's parser drops what follows an upgrade that it does not know. `Connection`
therefore looks at a request's head before the parser does: of a request that may take over it gives
the parser exactly the head and the body, stops reading from the socket, and keeps the rest. If the
request does not take over after all (an error, a detached exec), the rest is parsed as usual.

A head that does not end within `HEAD_SECONDS` or `MAX_HEAD` bytes ends the connection.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from termios import TIOCOUTQ
from typing import TYPE_CHECKING, Any

from aiohttp.web_protocol import RequestHandler
from aiohttp.web_response import StreamResponse
from aiohttp.web_server import Server

from sampan.api import errors
from sampan.api.docker import answers
from sampan.api.docker.relay import Relays
from sampan.errors import Aborted, InvalidArgument
from sampan.wire import multiplex

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web_request import BaseRequest
    from typing_extensions import override
else:

    def override(method: Any) -> Any:
        """`typing.override` is of Python 3.12."""
        return method


HEAD_SECONDS = 30.0
READ_SECONDS = 0.1
MAX_HEAD = 64 << 10
MAX_HELD_BODY = 64 << 10
"""A request that takes over carries a small JSON object at most."""

_BAD_HEAD = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n"


class Connection(RequestHandler):  # type: ignore[misc,unused-ignore] # aiohttp calls it final
    """One client's connection; see the module's docstring."""

    __slots__ = ("_deadline", "_gone", "_head", "_held", "_relays", "_tail")

    def __init__(self, manager: Server, relays: Relays, **options: Any) -> None:
        super().__init__(manager, **options)
        self._relays = relays
        self._head = b""
        self._tail = b""
        self._held = False
        self._gone: asyncio.Task[Any] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @override
    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._held:
            self._tail += data
        elif self._head or self._is_between_requests():
            self._take_head(self._head + data)
        else:
            super().data_received(data)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone: so is whatever only produced bytes for it."""
        self._forget_deadline()
        if self._gone is not None:
            self._gone.cancel()
            self._gone = None
        super().connection_lost(exc)

    @override
    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """The answer to a request that the parser refused, in our shape and without our text."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        answer = answers.error(status, message or errors.describe(exc or Exception())[1])
        answer.force_close()
        return answer

    def cancel_when_gone(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel `task` when the client closes; None takes that back."""
        self._gone = task

    def end_stream(self) -> None:
        """End the stream that is being written, if one is, by closing the connection."""
        if self._gone is not None:
            self.force_close()

    def release(self) -> None:
        """The request did not take over: go on with what follows it."""
        if not self._held:
            return
        self._held = False
        tail, self._tail = self._tail, b""
        if self.transport is not None:
            self.transport.resume_reading()
        if tail:
            super().data_received(tail)

    def take_over(self, head: bytes) -> int:
        """Write `head`, and give the caller a descriptor of its own for the raw stream.

        Raises:
            InvalidArgument: the request was pipelined behind another one.
            Aborted: the client is gone, or does not read.
        """
        transport = self.transport
        if transport is None:
            raise Aborted("take over the connection: the client is gone")
        if not self._held:
            raise InvalidArgument("take over the connection: the request was pipelined")
        if transport.get_write_buffer_size():
            raise Aborted("take over the connection: the client does not read")
        transport.pause_reading()
        fd = os.dup(transport.get_extra_info("socket").fileno())
        try:
            sent = os.write(fd, head)
        except OSError as error:
            os.close(fd)
            raise Aborted(f"take over the connection: {error.strerror}") from error
        if sent != len(head):
            os.close(fd)
            raise Aborted("take over the connection: the client does not read")
        tail, self._tail = self._tail, b""
        return self._relays.start(fd, tail) if tail else fd

    async def wait_until_read(self, fd: int) -> None:
        """Wait until the client has read what was written, at most `READ_SECONDS`.

        Clients that read an answer's head through a buffer (every Python program) lose what comes
        with it. A Unix socket knows how much of it is unread; a TCP socket, how much is on its way.
        """
        end = self._loop.time() + READ_SECONDS
        pause = 0.0
        while _unread(fd) and self._loop.time() < end:
            await asyncio.sleep(pause)
            pause = min(pause + 0.0002, 0.002)

    def _is_between_requests(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _take_head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD:
            if len(data) > MAX_HEAD:
                self._refuse()
                return
            self._head = data
            self._remember_deadline()
            return
        if not may_take_over(data, end):
            self._head = b""
            self._forget_deadline()
            super().data_received(data)
            return
        self._hold(data, end + 4)

    def _hold(self, data: bytes, body: int) -> None:
        length = content_length(data[:body])
        if length is None or length > MAX_HELD_BODY:
            # No length, two, or a chunked body: the parser's to judge; it can only be answered
            # with an error, for such a request cannot take over.
            self._head = b""
            self._forget_deadline()
            super().data_received(data)
            return
        end = body + length
        if len(data) < end:
            self._head = data
            self._remember_deadline()
            return
        self._head = b""
        self._forget_deadline()
        self._held = True
        if self.transport is not None:
            self.transport.pause_reading()
        self._tail = data[end:]
        super().data_received(data[:end])

    def _refuse(self) -> None:
        self._head = b""
        self._forget_deadline()
        if self.transport is not None:
            self.transport.write(_BAD_HEAD)
        self.force_close()

    def _remember_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(HEAD_SECONDS, self._refuse)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _unread(fd: int) -> int:
    """How many bytes the peer has still to read (SIOCOUTQ, which is TIOCOUTQ)."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, TIOCOUTQ, b"\0" * 4))[0])
    except OSError:
        return 0


def may_take_over(data: bytes, end: int) -> bool:
    """Whether the request whose head ends at `end` could ask for the connection.

    Clients before Docker 1.24 do not send `Upgrade`, so the path counts. A few false hits cost
    nothing.
    """
    if not data.startswith(b"POST "):
        return False
    line = data[5 : data.find(b"\r\n", 0, end)]
    return b"/attach" in line or (b"/exec/" in line and b"/start" in line)


def content_length(head: bytes) -> int | None:
    """The length of the body that `head` announces, 0 without one; None when it is not plain."""
    found: bytes | None = None
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"transfer-encoding" or (name == b"content-length" and found is not None):
            return None
        if name == b"content-length":
            found = value.strip()
    if found is None:
        return 0
    return int(found) if found.isdigit() and len(found) < 10 else None


class ConnectionServer(Server):
    """aiohttp's low-level server, whose connections can be taken over."""

    def __init__(self, handler: Callable[[BaseRequest], Any], **options: Any) -> None:
        super().__init__(handler, handler_cancellation=False)
        self._options = options
        self.relays = Relays()

    @override
    def __call__(self) -> RequestHandler:
        return Connection(self, self.relays, loop=self._loop, **self._options)

    async def aclose(self, grace: float) -> None:
        """End idle connections and streams now; give other requests `grace` seconds."""
        self.pre_shutdown()
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.end_stream()
        await self.shutdown(grace)
        await self.relays.aclose()


class TakenOver(StreamResponse):
    """What a handler returns when the connection is not aiohttp's any more: writes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    @override
    async def prepare(self, request: BaseRequest) -> None:
        """Nothing: the head has been written."""

    @override
    async def write_eof(self, data: Any = b"") -> None:
        """Nothing: the bytes are the shim's."""


def upgraded_head(is_raw: bool, has_upgrade: bool) -> bytes:
    """The head of an answer that takes over, byte for byte as dockerd writes it."""
    content_type = multiplex.RAW_CONTENT_TYPE if is_raw else multiplex.CONTENT_TYPE
    if has_upgrade:
        return (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        ).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()
