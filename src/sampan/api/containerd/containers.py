"""Containers: what a client said of them, in its namespace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any as WireAny
from google.protobuf.empty_pb2 import Empty

from sampan.api.containerd.filters import matcher
from sampan.api.containerd.labels import check, merged
from sampan.api.containerd.moments import moment
from sampan.api.containerd.records import Notes, Packed
from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.wire.containerd import containers_pb2 as pb
from sampan.wire.containerd import event_types_pb2 as events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sampan.api.containerd.bus import Bus
    from sampan.api.containerd.calls import Caller, Stream, Unary
    from sampan.api.containerd.records import Records
    from sampan.engine.engine import Engine

_MUTABLE = ("image", "spec", "snapshotter", "snapshot_key", "runtime")


class Containers:
    """Answers about containers."""

    def __init__(self, engine: Engine, records: Records, bus: Bus) -> None:
        self._engine = engine
        self._records = records
        self._bus = bus

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "Get": self._get,
            "List": self._list,
            "Create": self._create,
            "Update": self._update,
            "Delete": self._delete,
        }

    def streams(self) -> dict[str, Stream]:
        """Method -> answers."""
        return {"ListStream": self._list_stream}

    async def _get(
        self, caller: Caller, request: pb.GetContainerRequest
    ) -> pb.GetContainerResponse:
        _, notes = self._records.find(caller.namespace, request.id)
        return pb.GetContainerResponse(container=shown(notes))

    async def _list(
        self, caller: Caller, request: pb.ListContainersRequest
    ) -> pb.ListContainersResponse:
        return pb.ListContainersResponse(containers=self._matching(caller, request.filters))

    async def _list_stream(
        self, caller: Caller, request: pb.ListContainersRequest
    ) -> AsyncIterator[pb.ListContainerMessage]:
        for one in self._matching(caller, request.filters):
            yield pb.ListContainerMessage(container=one)

    def _matching(self, caller: Caller, filters: Sequence[str]) -> list[pb.Container]:
        passes = matcher(filters)
        found = [notes for _, notes in self._records.all(caller.namespace)]
        return [shown(notes) for notes in found if passes(_fields(notes))]

    async def _create(
        self, caller: Caller, request: pb.CreateContainerRequest
    ) -> pb.CreateContainerResponse:
        asked = request.container
        check(asked.labels)
        if not asked.runtime.name:
            raise InvalidArgument("container.Runtime.Name must be set")
        notes = await self._records.create(_notes(caller, asked))
        runtime = events.ContainerCreate.Runtime(name=notes.runtime)
        told = events.ContainerCreate(id=notes.id, image=notes.image, runtime=runtime)
        self._bus.tell(caller.namespace, "/containers/create", told)
        return pb.CreateContainerResponse(container=shown(notes))

    async def _update(
        self, caller: Caller, request: pb.UpdateContainerRequest
    ) -> pb.UpdateContainerResponse:
        asked, paths = request.container, list(request.update_mask.paths)
        check(asked.labels)
        wanted = _notes(caller, asked)

        def change(notes: Notes) -> Notes:
            changed = replace(notes, labels=merged(notes.labels, asked.labels, paths))
            fields = {
                name: getattr(wanted, name) for name in _MUTABLE if not paths or name in paths
            }
            if not paths or "extensions" in paths:
                fields["extensions"] = wanted.extensions
            for path in paths:
                if path.startswith("extensions."):
                    key = path.removeprefix("extensions.")
                    extensions = {**changed.extensions, key: wanted.extensions.get(key, Packed())}
                    changed = replace(changed, extensions=extensions)
            return replace(changed, **fields)

        notes = await self._records.change(caller.namespace, asked.id, change)
        return pb.UpdateContainerResponse(container=shown(notes))

    async def _delete(self, caller: Caller, request: pb.DeleteContainerRequest) -> Empty:
        container, notes = self._records.find(caller.namespace, request.id)
        if container.status.is_running:
            raise FailedPrecondition(f"cannot delete container {notes.id} with a running task")
        await self._engine.remove(container.id)
        told = events.ContainerDelete(id=notes.id)
        self._bus.tell(caller.namespace, "/containers/delete", told)
        return Empty()


def _notes(caller: Caller, asked: pb.Container) -> Notes:
    return Notes(
        namespace=caller.namespace,
        id=asked.id,
        image=asked.image,
        labels=dict(asked.labels),
        runtime=asked.runtime.name,
        runtime_options=_packed(asked.runtime.options),
        spec=_packed(asked.spec),
        snapshotter=asked.snapshotter,
        snapshot_key=asked.snapshot_key,
        extensions={key: _packed(value) for key, value in asked.extensions.items()},
    )


def _packed(message: WireAny) -> Packed:
    return Packed.of(message.type_url, message.value)


def _wire(packed: Packed) -> WireAny | None:
    if not packed.type_url:
        return None
    return WireAny(type_url=packed.type_url, value=packed.data)


def shown(notes: Notes) -> pb.Container:
    """A container for the wire."""
    runtime = pb.Container.Runtime(name=notes.runtime, options=_wire(notes.runtime_options))
    return pb.Container(
        id=notes.id,
        labels=notes.labels,
        image=notes.image,
        runtime=runtime,
        spec=_wire(notes.spec),
        snapshotter=notes.snapshotter,
        snapshot_key=notes.snapshot_key,
        created_at=moment(notes.created_ns),
        updated_at=moment(notes.updated_ns),
        extensions={key: _wire(value) or WireAny() for key, value in notes.extensions.items()},
    )


def _fields(notes: Notes) -> dict[str, object]:
    return {
        "id": notes.id,
        "image": notes.image,
        "labels": notes.labels,
        "runtime": {"name": notes.runtime},
        "snapshotter": notes.snapshotter,
        "snapshotkey": notes.snapshot_key,
    }
