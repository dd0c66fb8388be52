"""The server of Exec, Attach and PortForward: what is spoken at an address that was given out.

SPDY/3.1 and WebSockets are spoken (`channels.py`, `forwarding.py`). Whoever comes from a web page
(an Origin) is refused. Importing this imports aiohttp; that is done at the first address
(`streaming.py`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from sampan.api.cri import channels, forwarding
from sampan.api.cri.channels import SpdyPeer, WebSocketPeer
from sampan.api.cri.conversation import converse
from sampan.api.cri.forwarding import Forwarder
from sampan.api.cri.front import Front
from sampan.errors import SampanError
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.api.cri.conversation import Wish
    from sampan.api.cri.front import Head, Raw
    from sampan.api.cri.streaming import Wanted
    from sampan.pods.service import Pods

MAX_MESSAGE = 1 << 20
_log = logging.getLogger("sampan.cri")


class StreamServer:
    """Listens on loopback. `take` gives what a path stands for, once."""

    def __init__(self, pods: Pods, take: Callable[[str], Wanted | None]) -> None:
        self._pods = pods
        self._take = take
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Listen; what addresses begin with."""
        app = web.Application()
        app.router.add_get("/{kind}/{token}", self._websocket)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runner, other = runner, runner.server
        assert other is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Front(self._spdy, other, self._tasks), "127.0.0.1", 0
        )
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        """End every stream and stop listening."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    # WebSockets

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        spoken = (forwarding.TUNNEL,) if kind == "portforward" else channels.WEBSOCKET
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        words = [word.strip() for word in offered.split(",") if word.strip()]
        if "Origin" in request.headers or (words and not set(spoken).intersection(words)):
            raise web.HTTPForbidden
        wish = self._take(request.path)
        if wish is None:
            raise web.HTTPNotFound
        peer = web.WebSocketResponse(protocols=spoken, max_msg_size=MAX_MESSAGE, heartbeat=30)
        await peer.prepare(request)
        if isinstance(wish, pb.PortForwardRequest):
            await Forwarder(self._pods, wish.pod_sandbox_id, _Tunnel(peer)).run()
        else:
            await converse(self._pods, wish, WebSocketPeer(peer, peer.ws_protocol or ""))
        return peer

    # SPDY

    async def _spdy(self, head: Head, raw: Raw) -> None:
        try:
            await self._upgrade(head, raw)
        except (SampanError, OSError) as error:
            _log.info("stream: %s", error)
        except Exception:
            _log.exception("stream")
        finally:
            await raw.close()

    async def _upgrade(self, head: Head, raw: Raw) -> None:
        if head.method not in ("POST", "GET"):
            await raw.write(_refusal("405 Method Not Allowed"))
            return
        kind = head.path.split("/")[1]
        spoken = (forwarding.PROTOCOL,) if kind == "portforward" else channels.SPDY
        offered = head.words("x-stream-protocol-version") or [spoken[-1]]
        protocol = next((word for word in spoken if word in offered), "")
        if head.words("origin") or not protocol:
            accepted = f"X-Accepted-Stream-Protocol-Versions: {', '.join(spoken)}\r\n"
            await raw.write(_refusal("403 Forbidden", accepted))
            return
        wish = self._take(head.path)
        if wish is None:
            await raw.write(_refusal("404 Not Found"))
            return
        await raw.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            b"X-Stream-Protocol-Version: " + protocol.encode() + b"\r\n\r\n"
        )
        if isinstance(wish, pb.PortForwardRequest):
            await Forwarder(self._pods, wish.pod_sandbox_id, raw).run()
            return
        peer = SpdyPeer(raw, protocol, _wanted(wish, protocol))
        try:
            await peer.open()
            await converse(self._pods, wish, peer)
        finally:
            await peer.close()


class _Tunnel:
    """A WebSocket whose binary messages are a stream of bytes; a `spdy.Pipe`."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        """The next message, b"" at the end."""
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY and message.data:
                return bytes(message.data)
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return b""

    async def write(self, data: bytes) -> None:
        """Send one message."""
        await self._socket.send_bytes(data)


def _wanted(wish: Wish, protocol: str) -> set[str]:
    """The names of the streams that the client opens besides the one for errors."""
    has_sizes = wish.tty and protocol in channels.WITH_SIZES
    names = {"stdin": wish.stdin, "stdout": wish.stdout, "stderr": wish.stderr, "resize": has_sizes}
    return {name for name, is_wanted in names.items() if is_wanted}


def _refusal(status: str, more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
