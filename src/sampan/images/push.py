"""Push: from the store to a registry.

Layers first, a few at a time, then the config, then the manifest under its tag. What the registry
has already is not sent. An image that was pulled as one platform of an index is pushed as that one
manifest, as dockerd does: the rest of the index was never here.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from sampan.errors import NotFound
from sampan.images import progress as steps
from sampan.images.failures import one_error
from sampan.images.progress import Meter, Progress, Report
from sampan.spec.image import MAX_MANIFEST

if TYPE_CHECKING:
    from sampan.images.model import Content
    from sampan.registry.client import Repository
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.spec.reference import Reference
    from sampan.store.content import ContentStore

UPLOADS: Final = 3  # blobs at a time, for each push


class Pusher:
    """One push."""

    def __init__(self, content: ContentStore, repository: Repository, report: Report) -> None:
        self._content = content
        self._repository = repository
        self._report = report
        self._uploads = asyncio.Semaphore(UPLOADS)

    async def push(self, reference: Reference, content: Content) -> Digest:
        """Send the image and give it the reference's tag; the digest of its manifest.

        Raises:
            NotFound: a blob of it is not here.
            Unauthenticated, PermissionDenied, FailedPrecondition, Unavailable: the registry's.
        """
        descriptor, manifest = content.manifest_descriptor, content.manifest
        name = reference.name
        self._report(Progress("", f"The push refers to repository [{name}]"))
        with one_error(f"push {reference.familiar()}"):
            async with asyncio.TaskGroup() as tasks:
                for layer in dict.fromkeys(manifest.layers):
                    self._report(Progress(layer.digest.short, steps.PREPARING))
                    tasks.create_task(self._layer(layer))
            await self._blob(manifest.config, steps.silent)
            document = self._content.read(descriptor.digest, MAX_MANIFEST)
            target = reference.tag or descriptor.digest
            digest = await self._repository.push_manifest(target, document, descriptor.media_type)
        self._report(Progress("", f"{target}: digest: {digest} size: {len(document)}"))
        return digest

    async def _layer(self, layer: Descriptor) -> None:
        async with self._uploads:
            sent = await self._blob(layer, self._report)
        status = steps.PUSHED if sent else steps.LAYER_EXISTS
        self._report(Progress(layer.digest.short, status))

    async def _blob(self, blob: Descriptor, report: Report) -> bool:
        """Send one blob; whether the registry did not have it."""
        if await self._repository.has_blob(blob):
            return False
        try:
            fd = self._content.open(blob.digest)
        except NotFound as error:
            raise NotFound(f"push blob {blob.digest}: it is not here") from error
        try:
            meter = Meter(report, blob.digest.short, steps.PUSHING, blob.size)
            await self._repository.push_blob(blob, fd, meter)
        finally:
            os.close(fd)
        return True
