"""Exec and Attach: an address that is good once, and the WebSocket that is spoken there.

The address lies on loopback and holds a token of 128 bits, which is taken at its first use and
forgotten after a minute. Messages are binary; their first byte is the channel: 0 stdin, 1 stdout,
2 stderr, 3 the status at the end, 4 the size of the terminal, and in v5 255 for the end of another
channel. Whoever comes from a web page (an Origin) is refused. SPDY is not spoken here.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import struct
import time
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from sampan.engine.model import Attachment, ExecConfig, Framing, Status
from sampan.errors import FailedPrecondition, InvalidArgument, SampanError
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from sampan.api.cri.calls import Unary
    from sampan.pods.service import Pods

LIFETIME = 60.0
MAX_TOKENS = 1000
MAX_MESSAGE = 1 << 20
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_HEADER = struct.Struct(">BxxxI")
_PIECE = 1 << 15
_ERROR, _RESIZE, _CLOSE = 3, 4, 255

_Wish = pb.ExecRequest | pb.AttachRequest


class Streaming:
    """The server of streams; it listens from the first address on."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._tokens: dict[str, tuple[float, _Wish]] = {}
        self._runner: web.AppRunner | None = None
        self._lock = asyncio.Lock()
        self._base = ""

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {"Exec": self.exec_url, "Attach": self.attach_url}

    async def exec_url(self, request: pb.ExecRequest) -> pb.ExecResponse:
        """Where a command's streams are; it runs when somebody comes."""
        if not request.cmd or not request.cmd[0]:
            raise InvalidArgument("exec: no command is given")
        return pb.ExecResponse(url=await self._url("exec", request))

    async def attach_url(self, request: pb.AttachRequest) -> pb.AttachResponse:
        """Where a container's streams are."""
        return pb.AttachResponse(url=await self._url("attach", request))

    async def aclose(self) -> None:
        """End every stream and stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _url(self, kind: str, wish: _Wish) -> str:
        container = self._pods.containers.find(wish.container_id).container
        if container.status is not Status.RUNNING:
            raise FailedPrecondition(f"{kind}: container {container.id} does not run")
        if not (wish.stdin or wish.stdout or wish.stderr):
            raise InvalidArgument(f"{kind}: one of stdin, stdout and stderr is needed")
        if wish.tty and wish.stderr:
            raise InvalidArgument(f"{kind}: a terminal has no stderr of its own")
        await self._listen()
        now = time.monotonic()
        self._tokens = {key: kept for key, kept in self._tokens.items() if kept[0] > now}
        if len(self._tokens) >= MAX_TOKENS:
            raise FailedPrecondition(f"{kind}: too many addresses wait for their first use")
        token = secrets.token_urlsafe(16)
        self._tokens[token] = now + LIFETIME, wish
        return f"{self._base}/{kind}/{token}"

    async def _listen(self) -> None:
        async with self._lock:
            if self._runner is not None:
                return
            app = web.Application()
            app.router.add_get("/{kind}/{token}", self._serve)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._base = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._runner = runner

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        words = [word.strip() for word in offered.split(",")]
        if "Origin" in request.headers or not {V4, V5}.intersection(words):
            raise web.HTTPForbidden
        deadline, wish = self._tokens.pop(request.match_info["token"], (0.0, None))
        if wish is None or deadline < time.monotonic():
            raise web.HTTPNotFound
        peer = web.WebSocketResponse(protocols=(V5, V4), max_msg_size=MAX_MESSAGE, heartbeat=30)
        await peer.prepare(request)
        try:
            status = await _Stream(self._pods, wish, peer).run()
        except SampanError as error:
            status = {"status": "Failure", "reason": "InternalError", "message": str(error)}
        if not peer.closed:
            content = json.dumps({"metadata": {}, **status}).encode()
            await peer.send_bytes(bytes((_ERROR,)) + content)
            await peer.close()
        return peer


class _Stream:
    """One client's streams."""

    def __init__(self, pods: Pods, wish: _Wish, peer: web.WebSocketResponse) -> None:
        self._engine = pods.engine
        self._container = pods.containers.find(wish.container_id).container
        self._wish = wish
        self._peer = peer
        self._exec = ""
        self._sock, self._theirs = socket.socketpair()
        self._sock.setblocking(False)

    async def run(self) -> dict[str, object]:
        """Until the process has ended or the client is gone; the status."""
        try:
            await self._begin()
            reader = asyncio.create_task(self._read())
            writer = asyncio.create_task(self._write())
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            gone = not reader.done()
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            if gone or not self._exec:
                return {"status": "Success"}
            return _status(await self._engine.exec_wait(self._exec))
        finally:
            self._sock.close()

    async def _begin(self) -> None:
        wish = self._wish
        attachment = Attachment(
            fd=self._theirs.detach(),
            stdin=wish.stdin,
            stdout=wish.stdout,
            stderr=wish.stderr,
            framing=Framing.RAW if wish.tty else Framing.MULTIPLEXED,
            detach_keys=b"",
        )
        if isinstance(wish, pb.AttachRequest):
            await self._engine.attach(self._container.id, attachment)
            return
        config = ExecConfig(command=tuple(wish.cmd), tty=wish.tty)
        self._exec = await self._engine.exec_create(self._container.id, config)
        await self._engine.exec_start(self._exec, attachment)

    async def _read(self) -> None:
        """Output to the client, until it ends."""
        loop, pending = asyncio.get_running_loop(), bytearray()
        while piece := await loop.sock_recv(self._sock, _PIECE):
            if self._wish.tty:
                await self._peer.send_bytes(b"\x01" + piece)
                continue
            pending += piece
            while len(pending) >= _HEADER.size:
                stream, size = _HEADER.unpack_from(pending)
                end = _HEADER.size + size
                if len(pending) < end:
                    break
                await self._peer.send_bytes(bytes((stream,)) + pending[_HEADER.size : end])
                del pending[:end]

    async def _write(self) -> None:
        """Input and sizes from the client, until it goes."""
        loop = asyncio.get_running_loop()
        async for message in self._peer:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == 0 and self._wish.stdin:
                await loop.sock_sendall(self._sock, data)
            elif channel == _RESIZE:
                await self._resize(data)
            elif channel == _CLOSE and data[:1] == b"\0":
                self._sock.shutdown(socket.SHUT_WR)

    async def _resize(self, data: bytes) -> None:
        try:
            size = json.loads(data)
            height, width = int(size["Height"]), int(size["Width"])
            if self._exec:
                await self._engine.exec_resize(self._exec, height, width)
            else:
                await self._engine.resize(self._container.id, height, width)
        except (ValueError, KeyError, TypeError, SampanError):
            return  # a size that comes too late, or is none, changes nothing


def _status(code: int) -> dict[str, object]:
    """The end of a command in the words of Kubernetes."""
    if code == 0:
        return {"status": "Success"}
    return {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
