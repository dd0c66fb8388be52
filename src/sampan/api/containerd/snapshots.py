"""Snapshots: the engine's own. Layers are shared by all; what is written to belongs to a namespace.

A committed snapshot has its name, which is a chain id for all that came from an image. Active ones
and views have `ctr/NAMESPACE/KEY` as their key here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.empty_pb2 import Empty

from sampan.api.containerd.filters import matcher
from sampan.api.containerd.moments import moment
from sampan.errors import InvalidArgument, NotFound
from sampan.snapshots.base import Kind
from sampan.wire.containerd import snapshots_pb2 as pb
from sampan.wire.containerd.types_pb2 import Mount as WireMount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sampan.api.containerd.calls import Caller, Stream, Unary
    from sampan.api.containerd.labels import Labels
    from sampan.engine.engine import Engine
    from sampan.snapshots.base import Mount, SnapshotRow
    from sampan.store.database import Connection

_KIND: Final = "snapshot"
_PAGE: Final = 100
_KINDS: Final = {Kind.VIEW: pb.VIEW, Kind.ACTIVE: pb.ACTIVE, Kind.COMMITTED: pb.COMMITTED}
_NAMES: Final = ("", "overlayfs", "native")


class Snapshots:
    """Answers about snapshots."""

    def __init__(self, engine: Engine, labels: Labels) -> None:
        self._snapshots = engine.services.snapshots
        self._db = engine.services.db
        self._labels = labels

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "Prepare": self._prepare,
            "View": self._view,
            "Mounts": self._mounts,
            "Commit": self._commit,
            "Remove": self._remove,
            "Stat": self._stat,
            "Update": self._update,
            "Usage": self._usage,
            "Cleanup": self._cleanup,
        }

    def streams(self) -> dict[str, Stream]:
        """Method -> answers."""
        return {"List": self._list}

    async def _prepare(
        self, caller: Caller, request: pb.PrepareSnapshotRequest
    ) -> pb.PrepareSnapshotResponse:
        key = _active(caller, request.snapshotter, request.key)
        parent = self._committed(caller, request.parent) if request.parent else None
        mount = await self._snapshots.prepare(key, parent, lease=caller.lease or None)
        await self._labels.put(caller.namespace, _KIND, request.key, request.labels)
        return pb.PrepareSnapshotResponse(mounts=wire_mounts(mount))

    async def _view(
        self, caller: Caller, request: pb.ViewSnapshotRequest
    ) -> pb.ViewSnapshotResponse:
        key = _active(caller, request.snapshotter, request.key)
        parent = self._committed(caller, request.parent)
        mount = await self._snapshots.view(key, parent, lease=caller.lease or None)
        await self._labels.put(caller.namespace, _KIND, request.key, request.labels)
        return pb.ViewSnapshotResponse(mounts=wire_mounts(mount))

    async def _mounts(self, caller: Caller, request: pb.MountsRequest) -> pb.MountsResponse:
        key = _active(caller, request.snapshotter, request.key)
        return pb.MountsResponse(mounts=wire_mounts(self._snapshots.mounts(key)))

    async def _commit(self, caller: Caller, request: pb.CommitSnapshotRequest) -> Empty:
        key = _active(caller, request.snapshotter, request.key)
        name = _committed_name(caller, request.name)
        await self._snapshots.commit(name, key, lease=caller.lease or None)
        await self._labels.drop(caller.namespace, _KIND, request.key)
        await self._labels.put(caller.namespace, _KIND, request.name, request.labels)
        return Empty()

    async def _remove(self, caller: Caller, request: pb.RemoveSnapshotRequest) -> Empty:
        row = self._row(caller, request.snapshotter, request.key)

        def write(conn: Connection) -> int:
            # A client removes a container's snapshot before the container.
            conn.execute("UPDATE containers SET snapshot = NULL WHERE snapshot = ?", (row.key,))
            return self._snapshots.remove_now(conn, row.key)

        if row.kind is Kind.COMMITTED:
            await self._snapshots.remove(row.key)
        else:
            self._snapshots.discard((await self._db.write(write),))
        await self._labels.drop(caller.namespace, _KIND, request.key)
        return Empty()

    async def _stat(
        self, caller: Caller, request: pb.StatSnapshotRequest
    ) -> pb.StatSnapshotResponse:
        row = self._row(caller, request.snapshotter, request.key)
        return pb.StatSnapshotResponse(info=self._shown(caller, row))

    async def _update(
        self, caller: Caller, request: pb.UpdateSnapshotRequest
    ) -> pb.UpdateSnapshotResponse:
        info, paths = request.info, request.update_mask.paths
        row = self._row(caller, request.snapshotter, info.name)
        await self._labels.update(caller.namespace, _KIND, info.name, info.labels, paths)
        return pb.UpdateSnapshotResponse(info=self._shown(caller, row))

    async def _usage(self, caller: Caller, request: pb.UsageRequest) -> pb.UsageResponse:
        row = self._row(caller, request.snapshotter, request.key)
        found = await self._snapshots.usage(row.key)
        return pb.UsageResponse(size=found.size, inodes=found.inodes)

    async def _cleanup(self, _caller: Caller, _: pb.CleanupRequest) -> Empty:
        return Empty()  # what is removed is deleted in the background anyway

    async def _list(
        self, caller: Caller, request: pb.ListSnapshotsRequest
    ) -> AsyncIterator[pb.ListSnapshotsResponse]:
        _check_name(request.snapshotter)
        passes = matcher(request.filters)
        rows = [row for row in self._snapshots.walk() if _is_seen(caller, row)]
        shown = [one for one in (self._shown(caller, row) for row in rows) if passes(_fields(one))]
        for start in range(0, len(shown), _PAGE):
            yield pb.ListSnapshotsResponse(info=shown[start : start + _PAGE])

    def _row(self, caller: Caller, snapshotter: str, key: str) -> SnapshotRow:
        _check_name(snapshotter)
        for candidate in (_active(caller, snapshotter, key), key):
            try:
                row = self._snapshots.info(candidate)
            except NotFound:
                continue
            if _is_seen(caller, row):
                return row
        raise NotFound(f"snapshot {key} does not exist: not found")

    def _committed(self, caller: Caller, name: str) -> str:
        """The key of a parent: its own name, or one of the namespace."""
        own = _committed_name(caller, name)
        return own if self._snapshots.has(own) else name

    def _shown(self, caller: Caller, row: SnapshotRow) -> pb.Info:
        name = _plain(caller, row.key)
        return pb.Info(
            name=name,
            parent=_plain(caller, row.parent) if row.parent else "",
            kind=_KINDS[row.kind],
            created_at=moment(row.created_ns),
            updated_at=moment(row.created_ns),
            labels=self._labels.get(caller.namespace, _KIND, name),
        )


def active_key(namespace: str, key: str) -> str:
    """The engine's key of a namespace's active snapshot."""
    return f"ctr/{namespace}/{key}"


def _active(caller: Caller, snapshotter: str, key: str) -> str:
    _check_name(snapshotter)
    if not key:
        raise InvalidArgument("a snapshot needs a key")
    return active_key(caller.namespace, key)


def _committed_name(caller: Caller, name: str) -> str:
    return name if name.startswith("sha256:") else active_key(caller.namespace, name)


def _check_name(snapshotter: str) -> None:
    if snapshotter not in _NAMES:
        raise InvalidArgument(f"snapshotter not loaded: {snapshotter}")


def _plain(caller: Caller, key: str) -> str:
    return key.removeprefix(active_key(caller.namespace, ""))


def _is_seen(caller: Caller, row: SnapshotRow) -> bool:
    """Layers of images are everybody's; what runs or is built elsewhere is not shown."""
    return row.key.startswith(("sha256:", active_key(caller.namespace, "")))


