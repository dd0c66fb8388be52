"""An exec or attach from its first byte to its status: a peer on one side, a shim on the other.

The shim has one end of a socket pair and speaks Docker's frames; here they become the peer's
streams. The end of the peer's input is the end of the process' stdin. When the client goes away,
its input ends too; the command goes on, as with every runtime.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import TYPE_CHECKING, Any

from sampan.api.cri.channels import exited, failure, success
from sampan.engine.model import Attachment, ExecConfig, Framing
from sampan.errors import SampanError
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from sampan.api.cri.channels import Peer
    from sampan.pods.service import Pods

_HEADER = struct.Struct(">BxxxI")
_PIECE = 1 << 16

Wish = pb.ExecRequest | pb.AttachRequest


async def converse(pods: Pods, wish: Wish, peer: Peer) -> None:
    """Serve one client, to its end."""
    try:
        status = await _Conversation(pods, wish, peer).run()
    except SampanError as error:
        status = failure(str(error))
    await peer.finish(status)


class _Conversation:
    def __init__(self, pods: Pods, wish: Wish, peer: Peer) -> None:
        self._engine = pods.engine
        self._container = pods.containers.find(wish.container_id).container
        self._wish = wish
        self._peer = peer
        self._exec = ""
        self._sock, self._theirs = socket.socketpair()
        self._sock.setblocking(False)

    async def run(self) -> dict[str, Any]:
        """Until the process has ended or the client is gone; the status."""
        try:
            await self._begin()
            output = asyncio.create_task(self._read())
            pump = asyncio.create_task(self._peer.pump(self._stdin, self._resize))
            await asyncio.wait((output, pump), return_when=asyncio.FIRST_COMPLETED)
            is_gone = not output.done()
            for task in (output, pump):
                task.cancel()
            await asyncio.gather(output, pump, return_exceptions=True)
            if is_gone or not self._exec:
                return success()
            return exited(await self._engine.exec_wait(self._exec))
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
                await self._peer.send(1, piece)
                continue
            pending += piece
            while len(pending) >= _HEADER.size:
                stream, size = _HEADER.unpack_from(pending)
                end = _HEADER.size + size
                if len(pending) < end:
                    break
                await self._peer.send(stream, bytes(pending[_HEADER.size : end]))
                del pending[:end]

    async def _stdin(self, data: bytes) -> None:
        if not self._wish.stdin:
            return
        try:
            if data:
                await asyncio.get_running_loop().sock_sendall(self._sock, data)
            else:
                self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the process reads no more

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
