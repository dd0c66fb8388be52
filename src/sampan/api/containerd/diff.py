"""Diff: a layer's blob into a snapshot, and a snapshot's changes into a blob."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sampan.api.containerd.images import descriptor, wire_descriptor
from sampan.api.containerd.snapshots import directories
from sampan.errors import InvalidArgument
from sampan.layers.compression import Compression
from sampan.spec import mediatypes
from sampan.wire.containerd import diff_pb2 as pb
from sampan.wire.containerd.types_pb2 import Descriptor as WireDescriptor

if TYPE_CHECKING:
    from sampan.api.containerd.calls import Caller, Unary
    from sampan.engine.engine import Engine
    from sampan.snapshots.base import BindMount, OverlayMount

_TAR: Final = "application/vnd.oci.image.layer.v1.tar"
_COMPRESSIONS: Final = {
    "": Compression.GZIP,
    _TAR: Compression.NONE,
    f"{_TAR}+gzip": Compression.GZIP,
    f"{_TAR}+zstd": Compression.ZSTD,
}


class Diff:
    """Answers about differences."""

    def __init__(self, engine: Engine) -> None:
        self._images = engine.images
        self._snapshots = engine.services.layout.snapshots

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {"Apply": self._apply, "Diff": self._diff}

    async def _apply(self, _caller: Caller, request: pb.ApplyRequest) -> pb.ApplyResponse:
        layer = descriptor(request.diff)
        if not mediatypes.is_layer(layer.media_type):
            raise InvalidArgument(f"apply: {layer.media_type} is no layer")
        upper, lowers = directories(request.mounts)
        for path in (upper, *lowers):
            self._check(path)
        done = await self._images.apply(layer, upper, lowers)
        applied = WireDescriptor(media_type=_TAR, digest=str(done.diff_id), size=done.size)
        return pb.ApplyResponse(applied=applied)

    async def _diff(self, caller: Caller, request: pb.DiffRequest) -> pb.DiffResponse:
        compression = _COMPRESSIONS.get(request.media_type)
        if compression is None:
            raise InvalidArgument(f"diff: {request.media_type} cannot be made")
        upper, lowers = directories(request.right)
        for path in (upper, *lowers):
            self._check(path)
        work = upper.rpartition("/")[0] + "/work"
        mount: OverlayMount | BindMount = {"type": "bind", "source": upper}
        if lowers:
            mount = {"type": "overlay", "lowers": lowers, "upper": upper, "work": work}
        async with self._images.lease() as held:
            lease = caller.lease or held
            made = await self._images.commit_layer(mount, lease=lease, compression=compression)
            found = wire_descriptor(made.descriptor)
            found.annotations["containerd.io/uncompressed"] = str(made.diff_id)
        return pb.DiffResponse(diff=found)

    def _check(self, path: str) -> None:
        """Only what `Snapshots` told: the directory of a snapshot. Raises InvalidArgument."""
        if re.fullmatch(re.escape(self._snapshots) + r"/[0-9]+/fs", path) is None:
            raise InvalidArgument(f"{path[:200]!r} is not a directory of a snapshot")
