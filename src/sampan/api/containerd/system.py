"""Version, introspection, health and namespaces.

A namespace holds containers. Images and content are the engine's, and the same in all of them, as
with containerd's shared content.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from google.protobuf.empty_pb2 import Empty

from sampan.api.containerd.labels import check, merged
from sampan.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sampan.ids import new_id
from sampan.spec.platform import Platform
from sampan.store import labels
from sampan.version import VERSION
from sampan.wire.containerd import health_pb2, introspection_pb2, namespaces_pb2, version_pb2
from sampan.wire.containerd.types_pb2 import Platform as WirePlatform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.api.containerd.calls import Caller, Unary
    from sampan.api.containerd.records import Records
    from sampan.store.database import Database

_KIND = "namespace"
_PLUGINS = {
    "io.containerd.content.v1": "content",
    "io.containerd.differ.v1": "walking",
    "io.containerd.grpc.v1": "containers content diff events images introspection leases "
    "namespaces snapshots tasks version",
    "io.containerd.runtime.v2": "task",
    "io.containerd.snapshotter.v1": "overlayfs native",
}


class System:
    """Answers about the server itself."""

    def __init__(self, snapshotter: str) -> None:
        self._uuid = f"{new_id()[:8]}-sampan"
        self._others = {"native"} if snapshotter == "overlay" else {"overlayfs"}

    def version(self) -> dict[str, Unary]:
        """Method -> answer of the version service."""
        return {"Version": self._version}

    def introspection(self) -> dict[str, Unary]:
        """Method -> answer of the introspection service."""
        return {"Plugins": self._plugins, "Server": self._server}

    def health(self) -> dict[str, Unary]:
        """Method -> answer of the health service."""
        return {"Check": self._check}

    async def _version(self, _caller: Caller, _: Empty) -> version_pb2.VersionResponse:
        return version_pb2.VersionResponse(version=f"sampan-{VERSION}")

    async def _server(self, _caller: Caller, _: Empty) -> introspection_pb2.ServerResponse:
        namespace = os.stat("/proc/self/ns/pid").st_ino
        return introspection_pb2.ServerResponse(uuid=self._uuid, pid=os.getpid(), pidns=namespace)

    async def _plugins(
        self, _caller: Caller, _: introspection_pb2.PluginsRequest
    ) -> introspection_pb2.PluginsResponse:
        host = Platform.host()
        platform = WirePlatform(
            os=host.os, architecture=host.architecture, variant=host.variant or ""
        )
        plugins = [
            introspection_pb2.Plugin(type=kind, id=name, platforms=[platform])
            for kind, names in _PLUGINS.items()
            for name in names.split()
            if name not in self._others
        ]
        return introspection_pb2.PluginsResponse(plugins=plugins)

    async def _check(
        self, _caller: Caller, _: health_pb2.HealthCheckRequest
    ) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class Namespaces:
    """Names that containers are sorted by; one that nobody made is there when it has some."""

    def __init__(self, db: Database, records: Records) -> None:
        self._db = db
        self._records = records

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "Get": self._get,
            "List": self._list,
            "Create": self._create,
            "Update": self._update,
            "Delete": self._delete,
        }

    async def _get(
        self, _caller: Caller, request: namespaces_pb2.GetNamespaceRequest
    ) -> namespaces_pb2.GetNamespaceResponse:
        return namespaces_pb2.GetNamespaceResponse(namespace=self._found(request.name))

    async def _list(
        self, _caller: Caller, _: namespaces_pb2.ListNamespacesRequest
    ) -> namespaces_pb2.ListNamespacesResponse:
        made = self._db.read_now(labels.namespaces)
        names = sorted({"default", *made, *self._records.namespaces()})
        return namespaces_pb2.ListNamespacesResponse(
            namespaces=[self._found(name) for name in names]
        )

    async def _create(
        self, _caller: Caller, request: namespaces_pb2.CreateNamespaceRequest
    ) -> namespaces_pb2.CreateNamespaceResponse:
        name = request.namespace.name
        if not name or not name.replace("-", "").replace(".", "").replace("_", "").isalnum():
            raise InvalidArgument(f"namespace {name!r}: only letters, digits, - . _")
        if self._labels(name) is not None:
            raise AlreadyExists(f"namespace {name} exists already")
        await self._label(name, request.namespace.labels)
        return namespaces_pb2.CreateNamespaceResponse(namespace=self._found(name))

    async def _update(
        self, _caller: Caller, request: namespaces_pb2.UpdateNamespaceRequest
    ) -> namespaces_pb2.UpdateNamespaceResponse:
        name = request.namespace.name
        before = self._found(name)
        paths = request.update_mask.paths
        await self._label(name, merged(before.labels, request.namespace.labels, paths))
        return namespaces_pb2.UpdateNamespaceResponse(namespace=self._found(name))

    async def _delete(
        self, _caller: Caller, request: namespaces_pb2.DeleteNamespaceRequest
    ) -> Empty:
        self._found(request.name)
        if request.name in self._records.namespaces():
            raise FailedPrecondition(
                f"namespace {request.name} must be empty, but it still has containers"
            )
        await self._db.write(lambda conn: labels.drop(conn, request.name, _KIND, ""))
        return Empty()

    def _labels(self, name: str) -> dict[str, str] | None:
        return self._db.read_now(lambda conn: labels.get(conn, name, _KIND, ""))

    async def _label(self, name: str, wanted: Mapping[str, str]) -> None:
        check(wanted)
        await self._db.write(lambda conn: labels.put(conn, name, _KIND, "", wanted))

    def _found(self, name: str) -> namespaces_pb2.Namespace:
        made = self._labels(name)
        if made is None and name != "default" and name not in self._records.namespaces():
            raise NotFound(f"namespace {name} not found")
        return namespaces_pb2.Namespace(name=name, labels=made or {})
