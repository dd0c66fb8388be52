"""Import: the tar of a root file system becomes an image of one layer.

The tar is stored as it comes, as the layer's blob; its bytes say how it is compressed. A worker
unpacks it and tells the diff id, from which config and manifest follow. The same bounds and
refusals hold as for a layer from a registry.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sampan.errors import InvalidArgument
from sampan.ids import new_id
from sampan.images import catalog
from sampan.images.documents import links_of
from sampan.images.failures import finish, one_error
from sampan.images.progress import Meter, Report
from sampan.spec import mediatypes
from sampan.spec.image import Descriptor, History, ImageConfig, Manifest, RunConfig
from sampan.spec.reference import Reference
from sampan.store import leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampan.images.unpack import Unpacker
    from sampan.spec.digest import Digest
    from sampan.spec.platform import Platform
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

_MAGIC_LENGTH: Final = 6
_MAGIC: Final = (
    (b"\x1f\x8b", mediatypes.OCI_LAYER_GZIP),
    (b"\x28\xb5\x2f\xfd", mediatypes.OCI_LAYER_ZSTD),
)
_UNFIT: Final = ((b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"))
# A name for what an import without a reference makes; its digest keeps it, as a moved tag's does.
UNNAMED: Final = "localhost/none"


class Importer:
    """Imports into one store."""

    def __init__(
        self, db: Database, content: ContentStore, unpacker: Unpacker, platform: Platform
    ) -> None:
        self._db = db
        self._content = content
        self._unpacker = unpacker
        self._platform = platform

    async def run(
        self,
        content: AsyncIterator[bytes],
        reference: Reference | None,
        *,
        config: RunConfig,
        message: str,
        report: Report,
    ) -> Descriptor:
        """Read `content` to its end and make the image; its target.

        Raises:
            InvalidArgument: it is not a tar, or a hostile one.
            ResourceExhausted: the disk is full.
        """
        with one_error("import"):
            async with leases.lease(self._db) as lease:
                layer = await self._layer(content, lease, report)
                applied = await self._unpacker.unpack_base(layer, lease=lease)
                image = self._config(applied.diff_id, config, message)
                target = await self._documents(image, layer, lease)
                await self._name(reference, target)
        return target

    async def _layer(self, content: AsyncIterator[bytes], lease: str, report: Report) -> Descriptor:
        """Store the tar as a blob; its descriptor."""
        meter = Meter(report, "", "Importing", 0)
        writer = await self._content.writer(f"import {new_id()}", lease=lease)
        start = b""
        try:
            async for piece in content:
                if len(start) < _MAGIC_LENGTH:
                    start += piece[:_MAGIC_LENGTH]
                await writer.write(piece)
                meter(writer.offset)
            size = writer.offset
            media_type = _media_type(start)
            digest = await finish(writer.commit(size))
        except BaseException:
            await finish(writer.abort())
            raise
        return Descriptor(media_type, digest, size)

    def _config(self, diff_id: Digest, config: RunConfig, message: str) -> ImageConfig:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return ImageConfig(
            architecture=self._platform.architecture,
            os=self._platform.os,
            variant=self._platform.variant,
            created=now,
            config=config,
            rootfs_diff_ids=(diff_id,),
            history=(History(created=now, comment=message or "Imported from -"),),
        )

    async def _documents(self, image: ImageConfig, layer: Descriptor, lease: str) -> Descriptor:
        """Store config and manifest; the descriptor of the manifest."""
        content = image.encode()
        config = await self._content.put(content, snapshots=image.rootfs_diff_ids, lease=lease)
        manifest = Manifest(
            mediatypes.OCI_MANIFEST,
            Descriptor(mediatypes.OCI_CONFIG, config, len(content)),
            (layer,),
        )
        content = manifest.encode()
        digest = await self._content.put(content, links=links_of(manifest), lease=lease)
        return Descriptor(mediatypes.OCI_MANIFEST, digest, len(content))

    async def _name(self, reference: Reference | None, target: Descriptor) -> None:
        name = reference or Reference.parse(UNNAMED).with_digest(target.digest)

        def point(conn: Connection) -> bool:
            return catalog.point(conn, name, target)

        await self._db.write(point)


def _media_type(start: bytes) -> str:
    """The layer's media type from the first bytes of the tar.

    Raises:
        InvalidArgument: it is compressed in a way that no layer may be, or empty.
    """
    for magic, name in _UNFIT:
        if start.startswith(magic):
            raise InvalidArgument(f"import: the tar is compressed with {name}; use gzip or zstd")
    if not start:
        raise InvalidArgument("import: the tar is empty")
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), mediatypes.OCI_LAYER)
