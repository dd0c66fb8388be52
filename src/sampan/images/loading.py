"""Load: from an archive to images with names.

The archive may be docker's, an OCI layout, or both in one file, compressed or not, of one image or
many; `spec.archives` has the formats. All blobs an image needs must be in it, or here already. As
with a pull everything is held by one lease until the names are given, and a name that is taken
moves: the image that had it keeps its digest as its name.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sampan.errors import ImageNotFound, InvalidArgument
from sampan.images import catalog
from sampan.images import progress as steps
from sampan.images.archive import Archive
from sampan.images.creating import UNNAMED
from sampan.images.documents import links_of, top_snapshot
from sampan.images.failures import one_error
from sampan.images.progress import Progress, Report
from sampan.images.pull import Layer, layers_of
from sampan.images.select import MAX_DEPTH, MAX_INDEXES, Selection, select
from sampan.layers.compression import Compression, detect
from sampan.spec import archives, mediatypes
from sampan.spec.digest import Digest
from sampan.spec.image import (
    MAX_CONFIG,
    MAX_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    media_type_of,
)
from sampan.spec.reference import Reference
from sampan.store import leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sampan.images.pull import Puller
    from sampan.images.trust import Trust
    from sampan.layers.workers import LayerWorkers
    from sampan.spec.platform import Platform
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

_LAYER_TYPES: Final = {
    Compression.NONE: mediatypes.DOCKER_LAYER,
    Compression.GZIP: mediatypes.DOCKER_LAYER_GZIP,
    Compression.ZSTD: mediatypes.DOCKER_LAYER_ZSTD,
}


@dataclass(slots=True)
class Loaded:
    """One image of the archive. `id` is "" for what is no image but was named like one."""

    target: Descriptor
    names: list[Reference]
    id: str = ""
    documents: dict[Digest, tuple[bytes, tuple[Digest, ...]]] = field(default_factory=dict)


class Loader:
    """Loads into one store."""

    def __init__(
        self,
        db: Database,
        content: ContentStore,
        workers: LayerWorkers,
        puller: Puller,
        trust: Trust,
    ) -> None:
        self._trust = trust
        self._db = db
        self._content = content
        self._workers = workers
        self._puller = puller

    async def run(
        self,
        source: AsyncIterator[bytes],
        platforms: Sequence[Platform],
        *,
        strict: bool,
        report: Report,
    ) -> list[Loaded]:
        """Read `source` to its end and make its images.

        `platforms` choose what of an index is unpacked; `strict` refuses one without all of them.

        Raises:
            InvalidArgument: it is no archive of images, or a wrong one; nothing changes then.
            DigestMismatch: a blob is not what its name says.
            ResourceExhausted: the disk is full.
        """
        with one_error("load"):
            async with leases.lease(self._db) as lease, self._content.staging() as directory:
                archive = await Archive.read(source, directory, self._content, self._workers)
                is_layout = archive.has(archives.INDEX)
                self._trust.check_archive("oci-archive" if is_layout else "docker-archive")
                job = _Job(self._content, self._puller, archive, lease, report)
                images = await job.run(platforms, strict=strict)
                await self._name(images)
        return images

    async def _name(self, images: list[Loaded]) -> None:
        def point(conn: Connection) -> None:
            for image in images:
                nameless = Reference.parse(UNNAMED).with_digest(image.target.digest)
                for name in image.names or [nameless]:
                    catalog.point(conn, name, image.target)

        await self._db.write(point)


class _Job:
    """One load: what its steps share."""

    def __init__(
        self,
        content: ContentStore,
        puller: Puller,
        archive: Archive,
        lease: str,
        report: Report,
    ) -> None:
        self._content = content
        self._puller = puller
        self._archive = archive
        self._lease = lease
        self._report = report
        self._paths: dict[Digest, str] = {}  # of blobs that docker's archive has at other places

    async def run(self, platforms: Sequence[Platform], *, strict: bool) -> list[Loaded]:
        if self._archive.has(archives.INDEX):
            images = await self._read_layout()
        elif self._archive.has(archives.MANIFEST):
            images = await self._read_docker()
        else:
            raise InvalidArgument(
                f"the archive has neither {archives.MANIFEST} nor {archives.INDEX}: it is not one "
                "of images (a root file system is imported with `import`)"
            )
        for image in images:
            await self._take(image, platforms, strict=strict)
        return images

    # what is in it

    async def _read_layout(self) -> list[Loaded]:
        if self._archive.has(archives.LAYOUT):
            archives.check_layout(self._archive.document(archives.LAYOUT, 64 << 10))
        content = self._archive.document(archives.INDEX, MAX_MANIFEST)
        index = Index.parse(content, media_type_of(content))
        known = self._docker_names()
        images: dict[Digest, Loaded] = {}
        for entry in index.manifests[: archives.MAX_IMAGES]:
            image = images.setdefault(entry.digest, Loaded(entry, []))
            if (name := archives.name_of(entry)) is not None:
                image.names.append(name)
        found = [image for image in images.values() if await self._documents(image)]
        if not found:
            raise InvalidArgument("the archive has no image")
        for image in found:
            image.names = list(dict.fromkeys(image.names or known.get(image.id, ())))
        return found

    def _docker_names(self) -> dict[str, tuple[Reference, ...]]:
        """Config digest -> names, of an archive that is in both formats."""
        if not self._archive.has(archives.MANIFEST):
            return {}
        entries = archives.parse_docker(self._archive.document(archives.MANIFEST, MAX_CONFIG))
        return {
            Digest.of(self._archive.document(entry.config, MAX_CONFIG)): entry.names
            for entry in entries
        }

    async def _read_docker(self) -> list[Loaded]:
        content = self._archive.document(archives.MANIFEST, archives.MAX_DOCUMENT)
        return [await self._make(entry) for entry in archives.parse_docker(content)]

    async def _make(self, entry: archives.DockerEntry) -> Loaded:
        """The manifest of an image in docker's format, which has none."""
        content = self._archive.document(entry.config, MAX_CONFIG)
        config = Descriptor(mediatypes.DOCKER_CONFIG, Digest.of(content), len(content))
        self._paths[config.digest] = entry.config
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(self._layer(path)) for path in entry.layers]
        layers = tuple(task.result() for task in made)
        manifest = Manifest(mediatypes.DOCKER_MANIFEST, config, layers)
        text = manifest.encode()
        target = Descriptor(manifest.media_type, Digest.of(text), len(text))
        image = Loaded(target, list(dict.fromkeys(entry.names)), config.digest)
        image.documents[target.digest] = (text, links_of(manifest))
        return image

    async def _layer(self, path: str) -> Descriptor:
        digest, size = await self._archive.digest(path)
        self._paths[digest] = path
        kind = _LAYER_TYPES.get(detect(self._archive.start(path, 6)), mediatypes.DOCKER_LAYER)
        return Descriptor(kind, digest, size)

    async def _documents(self, image: Loaded) -> bool:
        """Read the indexes and manifests below an entry; whether there is an image among them."""
        waiting = [(image.target, 1)]
        while waiting:
            entry, depth = waiting.pop(0)
            content = await self._document(entry, needed=entry is image.target)
            if content is None or entry.digest in image.documents:
                continue
            if mediatypes.is_index(entry.media_type):
                index = Index.parse(content, entry.media_type)
                image.documents[entry.digest] = (content, links_of(index))
                if depth > MAX_DEPTH or len(image.documents) > MAX_INDEXES * MAX_DEPTH:
                    raise InvalidArgument(f"index {entry.digest}: nested too deeply, or too many")
                waiting += [(below, depth + 1) for below in index.manifests]
            elif mediatypes.is_manifest(entry.media_type):
                manifest = Manifest.parse(content, entry.media_type)
                image.documents[entry.digest] = (content, links_of(manifest))
                if manifest.config.media_type in mediatypes.CONFIGS:
                    image.id = image.id or manifest.config.digest
        return bool(image.id)

    async def _document(self, entry: Descriptor, *, needed: bool) -> bytes | None:
        """The verified bytes of an index or manifest; None where the archive leaves it out."""
        if entry.size > MAX_MANIFEST:
            raise InvalidArgument(f"manifest {entry.digest}: more than {MAX_MANIFEST} bytes")
        if not needed and not self._archive.has(archives.blob_path(entry.digest)):
            return None
        if not (mediatypes.is_index(entry.media_type) or mediatypes.is_manifest(entry.media_type)):
            return None
        await self._archive.give(entry, self._lease)
        return self._content.read(entry.digest, MAX_MANIFEST)

    # what is made of it

    async def _take(self, image: Loaded, platforms: Sequence[Platform], *, strict: bool) -> None:
        """Blobs, links and snapshots of one image."""
        for digest, (content, links) in image.documents.items():
            await self._content.put(content, digest=digest, links=links, lease=self._lease)

        chosen = {}
        for platform in platforms:
            one = await self._select(image, platform, strict=strict)
            chosen[one.descriptor.digest] = one.manifest
        image.id = next(iter(chosen.values())).config.digest
        for digest, (content, _) in image.documents.items():
            if digest not in chosen:
                await self._others(content)
        for manifest in chosen.values():
            await self._unpack(manifest)

    async def _select(self, image: Loaded, platform: Platform, *, strict: bool) -> Selection:
        async def read(descriptor: Descriptor) -> bytes:
            if descriptor.digest not in image.documents:
                raise InvalidArgument(f"archive: the manifest {descriptor.digest} is not in it")
            return image.documents[descriptor.digest][0]

        try:
            return await select(read, image.target, platform)
        except ImageNotFound:
            if strict:
                raise
            return await select(read, self._any(image), platform)

    def _any(self, image: Loaded) -> Descriptor:
        """The first manifest of an image, when none is for the platform."""
        for digest, (content, _) in image.documents.items():
            kind = media_type_of(content)
            if mediatypes.is_manifest(kind):
                manifest = Manifest.parse(content, kind)
                if manifest.config.media_type in mediatypes.CONFIGS:
                    return Descriptor(kind, digest, len(content))
        raise InvalidArgument(f"archive: the index {image.target.digest} has no image")

    async def _others(self, content: bytes) -> None:
        """Keep the blobs of another platform as far as they are there; they stay packed."""
        kind = media_type_of(content)
        if not mediatypes.is_manifest(kind):
            return
        manifest = Manifest.parse(content, kind)
        for blob in (manifest.config, *manifest.layers):
            if self._archive.has(archives.blob_path(blob.digest)):
                await self._archive.give(blob, self._lease)

    async def _unpack(self, manifest: Manifest) -> None:
        config = await self._config(manifest.config)
        layers = layers_of(manifest, config)
        async with asyncio.TaskGroup() as tasks:
            for layer in layers:
                tasks.create_task(self._one(layer))

    async def _config(self, descriptor: Descriptor) -> ImageConfig:
        if descriptor.size > MAX_CONFIG:
            raise InvalidArgument(f"image config: more than the limit of {MAX_CONFIG} bytes")
        await self._give(descriptor)
        content = self._content.read(descriptor.digest, MAX_CONFIG)
        config = ImageConfig.parse(content, descriptor.media_type)
        top = top_snapshot(config)
        await self._content.put(
            content,
            digest=descriptor.digest,
            snapshots=() if top is None else (top,),
            lease=self._lease,
        )
        return config

    async def _one(self, layer: Layer) -> None:
        short, size = layer.short, layer.descriptor.size
        await self._give(layer.descriptor)
        self._report(Progress(short, steps.LOADING, size, size))
        await self._puller.unpack_layer(layer, self._lease)
        self._report(Progress(short, steps.LOADED))

    async def _give(self, blob: Descriptor) -> None:
        await self._archive.give(blob, self._lease, self._paths.get(blob.digest, ""))
