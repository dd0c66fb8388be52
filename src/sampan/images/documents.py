"""The documents of images in the content store: read, parsed, remembered.

Content never changes under its digest, so what was parsed once is kept (the last few hundred). The
links that the collector walks are made here too, next to the documents that they follow from.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from sampan.errors import DataLoss, ImageNotFound, NotFound
from sampan.images.model import Content
from sampan.images.select import Selection, select
from sampan.spec import mediatypes
from sampan.spec.digest import chain_ids
from sampan.spec.image import MAX_CONFIG, MAX_MANIFEST, Descriptor, ImageConfig, Index, Manifest
from sampan.spec.platform import match_order

if TYPE_CHECKING:
    from sampan.spec.digest import Digest
    from sampan.spec.platform import Platform
    from sampan.store.content import ContentStore

_REMEMBERED: Final = 512
_NO_OS: Final = "unknown"  # the platform of what attests something


class Documents:
    """Reads images out of one content store."""

    def __init__(self, content: ContentStore, platform: Platform) -> None:
        self._content = content
        self._platform = platform
        self._known: OrderedDict[Digest, Content] = OrderedDict()

    def known(self, digest: Digest) -> Content | None:
        """The image of a target that was read before, None when it was not."""
        return self._known.get(digest)

    async def content(self, target: Descriptor, platform: Platform | None = None) -> Content:
        """The image that `target` leads to, for `platform` or whichever was pulled.

        Raises:
            ImageNotFound: it is not here for that platform.
            DataLoss: a document is gone or damaged.
        """
        found = self._known.get(target.digest) if platform is None else None
        if found is None:
            found = await self._load(target, platform)
            if platform is None:
                self._remember(target.digest, found)
        else:
            self._known.move_to_end(target.digest)
        return found

    def forget(self, digest: Digest) -> None:
        """Drop what is remembered: another platform of the target was pulled, or it is gone."""
        self._known.pop(digest, None)

    async def _load(self, target: Descriptor, platform: Platform | None) -> Content:
        selection = await self._select(target, platform)
        descriptor = selection.manifest.config
        try:
            config = self._content.read(descriptor.digest, MAX_CONFIG)
        except NotFound as error:
            raise DataLoss(f"read image {target.digest}: its config is gone") from error
        parsed = ImageConfig.parse(config, descriptor.media_type)
        if platform is not None and parsed.platform not in match_order(platform):
            raise ImageNotFound(
                f"image {target.digest} was found but its platform ({parsed.platform}) does not "
                f"match the specified platform ({platform})"
            )
        return Content(
            manifest_descriptor=selection.descriptor,
            manifest=selection.manifest,
            config=parsed,
        )

    async def _select(self, target: Descriptor, platform: Platform | None) -> Selection:
        if platform is not None:
            return await self._select_exactly(target, platform)
        try:
            return await select(self._read, target, self._platform)
        except NotFound:
            present = self._present(target)
        if present is None:
            raise ImageNotFound(f"image {target.digest} is not here for any platform")
        return await select(self._read, present, self._platform)

    async def _select_exactly(self, target: Descriptor, platform: Platform) -> Selection:
        try:
            return await select(self._read, target, platform)
        except ImageNotFound:
            raise
        except NotFound as error:
            raise ImageNotFound(f"image {target.digest} is not here for {platform}") from error

    def _present(self, target: Descriptor) -> Descriptor | None:
        """The first manifest of an index that is here: what an earlier --platform pulled."""
        if not mediatypes.is_index(target.media_type):
            return None
        index = Index.parse(self._content.read(target.digest, MAX_MANIFEST), target.media_type)
        return next((d for d in index.manifests if self._content.has(d.digest)), None)

    def images_here(self, target: Descriptor) -> set[Digest]:
        """The manifests of images below a target that are here; not those that attest something."""
        if not mediatypes.is_index(target.media_type):
            return {target.digest}
        index = Index.parse(self._content.read(target.digest, MAX_MANIFEST), target.media_type)
        return {
            one.digest
            for one in index.manifests
            if self._content.has(one.digest) and (one.platform is None or one.platform.os != _NO_OS)
        }

    async def _read(self, descriptor: Descriptor) -> bytes:
        return self._content.read(descriptor.digest, MAX_MANIFEST)

    def _remember(self, digest: Digest, content: Content) -> None:
        self._known[digest] = content
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def links_of(document: Index | Manifest) -> tuple[Digest, ...]:
    """The blobs that an index or a manifest keeps."""
    if isinstance(document, Index):
        return tuple(entry.digest for entry in document.manifests)
    return (document.config.digest, *(layer.digest for layer in document.layers))


def top_snapshot(config: ImageConfig) -> Digest | None:
    """The chain id of the topmost layer, which names its snapshot."""
    chain = chain_ids(config.rootfs_diff_ids)
    return chain[-1] if chain else None
