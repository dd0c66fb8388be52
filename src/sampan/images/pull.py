"""Pull: from a reference to an image that containers can be made of.

resolve -> index -> manifest for the platform -> config -> layers. Layers are downloaded a few at a
time; each is unpacked as soon as it has arrived, while others still download, and they are
committed in the order of the chain. Everything is held by one lease until the last step, one
transaction, gives the image its name: before it nothing is visible, after it everything is there.

When the registry fails, what arrived of a blob stays for the next pull, also over a restart. A
cancel throws it away, and so does content that is not what its digest says. Two pulls of one blob
or layer do the work once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sampan.errors import DigestMismatch, ImageNotFound, InvalidArgument, SampanError, Unavailable
from sampan.images import catalog
from sampan.images import progress as steps
from sampan.images.documents import links_of, top_snapshot
from sampan.images.failures import finish, one_error
from sampan.images.graph import Graph
from sampan.images.progress import Meter, Progress, Report
from sampan.images.select import Selection, select
from sampan.spec import mediatypes
from sampan.spec.digest import chain_ids
from sampan.spec.image import MAX_CONFIG, MAX_MANIFEST, ImageConfig
from sampan.spec.platform import match_order
from sampan.store import leases
from sampan.store.locks import KeyedLocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.images.model import Content
    from sampan.images.trust import Trust
    from sampan.images.unpack import Unpacker
    from sampan.registry.client import Registry
    from sampan.registry.credentials import Credentials
    from sampan.registry.repository import Repository
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor, Manifest
    from sampan.spec.platform import Platform
    from sampan.spec.reference import Reference
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database
    from sampan.store.ingest import Writer

DOWNLOADS: Final = 3  # blobs at a time, for each pull


@dataclass(slots=True)
class Layer:
    """One layer of the image that is being pulled."""

    descriptor: Descriptor
    diff_id: Digest
    chain_id: Digest
    parent: Layer | None
    made: bool = False  # the snapshot was here before
    committed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def short(self) -> str:
        return self.descriptor.digest.short

    async def below(self) -> None:
        """Wait until the layer below is committed."""
        if self.parent is not None:
            await self.parent.committed.wait()


class Puller:
    """Pulls into one store. One for the process, so that concurrent pulls share the work."""

    def __init__(
        self,
        db: Database,
        content: ContentStore,
        unpacker: Unpacker,
        registry: Registry,
        trust: Trust | None = None,
    ) -> None:
        self._trust = trust
        self._db = db
        self._content = content
        self._unpacker = unpacker
        self._registry = registry
        self._blobs = KeyedLocks()

    async def pull(
        self,
        reference: Reference,
        platform: Platform,
        *,
        strict: bool,
        everything: bool = False,
        credentials: Credentials | None,
        report: Report,
    ) -> tuple[Descriptor, bool]:
        """Bring an image here and give it its name; its target, and whether anything changed.

        `strict` refuses an image for another platform also where the registry has only that one;
        `everything` brings the other platforms of an index too, packed as they are.

        Raises:
            ImageNotFound: the registry has no such image, or not for the platform.
            Unauthenticated, PermissionDenied: the registry wants other credentials.
            DigestMismatch, DataLoss, InvalidArgument, FailedPrecondition: the content is wrong.
            ResourceExhausted: the disk is full.
            Unavailable: the registry fails.
        """
        repository = self._registry.repository(reference, credentials)
        with one_error(f"pull {reference.familiar()}"):
            async with leases.lease(self._db) as lease:
                job = _Job(self, repository, lease, report)
                return await job.run(reference, platform, strict=strict, everything=everything)

    async def judge(self, repository: Repository, targets: Sequence[Descriptor]) -> None:
        """Refuse an image that the policy does not let come. Raises as `Trust.judge`."""
        if self._trust is not None:
            await self._trust.judge(repository, targets)

    async def fetch(
        self, repository: Repository, layer: Descriptor, lease: str, report: Report
    ) -> bool:
        """Bring one blob here; whether it had to be downloaded."""
        short = layer.digest.short
        async with self._blobs.hold(layer.digest):
            if await self._content.hold(layer.digest, lease):
                return False
            while True:
                writer = await self._writer(layer, lease)
                resumed = writer.offset > 0
                try:
                    await self._download(repository, layer, writer, report)
                except DigestMismatch:
                    if not resumed:
                        raise
                    continue  # what an earlier attempt got may have been the wrong part
                break
        report(Progress(short, steps.DOWNLOADED))
        return True

    async def _download(
        self, repository: Repository, layer: Descriptor, writer: Writer, report: Report
    ) -> None:
        short = layer.digest.short
        try:
            meter = Meter(report, short, steps.DOWNLOADING, layer.size)
            await repository.blob(layer, writer, meter)
            report(Progress(short, steps.VERIFYING))
            await finish(writer.commit())
        except Unavailable:
            await finish(writer.close())  # the next pull goes on from here
            raise
        except BaseException:
            await finish(writer.abort())
            raise

    async def unpack(self, image: Content) -> None:
        """Make the snapshots of an image whose blobs are here. Raises as `Unpacker.unpack`."""
        with one_error(f"unpack image {image.id}"):
            async with leases.lease(self._db) as lease:
                await self.unpack_under(image, lease)

    async def unpack_under(self, image: Content, lease: str) -> None:
        """The same under a lease of the caller's, who takes failures out of their group."""
        async with asyncio.TaskGroup() as tasks:
            for layer in layers_of(image.manifest, image.config):
                tasks.create_task(self.unpack_layer(layer, lease))

    async def unpack_layer(self, layer: Layer, lease: str) -> None:
        """Make the snapshot of one layer whose blob is here, and tell the layer above it."""
        await self._unpacker.unpack(
            layer.descriptor,
            layer.diff_id,
            chain_id=layer.chain_id,
            parent=layer.parent.chain_id if layer.parent else None,
            below=layer.below,
            lease=lease,
        )
        await layer.below()
        layer.committed.set()

    async def _writer(self, layer: Descriptor, lease: str) -> Writer:
        """Open the ingest of a blob; one that was opened while we are cancelled is thrown away."""
        opening = asyncio.ensure_future(
            self._content.writer(f"blob {layer.digest}", layer, lease=lease)
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            await finish(_discard(opening))
            raise

    @property
    def content(self) -> ContentStore:
        """Where blobs go."""
        return self._content

    @property
    def unpacker(self) -> Unpacker:
        """What makes snapshots of layers."""
        return self._unpacker

    async def name(self, reference: Reference, target: Descriptor) -> bool:
        """Give the image its name, in one transaction; whether that is new."""

        def put(conn: Connection) -> bool:
            return catalog.point(conn, reference, target)

        return await self._db.write(put)


class _Job:
    """One pull: what its steps share."""

    def __init__(self, puller: Puller, repository: Repository, lease: str, report: Report) -> None:
        self._puller = puller
        self._content = puller.content
        self._repository = repository
        self._lease = lease
        self._report = report
        self._downloads = asyncio.Semaphore(DOWNLOADS)
        self._fetched: dict[Digest, bytes] = {}

    async def run(
        self, reference: Reference, platform: Platform, *, strict: bool, everything: bool
    ) -> tuple[Descriptor, bool]:
        resolved = await self._repository.resolve()
        target = resolved.descriptor
        if resolved.content is not None:
            self._fetched[target.digest] = resolved.content
        selection = await select(self._read, target, platform)
        # A signature of one manifest does not vouch for the other platforms of an index.
        judged = [target] if everything else [target, selection.descriptor]
        await self._puller.judge(self._repository, judged)
        config = await self._config(selection)
        if strict and config.platform not in match_order(platform):
            raise ImageNotFound(
                f"image with reference {reference.familiar()} was found but its platform "
                f"({config.platform}) does not match the specified platform ({platform})"
            )
        # The first word comes when the image is known to be there: before it, a failure is an
        # ordinary answer, and clients that look at the status only see it.
        self._report(
            Progress(reference.tag or str(reference.digest), f"Pulling from {_path(reference)}")
        )
        await self._layers(layers_of(selection.manifest, config))
        await self._documents(selection, config)
        if everything:
            graph = Graph(self._read, self._blob_of, self._content, self._lease)
            await graph.fetch(target, skip=selection.descriptor.digest)
        changed = await self._puller.name(reference, target)
        self._report(Progress("", f"Digest: {target.digest}"))
        self._report(Progress("", _status(reference, changed=changed)))
        return target, changed

    async def _read(self, descriptor: Descriptor) -> bytes:
        """A manifest or index: from the store when it is here, else from the registry."""
        if descriptor.digest not in self._fetched:
            if await self._content.hold(descriptor.digest, self._lease):
                content = self._content.read(descriptor.digest, MAX_MANIFEST)
            else:
                content = await self._repository.manifest(descriptor)
            self._fetched[descriptor.digest] = content
        return self._fetched[descriptor.digest]

    async def _config(self, selection: Selection) -> ImageConfig:
        descriptor = selection.manifest.config
        if descriptor.media_type not in mediatypes.CONFIGS:
            raise InvalidArgument(
                f"image config: the media type {descriptor.media_type[:160]!r} is not an image's"
            )
        if descriptor.size > MAX_CONFIG:
            raise InvalidArgument(f"image config: more than the limit of {MAX_CONFIG} bytes")
        await self._puller.fetch(self._repository, descriptor, self._lease, steps.silent)
        content = self._content.read(descriptor.digest, MAX_CONFIG)
        return ImageConfig.parse(content, descriptor.media_type)

    async def _layers(self, layers: list[Layer]) -> None:
        if layers and not self._content.has(layers[0].descriptor.digest):
            self._puller.unpacker.warm()
        async with asyncio.TaskGroup() as tasks:
            for layer in layers:
                layer.made = await self._puller.unpacker.hold(layer.chain_id, self._lease)
                if not layer.made:
                    self._report(Progress(layer.short, steps.PULLING))
            for layer in layers:
                tasks.create_task(self._layer(layer))

    async def _layer(self, layer: Layer) -> None:
        fetched = await self._blob(layer)
        if layer.made:
            status = steps.PULLED if fetched else steps.EXISTS
        else:
            self._report(Progress(layer.short, steps.EXTRACTING))
            status = steps.PULLED
        await self._puller.unpack_layer(layer, self._lease)
        self._report(Progress(layer.short, status))

    async def _blob(self, layer: Layer) -> bool:
        if await self._content.hold(layer.descriptor.digest, self._lease):
            return False
        if self._downloads.locked():
            self._report(Progress(layer.short, steps.WAITING))
        async with self._downloads:
            return await self._puller.fetch(
                self._repository, layer.descriptor, self._lease, self._report
            )

    async def _blob_of(self, blob: Descriptor) -> None:
        """A blob that stays packed."""
        async with self._downloads:
            fetched = await self._puller.fetch(self._repository, blob, self._lease, self._report)
        status = steps.PULLED if fetched else steps.EXISTS
        self._report(Progress(blob.digest.short, status))

    async def _documents(self, selection: Selection, config: ImageConfig) -> None:
        """Store the manifest and the indexes, with the links that keep what they need."""
        top = top_snapshot(config)
        config_digest = selection.manifest.config.digest
        await self._content.put(
            self._content.read(config_digest, MAX_CONFIG),
            digest=config_digest,
            snapshots=() if top is None else (top,),
            lease=self._lease,
        )
        links = {digest: links_of(index) for digest, index in selection.indexes.items()}
        links[selection.descriptor.digest] = links_of(selection.manifest)
        for digest, needs in links.items():
            await self._content.put(
                self._fetched[digest], digest=digest, links=needs, lease=self._lease
            )


def layers_of(manifest: Manifest, config: ImageConfig) -> list[Layer]:
    """The layers with their places in the chain, bottom first.

    Raises:
        InvalidArgument: config and manifest disagree, or a layer is of an unknown type.
    """
    descriptors, diff_ids = manifest.layers, config.rootfs_diff_ids
    if len(descriptors) != len(diff_ids):
        raise InvalidArgument(
            f"manifest: it has {len(descriptors)} layers, and its config {manifest.config.digest} "
            f"has {len(diff_ids)} diff ids"
        )
    layers: list[Layer] = []
    chain = chain_ids(diff_ids)
    for descriptor, diff_id, chain_id in zip(descriptors, diff_ids, chain, strict=True):
        if not mediatypes.is_layer(descriptor.media_type):
            raise InvalidArgument(
                f"layer {descriptor.digest}: the media type {descriptor.media_type[:160]!r} "
                "is not supported"
            )
        layers.append(Layer(descriptor, diff_id, chain_id, layers[-1] if layers else None))
    return layers


async def _discard(opening: asyncio.Future[Writer]) -> None:
    try:
        writer = await opening
    except SampanError:
        return  # it was not opened, and who wanted it is gone
    await writer.abort()


def _path(reference: Reference) -> str:
    """The repository as dockerd shows it in `Pulling from`."""
    return reference.repository


def _status(reference: Reference, *, changed: bool) -> str:
    if changed:
        return f"Status: Downloaded newer image for {reference.familiar()}"
    return f"Status: Image is up to date for {reference.familiar()}"
