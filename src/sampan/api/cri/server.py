"""The gRPC server of the Kubernetes runtime interface.

Importing this imports grpc; the daemon does it at the first connection (`daemon/grpcsocket.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.api.cri.calls import handler
from sampan.api.cri.checkpoints import Checkpoints
from sampan.api.cri.containers import Containers
from sampan.api.cri.images import Images
from sampan.api.cri.metrics import Metrics
from sampan.api.cri.runtime import Runtime
from sampan.api.cri.sandboxes import Sandboxes
from sampan.api.cri.stats import Stats
from sampan.api.cri.streaming import Streaming
from sampan.api.rpc import RpcServer
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from sampan.pods.service import Pods


class CriServer:
    """RuntimeService and ImageService over one engine's pods."""

    def __init__(self, pods: Pods) -> None:
        self._server = RpcServer()
        containers = Containers(pods)
        listing = (Sandboxes(pods), containers, Stats(pods, containers), Metrics(pods))
        self._streaming = Streaming(pods)
        parts = (Runtime(pods), self._streaming, Checkpoints(pods), *listing)
        calls = {name: call for part in parts for name, call in part.table().items()}
        streams = {name: call for part in listing for name, call in part.streams().items()}
        images = Images(pods)
        services = pb.DESCRIPTOR.services_by_name
        self._server.add(
            handler(services["RuntimeService"], calls, streams),
            handler(services["ImageService"], images.table(), images.streams()),
        )

    async def start(self, path: str) -> None:
        """Listen on the unix socket `path`, which is made."""
        await self._server.start(path)

    async def aclose(self) -> None:
        """No new calls; running ones have some seconds."""
        await self._streaming.aclose()
        await self._server.aclose()
