"""Port-forward: for every connection of the client a pair of SPDY streams, data and errors.

Both streams of a pair carry the same `requestid` and the `port`; the error stream comes first. What
goes wrong is said as text on it. Each direction ends by itself, so that a client which has sent all
still reads the answer.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from sampan.api.cri.spdy import Session, Stream
from sampan.errors import InvalidArgument, SampanError

if TYPE_CHECKING:
    from sampan.api.cri.spdy import Pipe
    from sampan.pods.service import Pods

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"
"""The WebSocket protocol whose messages are the bytes of such a SPDY connection."""

PAIRING_SECONDS = 30.0
_PIECE = 1 << 16


class Forwarder:
    """All forwarded connections of one client to one sandbox."""

    def __init__(self, pods: Pods, sandbox_id: str, pipe: Pipe) -> None:
        self._pods = pods
        self._sandbox_id = sandbox_id
        self._session = Session(pipe, self._accept)
        self._waiting: dict[str, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the client is gone."""
        try:
            await self._session.run()
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, stream: Stream) -> bool:
        kind = stream.headers.get("streamtype")
        if kind not in ("error", "data") or not stream.headers.get("port"):
            return False
        key = stream.headers.get("requestid") or self._old_key(stream, kind)
        first = self._waiting.pop(key, None)
        if first is None:
            self._waiting[key] = stream
            asyncio.get_running_loop().call_later(PAIRING_SECONDS, self._give_up, key, stream)
            return True
        if first.headers.get("streamtype") == kind:
            return False
        error, data = (first, stream) if kind == "data" else (stream, first)
        task = asyncio.get_running_loop().create_task(self._serve(error, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _old_key(self, stream: Stream, kind: str) -> str:
        """Clients before Kubernetes 1.3 say no id; they open the error stream, then the data's."""
        return f"#{stream.number if kind == 'error' else stream.number - 2}"

    def _give_up(self, key: str, stream: Stream) -> None:
        if self._waiting.get(key) is stream:
            del self._waiting[key]
            stream.deafen()

    async def _serve(self, error: Stream, data: Stream) -> None:
        error.deafen()
        try:
            sock = await self._pods.ports.connect(self._sandbox_id, _port(data))
            with sock:
                await _join(data, sock)
        except (SampanError, OSError) as failure:
            await error.write(str(failure).encode())
        finally:
            data.deafen()
        await data.finish()
        await error.finish()


async def _join(data: Stream, sock: socket.socket) -> None:
    """Copy both ways, until both have ended or one has failed."""
    loop = asyncio.get_running_loop()

    async def outward() -> None:
        while piece := await loop.sock_recv(sock, _PIECE):
            await data.write(piece)
        await data.finish()

    async def inward() -> None:
        while piece := await data.read():
            await loop.sock_sendall(sock, piece)
        sock.shutdown(socket.SHUT_WR)

    work = [loop.create_task(outward()), loop.create_task(inward())]
    try:
        # Once the pod has closed there is nobody to read what the client still says.
        await work[0]
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


def _port(stream: Stream) -> int:
    text = stream.headers["port"]
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise InvalidArgument(f"forward port {text!r}: not a number")
    return int(text)
