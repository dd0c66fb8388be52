"""The streams of an exec or attach as a client has them: WebSocket channels or SPDY streams.

A peer is read by `pump`, which calls back with input (b"" at its end) and sizes of the terminal
until the client is gone; it is written by `send` and `finish`. What the status at the end looks
like depends on the protocol that was agreed on: JSON from v4 on, before only the words of a
failure.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import WSMsgType

from sampan.api.cri.spdy import Session, Stream
from sampan.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from aiohttp import web

    from sampan.api.cri.front import Raw

    Take = Callable[[bytes], Awaitable[None]]

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
BASE64_V4 = "v4.base64.channel.k8s.io"
WEBSOCKET = (V5, V4, BASE64_V4, "channel.k8s.io", "base64.channel.k8s.io")
SPDY = (V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
WITH_SIZES = SPDY[:2]
"""Those whose clients tell the size of a terminal."""

OPENING_SECONDS = 30.0
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_NAMES = {_STDOUT: "stdout", _STDERR: "stderr"}
_WITH_JSON = frozenset((V5, V4, BASE64_V4))


class Peer(Protocol):
    """A client of an exec or attach."""

    async def pump(self, stdin: Take, resize: Take) -> None:
        """Read until the client is gone."""

    async def send(self, stream: int, data: bytes) -> None:
        """Output of stream 1 or 2."""

    async def finish(self, status: Mapping[str, Any]) -> None:
        """All has been sent: the status, and the end."""


class WebSocketPeer:
    """Messages whose first byte is the channel: 0 to 2 stdio, 3 the status, 4 the size of the
    terminal, and in v5 255 for the end of another channel. In base64 the channel is a digit."""

    def __init__(self, socket: web.WebSocketResponse, protocol: str) -> None:
        self._socket = socket
        self._protocol = protocol
        self._is_text = "base64" in protocol

    async def pump(self, stdin: Take, resize: Take) -> None:
        """Read until the client is gone."""
        async for message in self._socket:
            channel, data = self._parse(message.type, message.data)
            if channel == _STDIN and data:
                await stdin(data)
            elif channel == _RESIZE:
                await resize(data)
            elif channel == _CLOSE and data == b"\0" and self._protocol == V5:
                await stdin(b"")

    async def send(self, stream: int, data: bytes) -> None:
        """Output of stream 1 or 2."""
        try:
            if self._is_text:
                await self._socket.send_str(f"{stream}{base64.b64encode(data).decode()}")
            else:
                await self._socket.send_bytes(bytes((stream,)) + data)
        except ConnectionError:
            return  # the client is gone, which `pump` notices

    async def finish(self, status: Mapping[str, Any]) -> None:
        """All has been sent: the status, and the end."""
        if not self._socket.closed:
            await self.send(_ERROR, status_text(self._protocol, status))
            await self._socket.close()

    def _parse(self, kind: WSMsgType, data: Any) -> tuple[int, bytes]:
        """(channel, data); channel -1 for what is none."""
        if kind is WSMsgType.BINARY and data and not self._is_text:
            return data[0], data[1:]
        if kind is WSMsgType.TEXT and data and self._is_text and data[0].isdecimal():
            try:
                return int(data[0]), base64.b64decode(data[1:], validate=True)
            except binascii.Error:
                return -1, b""
        return -1, b""


class SpdyPeer:
    """Streams that the client opens, each with its name in the header `streamtype`."""

    def __init__(self, raw: Raw, protocol: str, wanted: Collection[str]) -> None:
        self._raw = raw
        self._protocol = protocol
        self._wanted = {"error", *wanted}
        self._streams: dict[str, Stream] = {}
        self._complete = asyncio.Event()
        self._session = Session(raw, self._accept)
        self._reading = asyncio.create_task(self._session.run())

    async def open(self) -> None:
        """Wait for the streams that were asked for.

        Raises:
            DeadlineExceeded: the client did not open them.
        """
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                await self._complete.wait()
        except TimeoutError:
            missing = ", ".join(sorted(self._wanted - set(self._streams)))
            raise DeadlineExceeded(f"wait for the client's streams: no {missing}") from None

    async def pump(self, stdin: Take, resize: Take) -> None:
        """Read until the client is gone."""
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._until_gone())
            copying = []
            if "stdin" in self._streams:
                copying.append(group.create_task(_copy(self._streams["stdin"], stdin)))
            if "resize" in self._streams:
                copying.append(group.create_task(_sizes(self._streams["resize"], resize)))
            await reading
            for task in copying:
                task.cancel()

    async def send(self, stream: int, data: bytes) -> None:
        """Output of stream 1 or 2."""
        found = self._streams.get(_NAMES[stream])
        if found is not None:
            await found.write(data)

    async def finish(self, status: Mapping[str, Any]) -> None:
        """All has been sent: the status, and the end."""
        for name, stream in self._streams.items():
            stream.deafen()
            if name != "error":
                await stream.finish()
        error = self._streams.get("error")
        if error is not None:
            text = status_text(self._protocol, status)
            if text:
                await error.write(text)
            await error.finish()
        await self._session.goodbye()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._raw.close(asyncio.shield(self._reading))
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _until_gone(self) -> None:
        await asyncio.shield(self._reading)

    def _accept(self, stream: Stream) -> bool:
        name = stream.headers.get("streamtype", "")
        if name not in self._wanted or name in self._streams:
            return False
        self._streams[name] = stream
        if len(self._streams) == len(self._wanted):
            self._complete.set()
        return True


async def _copy(stream: Stream, take: Take) -> None:
    while True:
        data = await stream.read()
        await take(data)
        if not data:
            return


async def _sizes(stream: Stream, take: Take) -> None:
    """Every size is one JSON object; they follow each other without a frame of their own."""
    pending = b""
    while data := await stream.read():
        pending = (pending + data)[-4096:]
        while (end := pending.find(b"}")) >= 0:
            await take(pending[: end + 1])
            pending = pending[end + 1 :]


def status_text(protocol: str, status: Mapping[str, Any]) -> bytes:
    """The status as the protocol has it."""
    if protocol in _WITH_JSON:
        return json.dumps({"metadata": {}, **status}).encode()
    return b"" if status["status"] == "Success" else str(status.get("message", "")).encode()


def success() -> dict[str, Any]:
    """It ended well."""
    return {"status": "Success"}


def failure(message: str) -> dict[str, Any]:
    """It could not be done."""
    return {"status": "Failure", "reason": "InternalError", "message": message, "code": 500}


def exited(code: int) -> dict[str, Any]:
    """A command has ended, in the words of Kubernetes."""
    if code == 0:
        return success()
    return {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
