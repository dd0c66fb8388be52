"""An index with everything below it: brought into the store, packed as it is.

Each document is read once, to a bounded depth and number; blobs come a few at a time. What an index
names beside images (signatures, attestations) comes too: a copy of an index is the whole of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.images.documents import links_of, top_snapshot
from sampan.images.select import MAX_DEPTH, MAX_INDEXES
from sampan.spec import mediatypes
from sampan.spec.image import MAX_CONFIG, MAX_DESCRIPTORS, ImageConfig, Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sampan.images.select import Read
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.store.content import ContentStore


class Graph:
    """One walk. `read` gives verified documents, `blob` sees to it that a blob is in the store."""

    def __init__(
        self,
        read: Read,
        blob: Callable[[Descriptor], Awaitable[None]],
        content: ContentStore,
        lease: str,
    ) -> None:
        self._read = read
        self._blob = blob
        self._content = content
        self._lease = lease
        self._seen: set[Digest] = set()
        self._indexes = 0

    async def fetch(self, target: Descriptor, skip: Digest | None = None) -> None:
        """Bring everything below `target`; `skip` is a manifest that is here already.

        Raises:
            InvalidArgument: a document is wrong, or the graph is too large.
        """
        if skip is not None:
            self._seen.add(skip)
        await self._document(target, 1)

    async def _document(self, target: Descriptor, depth: int) -> None:
        if target.digest in self._seen:
            return
        self._seen.add(target.digest)
        if depth > MAX_DEPTH + 1 or len(self._seen) > MAX_DESCRIPTORS:
            raise InvalidArgument(f"index {target.digest}: nested too deeply, or too large")
        if mediatypes.is_index(target.media_type):
            await self._index(target, depth)
        elif mediatypes.is_manifest(target.media_type):
            await self._manifest(target)
        else:
            raise InvalidArgument(
                f"index: the media type {target.media_type[:160]!r} of {target.digest} is not known"
            )

    async def _index(self, target: Descriptor, depth: int) -> None:
        self._indexes += 1
        if self._indexes > MAX_INDEXES:
            raise InvalidArgument(f"index {target.digest}: more than {MAX_INDEXES} indexes")
        content = await self._read(target)
        index = Index.parse(content, target.media_type)
        for entry in index.manifests:
            await self._document(entry, depth + 1)
        await self._content.put(
            content, digest=target.digest, links=links_of(index), lease=self._lease
        )

    async def _manifest(self, target: Descriptor) -> None:
        content = await self._read(target)
        manifest = Manifest.parse(content, target.media_type)
        blobs = {blob.digest: blob for blob in (manifest.config, *manifest.layers)}
        async with asyncio.TaskGroup() as tasks:
            for blob in blobs.values():
                tasks.create_task(self._fetch(blob))
        await self._link_config(manifest.config)
        await self._content.put(
            content, digest=target.digest, links=links_of(manifest), lease=self._lease
        )

    async def _fetch(self, blob: Descriptor) -> None:
        await self._blob(blob)

    async def _link_config(self, descriptor: Descriptor) -> None:
        """Once it is unpacked, an image's snapshots live as long as its config."""
        if descriptor.media_type not in mediatypes.CONFIGS or descriptor.size > MAX_CONFIG:
            return
        content = self._content.read(descriptor.digest, MAX_CONFIG)
        top = top_snapshot(ImageConfig.parse(content, descriptor.media_type))
        if top is not None:
            await self._content.put(
                content, digest=descriptor.digest, snapshots=(top,), lease=self._lease
            )
