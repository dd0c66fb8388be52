"""Exec, Attach and PortForward: an address that is good once, and what is spoken there.

The address lies on loopback and holds a token of 128 bits, which is taken at its first use and
forgotten after a minute. SPDY/3.1 and WebSockets are spoken (`channels.py`, `forwarding.py`).
Whoever comes from a web page (an Origin) is refused.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from sampan.api.cri import channels, forwarding
from sampan.api.cri.channels import SpdyPeer, WebSocketPeer
from sampan.api.cri.conversation import converse
from sampan.api.cri.forwarding import Forwarder
from sampan.api.cri.front import Front
from sampan.engine.model import Status
from sampan.errors import FailedPrecondition, InvalidArgument, SampanError
from sampan.pods.model import Phase
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from sampan.api.cri.calls import Unary
    from sampan.api.cri.conversation import Wish
    from sampan.api.cri.front import Head, Raw
    from sampan.pods.service import Pods

LIFETIME = 60.0
MAX_TOKENS = 1000
MAX_MESSAGE = 1 << 20

Wanted = pb.ExecRequest | pb.AttachRequest | pb.PortForwardRequest
_log = logging.getLogger("sampan.cri")


class Streaming:
    """The server of streams; it listens from the first address on."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._tokens: dict[str, tuple[float, Wanted]] = {}
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._base = ""

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "Exec": self.exec_url,
            "Attach": self.attach_url,
            "PortForward": self.forward_url,
        }

    async def exec_url(self, request: pb.ExecRequest) -> pb.ExecResponse:
        """Where a command's streams are; it runs when somebody comes."""
        if not request.cmd or not request.cmd[0]:
            raise InvalidArgument("exec: no command is given")
        self._check("exec", request)
        return pb.ExecResponse(url=await self._url("exec", request))

    async def attach_url(self, request: pb.AttachRequest) -> pb.AttachResponse:
        """Where a container's streams are."""
        self._check("attach", request)
        return pb.AttachResponse(url=await self._url("attach", request))

    async def forward_url(self, request: pb.PortForwardRequest) -> pb.PortForwardResponse:
        """Where ports of a sandbox are; the client says which when it connects."""
        if not request.pod_sandbox_id:
            raise InvalidArgument("pod_sandbox_id is missing")
        sandbox = self._pods.table.find(request.pod_sandbox_id)
        if sandbox.phase is not Phase.READY:
            raise FailedPrecondition(f"port-forward: sandbox {sandbox.id} is not ready")
        return pb.PortForwardResponse(url=await self._url("portforward", request))

    async def aclose(self) -> None:
        """End every stream and stop listening."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    def _check(self, kind: str, wish: Wish) -> None:
        container = self._pods.containers.find(wish.container_id).container
        if container.status is not Status.RUNNING:
            raise FailedPrecondition(f"{kind}: container {container.id} does not run")
        if not (wish.stdin or wish.stdout or wish.stderr):
            raise InvalidArgument(f"{kind}: one of stdin, stdout and stderr is needed")
        if wish.tty and wish.stderr:
            raise InvalidArgument(f"{kind}: a terminal has no stderr of its own")

    async def _url(self, kind: str, wish: Wanted) -> str:
        await self._listen()
        now = time.monotonic()
        self._tokens = {key: kept for key, kept in self._tokens.items() if kept[0] > now}
        if len(self._tokens) >= MAX_TOKENS:
            raise FailedPrecondition(f"{kind}: too many addresses wait for their first use")
        token = secrets.token_urlsafe(16)
        self._tokens[token] = now + LIFETIME, wish
        return f"{self._base}/{kind}/{token}"

    def _take(self, path: str) -> Wanted | None:
        """What a path's token stands for, once."""
        deadline, wish = self._tokens.pop(path.rpartition("/")[2], (0.0, None))
        return wish if deadline > time.monotonic() else None

    async def _listen(self) -> None:
        async with self._lock:
            if self._server is not None:
                return
            app = web.Application()
            app.router.add_get("/{kind}/{token}", self._websocket)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            self._runner, other = runner, runner.server
            assert other is not None
            server = await asyncio.get_running_loop().create_server(
                lambda: Front(self._spdy, other, self._tasks), "127.0.0.1", 0
            )
            self._base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._server = server

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
