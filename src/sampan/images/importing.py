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
from sampan.images.creating import ImageMaker, NewImage
from sampan.images.diffing import CommittedLayer
from sampan.images.failures import finish, one_error
from sampan.images.progress import Meter, Report
from sampan.spec import mediatypes
from sampan.spec.image import Descriptor, History, ImageConfig, RunConfig
from sampan.store import leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampan.images.unpack import Unpacker
    from sampan.spec.platform import Platform
    from sampan.spec.reference import Reference
    from sampan.store.content import ContentStore
    from sampan.store.database import Database

_MAGIC_LENGTH: Final = 6
_MAGIC: Final = (
    (b"\x1f\x8b", mediatypes.OCI_LAYER_GZIP),
    (b"\x28\xb5\x2f\xfd", mediatypes.OCI_LAYER_ZSTD),
)
_UNFIT: Final = ((b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"))


class Importer:
    """Imports into one store."""

    def __init__(
        self,
        db: Database,
        content: ContentStore,
        unpacker: Unpacker,
        maker: ImageMaker,
        platform: Platform,
    ) -> None:
        self._db = db
        self._content = content
        self._unpacker = unpacker
        self._maker = maker
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
                image = NewImage(
                    config=self._config(config, message),
                    layers=(CommittedLayer(layer, applied.diff_id, applied.size),),
                )
                target, _ = await self._maker.make(image, reference, lease=lease)
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

    def _config(self, config: RunConfig, message: str) -> ImageConfig:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return ImageConfig(
            architecture=self._platform.architecture,
            os=self._platform.os,
            variant=self._platform.variant,
            created=now,
            config=config,
            history=(History(created=now, comment=message or "Imported from -"),),
        )


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
