"""Copy: from one registry to another, without an image in between.

Blobs that the destination lacks pass through the content store under a lease, and are collected
afterwards unless an image here has them. What both repositories of one registry share is mounted.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sampan.images import progress as steps
from sampan.images.failures import one_error
from sampan.images.graph import Graph
from sampan.images.progress import Progress, Report
from sampan.images.push import Pusher
from sampan.spec.image import MAX_MANIFEST
from sampan.store import leases

if TYPE_CHECKING:
    from sampan.images.pull import Puller
    from sampan.registry.repository import Repository
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.store.content import ContentStore
    from sampan.store.database import Database

_AT_A_TIME: Final = 3


class Copier:
    """Copies through one store."""

    def __init__(self, db: Database, content: ContentStore, puller: Puller) -> None:
        self._db = db
        self._content = content
        self._puller = puller

    async def copy(self, source: Repository, destination: Repository, *, report: Report) -> Digest:
        """Copy what the reference of `source` names, an index whole, to that of `destination`;
        its digest.

        Raises:
            ImageNotFound: the source has no such image.
            Unauthenticated, PermissionDenied, FailedPrecondition, Unavailable: a registry's.
        """
        name = source.reference.familiar()
        report(Progress("", f"Copying {name} to {destination.reference.familiar()}"))
        with one_error(f"copy {name}"):
            async with leases.lease(self._db) as lease:
                resolved = await source.resolve()
                target = resolved.descriptor
                passing = _Passing(self._content, self._puller, source, lease, report)
                await Graph(passing.read, passing.blob, self._content, lease).fetch(target)
                sources: dict[Digest, list[str]] = {}
                if source.reference.registry == destination.reference.registry:
                    sources = {digest: [source.reference.repository] for digest in passing.blobs}
                pusher = Pusher(self._content, destination, report, sources)
                return await pusher.push(destination.reference, target)


class _Passing:
    """What passes through the store."""

    def __init__(
        self,
        content: ContentStore,
        puller: Puller,
        source: Repository,
        lease: str,
        report: Report,
    ) -> None:
        self._content = content
        self._puller = puller
        self._source = source
        self._lease = lease
        self._report = report
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self.blobs: set[Digest] = set()

    async def read(self, descriptor: Descriptor) -> bytes:
        """A document of the source, from here when it is here."""
        if await self._content.hold(descriptor.digest, self._lease):
            return self._content.read(descriptor.digest, MAX_MANIFEST)
        return await self._source.manifest(descriptor)

    async def blob(self, blob: Descriptor) -> None:
        """A blob of the source."""
        self.blobs.add(blob.digest)
        async with self._slots:
            await self._puller.fetch(self._source, blob, self._lease, self._report)
        self._report(Progress(blob.digest.short, steps.DOWNLOADED))
