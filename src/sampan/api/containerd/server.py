"""The gRPC server of containerd's interface, for `ctr` and what else speaks it.

Importing this imports grpc; the daemon does it at the first connection, as for the Kubernetes
interface (`daemon/grpcsocket.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.api.containerd.bus import Bus
from sampan.api.containerd.calls import handler
from sampan.api.containerd.containers import Containers
from sampan.api.containerd.content import Content
from sampan.api.containerd.diff import Diff
from sampan.api.containerd.images import Images
from sampan.api.containerd.labels import Labels
from sampan.api.containerd.leases import Leases
from sampan.api.containerd.records import Records
from sampan.api.containerd.snapshots import Snapshots
from sampan.api.containerd.system import Namespaces, System
from sampan.api.containerd.tasks import Tasks
from sampan.api.rpc import RpcServer
from sampan.wire.containerd import (
    containers_pb2,
    content_pb2,
    diff_pb2,
    events_pb2,
    health_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    namespaces_pb2,
    snapshots_pb2,
    tasks_pb2,
    version_pb2,
)

if TYPE_CHECKING:
    from types import ModuleType

    from sampan.api.containerd.calls import Stream, Unary
    from sampan.engine.engine import Engine


class ContainerdServer:
    """containerd's services over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._server = RpcServer()
        labels, bus, records = Labels(engine.services.db), Bus(), Records(engine)
        system = System(engine.services.snapshots.kind)
        self._tasks = Tasks(engine, records, bus)
        content, snapshots = Content(engine, labels), Snapshots(engine, labels)
        containers = Containers(engine, records, bus)
        self._add(version_pb2, "Version", system.version())
        self._add(introspection_pb2, "Introspection", system.introspection())
        self._add(health_pb2, "Health", system.health())
        self._add(namespaces_pb2, "Namespaces", Namespaces(engine.services.db, records).table())
        self._add(leases_pb2, "Leases", Leases(engine, labels).table())
        self._add(images_pb2, "Images", Images(engine, labels, bus).table())
        self._add(content_pb2, "Content", content.table(), content.streams())
        self._add(snapshots_pb2, "Snapshots", snapshots.table(), snapshots.streams())
        self._add(diff_pb2, "Diff", Diff(engine).table())
        self._add(containers_pb2, "Containers", containers.table(), containers.streams())
        self._add(tasks_pb2, "Tasks", self._tasks.table())
        self._add(events_pb2, "Events", bus.table(), bus.streams())

    def _add(
        self,
        module: ModuleType,
        name: str,
        table: dict[str, Unary],
        streams: dict[str, Stream] | None = None,
    ) -> None:
        service = module.DESCRIPTOR.services_by_name[name]
        self._server.add(handler(service, table, streams or {}))

    async def start(self, path: str) -> None:
        """Listen on the unix socket `path`, which is made."""
        await self._server.start(path)

    async def aclose(self) -> None:
        """No new calls; running ones have some seconds."""
        await self._server.aclose()
        await self._tasks.aclose()
