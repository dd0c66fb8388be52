"""Push: from the store to a registry.

Layers first, a few at a time, then the configs, then the manifests, and the one under the tag last.
What the registry has already is not sent, and what another of its repositories has, as far as the
names here tell, is mounted from there. An index that is here with everything it names is pushed
whole; an image that was pulled as one platform of an index is pushed as that one manifest, as
dockerd does: the rest of the index was never here.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sampan.errors import NotFound
from sampan.images import catalog
from sampan.images import progress as steps
from sampan.images.failures import one_error
from sampan.images.progress import Meter, Progress, Report
from sampan.spec import mediatypes
from sampan.spec.image import MAX_MANIFEST, Index, Manifest
from sampan.store import blobs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.registry.repository import Repository
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor
    from sampan.spec.reference import Reference
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

UPLOADS: Final = 3  # blobs at a time, for each push


_SOURCES: Final = 2  # repositories to ask for one blob before it is sent


@dataclass(slots=True)
class _Documents:
    """What is to be pushed: manifests and indexes, those that others name first."""

    manifests: dict[Digest, tuple[str, bytes]] = field(default_factory=dict)
    layers: dict[Digest, Descriptor] = field(default_factory=dict)
    configs: dict[Digest, Descriptor] = field(default_factory=dict)


class Pusher:
    """One push. `sources` gives the repositories of the same registry that have a blob."""

    def __init__(
        self,
        content: ContentStore,
        repository: Repository,
        report: Report,
        sources: dict[Digest, list[str]] | None = None,
    ) -> None:
        self._content = content
        self._repository = repository
        self._report = report
        self._sources = sources or {}
        self._uploads = asyncio.Semaphore(UPLOADS)

    async def push(self, reference: Reference, target: Descriptor) -> Digest:
        """Send a manifest or an index with all that it names, and give it the reference's tag; its
        digest.

        Raises:
            NotFound: a blob of it is not here.
            Unauthenticated, PermissionDenied, FailedPrecondition, Unavailable: the registry's.
        """
        self._report(Progress("", f"The push refers to repository [{reference.name}]"))
        with one_error(f"push {reference.familiar()}"):
            documents = _Documents()
            self._gather(target, documents)
            async with asyncio.TaskGroup() as tasks:
                for layer in documents.layers.values():
                    self._report(Progress(layer.digest.short, steps.PREPARING))
                    tasks.create_task(self._layer(layer))
            for config in documents.configs.values():
                await self._blob(config, steps.silent)
            media_type, document = documents.manifests.pop(target.digest)
            for digest, (kind, content) in documents.manifests.items():
                await self._repository.push_manifest(digest, content, kind)
            name = reference.tag or target.digest
            digest = await self._repository.push_manifest(name, document, media_type)
        self._report(Progress("", f"{name}: digest: {digest} size: {len(document)}"))
        return digest

    def _gather(self, target: Descriptor, documents: _Documents) -> None:
        content = self._content.read(target.digest, MAX_MANIFEST)
        if mediatypes.is_index(target.media_type):
            for entry in Index.parse(content, target.media_type).manifests:
                if entry.digest not in documents.manifests:
                    self._gather(entry, documents)
        else:
            manifest = Manifest.parse(content, target.media_type)
            documents.configs[manifest.config.digest] = manifest.config
            documents.layers |= {layer.digest: layer for layer in manifest.layers}
        documents.manifests[target.digest] = target.media_type, content

    async def _layer(self, layer: Descriptor) -> None:
        async with self._uploads:
            status = await self._blob(layer, self._report)
        self._report(Progress(layer.digest.short, status))

    async def _blob(self, blob: Descriptor, report: Report) -> str:
        """See to it that the registry has one blob; how."""
        if await self._repository.has_blob(blob):
            return steps.LAYER_EXISTS
        try:
            fd = self._content.open(blob.digest)
        except NotFound as error:
            raise NotFound(f"push blob {blob.digest}: it is not here") from error
        sources = self._sources.get(blob.digest, [])
        try:
            meter = Meter(report, blob.digest.short, steps.PUSHING, blob.size)
            sent = await self._repository.push_blob(blob, fd, meter, sources[:_SOURCES])
        finally:
            os.close(fd)
        return steps.PUSHED if sent else f"Mounted from {sources[0]}"


async def sources_of(
    db: Database, names: Iterable[catalog.Name], reference: Reference
) -> dict[Digest, list[str]]:
    """Blob -> the other repositories of the reference's registry whose images here have it."""
    roots = [
        (name.reference.repository, name.target.digest)
        for name in names
        if name.reference.registry == reference.registry
        and name.reference.repository != reference.repository
    ]

    def look(conn: Connection) -> dict[Digest, list[str]]:
        found: dict[Digest, list[str]] = {}
        for repository, root in roots:
            for digest in blobs.below(conn, root):
                entry = found.setdefault(digest, [])
                if repository not in entry:
                    entry.append(repository)
        return found

    return await db.read(look) if roots else {}
