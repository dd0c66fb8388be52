"""Exec, Attach and PortForward: an address that is good once, and what is spoken there.

The address lies on loopback and holds a token of 128 bits, which is taken at its first use and
forgotten after a minute. Who speaks there is in `streamserver.py`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING

from sampan.engine.model import Status
from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.pods.model import Phase
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from sampan.api.cri.calls import Unary
    from sampan.api.cri.conversation import Wish
    from sampan.api.cri.streamserver import StreamServer
    from sampan.pods.service import Pods

LIFETIME = 60.0
MAX_TOKENS = 1000

Wanted = pb.ExecRequest | pb.AttachRequest | pb.PortForwardRequest


class Streaming:
    """Gives addresses out; the server listens from the first one on."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._tokens: dict[str, tuple[float, Wanted]] = {}
        self._server: StreamServer | None = None
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
            await self._server.aclose()

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
            if self._server is None:
                # A kubelet that comes back asks for lists first: the server can be imported later.
                from sampan.api.cri.streamserver import StreamServer

                server = StreamServer(self._pods, self._take)
                self._base = await server.start()
                self._server = server
