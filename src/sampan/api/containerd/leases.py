"""Leases: a client names one in its metadata, and what it writes stays until it ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from google.protobuf.empty_pb2 import Empty

from sampan.api.containerd.moments import moment
from sampan.errors import InvalidArgument, NotFound
from sampan.images.retention import Policy
from sampan.store import leases
from sampan.wire.containerd import leases_pb2 as pb

if TYPE_CHECKING:
    from sampan.api.containerd.calls import Caller, Unary
    from sampan.api.containerd.labels import Labels
    from sampan.engine.engine import Engine
    from sampan.store.blobs import LinkKind

EXPIRES: Final = "containerd.io/gc.expire"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:+=-]{0,127}", re.ASCII)
_KIND: Final = "lease"


class Leases:
    """Answers about leases. One ends after a day, whatever its label says."""

    def __init__(self, engine: Engine, labels: Labels) -> None:
        self._images = engine.images
        self._db = engine.services.db
        self._labels = labels

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "Create": self._create,
            "Delete": self._delete,
            "List": self._list,
            "AddResource": self._add,
            "DeleteResource": self._drop,
            "ListResources": self._resources,
        }

    async def _create(self, caller: Caller, request: pb.CreateRequest) -> pb.CreateResponse:
        if request.id and _ID.fullmatch(request.id) is None:
            raise InvalidArgument(f"invalid lease id {request.id[:80]!r}")
        made = await self._db.write(lambda conn: leases.create(conn, request.id))
        await self._labels.put(caller.namespace, _KIND, made, request.labels)
        return pb.CreateResponse(lease=pb.Lease(id=made, labels=request.labels))

    async def _delete(self, caller: Caller, request: pb.DeleteRequest) -> Empty:
        self._check(request.id)
        await self._db.write(lambda conn: leases.release(conn, request.id))
        await self._labels.drop(caller.namespace, _KIND, request.id)
        if request.sync:
            await self._images.collect(Policy())  # without one: only what nothing needs
        return Empty()

    async def _list(self, caller: Caller, _: pb.ListRequest) -> pb.ListResponse:
        return pb.ListResponse(
            leases=[
                pb.Lease(
                    id=one,
                    created_at=moment(made_ns),
                    labels=self._labels.get(caller.namespace, _KIND, one),
                )
                for one, made_ns in self._db.read_now(leases.list)
            ]
        )

    async def _add(self, _caller: Caller, request: pb.AddResourceRequest) -> Empty:
        kind, key = _resource(request.resource)
        await self._db.write(lambda conn: leases.hold(conn, request.id, kind, (key,)))
        return Empty()

    async def _drop(self, _caller: Caller, request: pb.DeleteResourceRequest) -> Empty:
        kind, key = _resource(request.resource)
        self._check(request.id)
        await self._db.write(lambda conn: leases.drop(conn, request.id, kind, key))
        return Empty()

    async def _resources(
        self, _caller: Caller, request: pb.ListResourcesRequest
    ) -> pb.ListResourcesResponse:
        self._check(request.id)
        kinds = {"blob": "content", "snapshot": "snapshots/overlayfs"}
        return pb.ListResourcesResponse(
            resources=[
                pb.Resource(id=key, type=kinds[kind])
                for kind, key in self._db.read_now(lambda conn: leases.items(conn, request.id))
            ]
        )

    def _check(self, lease_id: str) -> None:
        if all(one != lease_id for one, _ in self._db.read_now(leases.list)):
            raise NotFound(f"lease {lease_id[:128]!r}: not found")


def _resource(resource: pb.Resource) -> tuple[LinkKind, str]:
    if resource.type == "content":
        return "blob", resource.id
    if resource.type.startswith("snapshots/"):
        return "snapshot", resource.id
    raise InvalidArgument(f"lease: resources of type {resource.type!r} are not known")