def _fields(info: pb.Info) -> dict[str, object]:
    kind = {pb.VIEW: "view", pb.ACTIVE: "active", pb.COMMITTED: "committed"}[info.kind]
    return {
        "name": info.name,
        "parent": info.parent,
        "kind": kind,
        "labels": dict(info.labels),
    }


def wire_mounts(mount: Mount) -> list[WireMount]:
    """A mount as mount(8) would be told."""
    if mount["type"] == "bind":
        options = ["rbind", "ro" if mount.get("read_only") else "rw"]
        return [WireMount(type="bind", source=mount["source"], options=options)]
    options = [f"lowerdir={':'.join(mount['lowers'])}"]
    if "upper" in mount:
        options = [f"workdir={mount['work']}", f"upperdir={mount['upper']}", *options]
    if mount.get("userxattr"):
        options.append("userxattr")
    return [WireMount(type="overlay", source="overlay", options=options)]


def directories(mounts: Iterable[WireMount]) -> tuple[str, list[str]]:
    """The writable directory of mounts that `wire_mounts` gave, and those below, topmost first.

    Raises:
        InvalidArgument: there is none, or not exactly one mount.
    """
    given = list(mounts)
    if len(given) != 1:
        raise InvalidArgument(f"{len(given)} mounts, and one is needed")
    [mount] = given
    if mount.type == "bind":
        return mount.source, []
    values = dict(option.partition("=")[::2] for option in mount.options)
    if mount.type != "overlay" or not values.get("upperdir"):
        raise InvalidArgument(f"mount of type {mount.type}: no directory that can be written")
    return values["upperdir"], [path for path in values.get("lowerdir", "").split(":") if path]
