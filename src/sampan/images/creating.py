"""An image made here: config and manifest of layers whose blobs are in the content store.

What `docker commit`, the builder and import end with. The snapshots of all layers are there before
the image has a name, so whoever sees it can run it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sampan.errors import NotFound
from sampan.images import catalog
from sampan.images.documents import links_of, top_snapshot
from sampan.images.failures import one_error
from sampan.images.model import Content
from sampan.spec import documents, mediatypes
from sampan.spec.image import Descriptor, ImageConfig, Manifest
from sampan.spec.reference import Reference
from sampan.store import images as rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.images.diffing import CommittedLayer
    from sampan.images.model import Image
    from sampan.images.pull import Puller
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

# A name for an image that was not given one; its digest keeps it, as a moved tag's does.
UNNAMED = "localhost/none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """What an image is to be made of. The config's diff ids are taken from the layers."""

    config: ImageConfig
    layers: Sequence[CommittedLayer]
    annotations: dict[str, str] = field(default_factory=dict)
    media_type: str = mediatypes.OCI_MANIFEST


class ImageMaker:
    """Makes images in one store."""

    def __init__(self, db: Database, content: ContentStore, puller: Puller) -> None:
        self._db = db
        self._content = content
        self._puller = puller

    async def make(
        self, image: NewImage, name: Reference | None, *, lease: str
    ) -> tuple[Descriptor, Content]:
        """Store the documents, make the snapshots that are missing, give the name.

        Raises:
            NotFound: a layer's blob is not here.
            InvalidArgument, DataLoss: a layer cannot be unpacked, or is not what its diff id says.
        """
        with one_error("make image"):
            for layer in image.layers:
                if not await self._content.hold(layer.descriptor.digest, lease):
                    raise NotFound(f"make image: the layer {layer.descriptor.digest} is not here")
            target, content = await self._documents(image, lease)
            await self._puller.unpack_under(content, lease)
            await self._name(name, target)
        return target, content

    async def _documents(self, image: NewImage, lease: str) -> tuple[Descriptor, Content]:
        config = replace(
            image.config, rootfs_diff_ids=tuple(layer.diff_id for layer in image.layers)
        )
        text = config.encode()
        top = top_snapshot(config)
        digest = await self._content.put(text, snapshots=() if top is None else (top,), lease=lease)
        docker = image.media_type == mediatypes.DOCKER_MANIFEST
        kind = mediatypes.DOCKER_CONFIG if docker else mediatypes.OCI_CONFIG
        manifest = Manifest(
            image.media_type,
            Descriptor(kind, digest, len(text)),
            tuple(layer.descriptor for layer in image.layers),
            image.annotations,
        )
        text = manifest.encode()
        digest = await self._content.put(text, links=links_of(manifest), lease=lease)
        target = Descriptor(image.media_type, digest, len(text))
        return target, Content(manifest_descriptor=target, manifest=manifest, config=config)

    async def index(
        self, images: Sequence[Image], names: Sequence[Reference], lease: str
    ) -> Descriptor:
        """Store an index of images that are here, one for each platform, and give it its names."""
        text = documents.encode(
            {
                "schemaVersion": 2,
                "mediaType": mediatypes.OCI_INDEX,
                "manifests": [
                    {**one.target.document(), "platform": one.config.platform.document()}
                    for one in images
                ],
            }
        )
        links = tuple(one.target.digest for one in images)
        digest = await self._content.put(text, links=links, lease=lease)
        made = Descriptor(mediatypes.OCI_INDEX, digest, len(text))
        for name in names or (None,):
            await self._name(name, made)
        if names:  # without one, each platform's image is only found by its own
            unnamed = [str(Reference.parse(UNNAMED).with_digest(digest)) for digest in links]
            await self._db.write(lambda conn: rows.forget(conn, unnamed))
        return made

    async def _name(self, name: Reference | None, target: Descriptor) -> None:
        reference = name or Reference.parse(UNNAMED).with_digest(target.digest)

        def point(conn: Connection) -> bool:
            return catalog.point(conn, reference, target)

        await self._db.write(point)
