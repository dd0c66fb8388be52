"""Images: names and what they lead to. The same ones in every namespace: the engine's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from google.protobuf.empty_pb2 import Empty

from sampan.api.containerd.filters import matcher
from sampan.api.containerd.moments import moment
from sampan.errors import ImageNotFound, InvalidArgument
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor
from sampan.spec.reference import Reference
from sampan.store import images
from sampan.wire.containerd import images_pb2 as pb
from sampan.wire.containerd.types_pb2 import Descriptor as WireDescriptor

if TYPE_CHECKING:
    from sampan.api.containerd.bus import Bus
    from sampan.api.containerd.calls import Caller, Unary
    from sampan.api.containerd.labels import Labels
    from sampan.engine.engine import Engine
    from sampan.store.images import ImageRow

_KIND: Final = "image"


class Images:
    """Answers about images."""

    def __init__(self, engine: Engine, labels: Labels, bus: Bus) -> None:
        self._images = engine.images
        self._db = engine.services.db
        self._labels = labels
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

    async def _get(self, caller: Caller, request: pb.GetImageRequest) -> pb.GetImageResponse:
        return pb.GetImageResponse(image=self._shown(caller, self._row(request.name)))

    async def _list(self, caller: Caller, request: pb.ListImagesRequest) -> pb.ListImagesResponse:
        passes = matcher(request.filters)
        shown = [self._shown(caller, row) for row in self._db.read_now(images.list)]
        return pb.ListImagesResponse(images=[one for one in shown if passes(_fields(one))])

    async def _create(
        self, caller: Caller, request: pb.CreateImageRequest
    ) -> pb.CreateImageResponse:
        image = await self._name(caller, request.image, move=False)
        self._bus.tell(
            caller.namespace, "/images/create", pb.ImageCreate(name=image.name, labels=image.labels)
        )
        return pb.CreateImageResponse(image=image)

    async def _update(
        self, caller: Caller, request: pb.UpdateImageRequest
    ) -> pb.UpdateImageResponse:
        paths = request.update_mask.paths
        row = self._row(request.image.name)
        if not paths or any(path.startswith("target") for path in paths):
            await self._name(caller, request.image, move=True)
        await self._labels.update(caller.namespace, _KIND, row.name, request.image.labels, paths)
        image = self._shown(caller, self._row(row.name))
        self._bus.tell(
            caller.namespace, "/images/update", pb.ImageUpdate(name=image.name, labels=image.labels)
        )
        return pb.UpdateImageResponse(image=image)

    async def _delete(self, caller: Caller, request: pb.DeleteImageRequest) -> Empty:
        row = self._row(request.name)
        await self._images.unname(row.name)
        await self._labels.drop(caller.namespace, _KIND, row.name)
        self._bus.tell(caller.namespace, "/images/delete", pb.ImageDelete(name=request.name))
        return Empty()

    async def _name(self, caller: Caller, image: pb.Image, *, move: bool) -> pb.Image:
        reference = _reference(image.name)
        await self._images.name(reference, descriptor(image.target), move=move)
        if not move:
            await self._labels.put(caller.namespace, _KIND, str(reference), image.labels)
        return self._shown(caller, self._row(str(reference)))

    def _row(self, name: str) -> ImageRow:
        """The image of a name, in whichever form it was written."""
        try:
            wanted = str(_reference(name))
        except InvalidArgument as error:
            raise ImageNotFound(f"image {name!r}: not found") from error
        found = self._db.read_now(lambda conn: images.find(conn, wanted))
        if found is None:
            raise ImageNotFound(f'image "{name}": not found')
        return found

    def _shown(self, caller: Caller, row: ImageRow) -> pb.Image:
        return pb.Image(
            name=row.name,
            labels=self._labels.get(caller.namespace, _KIND, row.name),
            target=wire_descriptor(row.target),
            created_at=moment(row.created_ns or time.time_ns()),
            updated_at=moment(row.updated_ns or time.time_ns()),
        )


def _reference(name: str) -> Reference:
    return Reference.parse(name).with_default_tag()


def _fields(image: pb.Image) -> dict[str, object]:
    target = {"digest": image.target.digest, "mediatype": image.target.media_type}
    return {"name": image.name, "labels": dict(image.labels), "target": target}


def descriptor(wire: WireDescriptor) -> Descriptor:
    """A descriptor from the wire. Raises InvalidArgument."""
    if not wire.media_type or wire.size < 0:
        raise InvalidArgument("a descriptor needs a media type and a size")
    return Descriptor(media_type=wire.media_type, digest=Digest.parse(wire.digest), size=wire.size)


def wire_descriptor(found: Descriptor) -> WireDescriptor:
    """A descriptor for the wire."""
    return WireDescriptor(media_type=found.media_type, digest=str(found.digest), size=found.size)
