"""The images room's front: every use-case on images of one store, each in a file of its own.

The engine makes one `ImageService` and closes it; `users` tells it which containers use which
image, because containers are the engine's.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.images import catalog, copying, importing, push
from sampan.images import changes as changing
from sampan.images import filters as filtering
from sampan.images.checking import Checker
from sampan.images.creating import ImageMaker, NewImage
from sampan.images.diffing import Differ
from sampan.images.housekeeping import Housekeeper
from sampan.images.loading import Loader
from sampan.images.lookup import Lookup
from sampan.images.manifests import Manifests
from sampan.images.model import HistoryStep, Image, LoadedImage, Pruned, Removed
from sampan.images.naming import Namer
from sampan.images.progress import Report, silent
from sampan.images.pull import Puller
from sampan.images.remote import Remote
from sampan.images.removal import Remover
from sampan.images.retention import Policy
from sampan.images.saving import ArchiveFormat, Saved, Saver
from sampan.images.trust import Trust, Verdict
from sampan.images.unpack import Unpacker
from sampan.layers.compression import Compression
from sampan.spec.image import RunConfig
from sampan.spec.platform import Platform
from sampan.spec.reference import Reference
from sampan.store import leases
from sampan.store.usage import StoreUsage, measure

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Iterable,
        Mapping,
        Sequence,
    )
    from contextlib import AbstractAsyncContextManager

    from sampan.images.checking import Report as CheckReport
    from sampan.images.diffing import Change, CommittedLayer
    from sampan.images.filters import Filters
    from sampan.images.removal import ImageUser
    from sampan.layers.applied import AppliedLayer
    from sampan.layers.workers import LayerWorkers
    from sampan.registry.client import Registry
    from sampan.registry.credentials import Credentials
    from sampan.snapshots.base import Mount
    from sampan.snapshots.overlay import OverlaySnapshotter
    from sampan.spec.digest import Digest
    from sampan.spec.image import ImageConfig
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database
    from sampan.store.layout import Layout


class ImageService:
    """Images of one store. Belongs to one event loop."""

    def __init__(
        self,
        *,
        db: Database,
        content: ContentStore,
        snapshotter: OverlaySnapshotter,
        workers: LayerWorkers,
        registry: Registry,
        collect: Callable[[], Awaitable[object]],
        users: Callable[[], Iterable[ImageUser]] = tuple,
        platform: Platform | None = None,
        layout: Layout,
        policy: Policy | None = None,
        trust: Trust | None = None,
    ) -> None:
        """`collect` runs the collector; `users` gives the containers of the moment."""
        self.platform = platform or Platform.host()
        self._db = db
        self._content = content
        self._snapshotter = snapshotter
        self._registry = registry
        self._collect = collect
        self._layout = layout
        self._lookup = Lookup(db, content, snapshotter, self.platform)
        self.manifests = Manifests(db, content, self._lookup)
        self._remover = Remover(db, self._lookup, collect, users)
        self._unpacker = Unpacker(db, content, snapshotter, workers)
        self.trust = trust or Trust()
        self._puller = Puller(db, content, self._unpacker, registry, self.trust)
        self._maker = ImageMaker(db, content, self._puller)
        self.create_index = self._maker.index
        self._differ = Differ(content, workers)
        self.steps = Namer(db, content, self._unpacker)
        self._loader = Loader(db, content, workers, self._puller, self.trust)
        self.house = Housekeeper(
            layout,
            db,
            self._lookup,
            self._remover,
            collect=collect,
            users=users,
            policy=policy or Policy(),
        )
        self._checker = Checker(layout, db, content, snapshotter, self._lookup, self._puller)

    async def aclose(self) -> None:
        """Close the connections to registries. Call it when no operation runs any more."""
        await self.house.aclose()
        await self._registry.aclose()

    # look

    async def list(self, filters: Filters | None = None) -> Sequence[Image]:
        """The images that pass the filters, with their names, newest first.

        Raises:
            InvalidArgument: an unknown filter, or a value that is none.
            ImageNotFound: `before` or `since` names no image.
        """
        named = [*(filters or {}).get("before", ()), *(filters or {}).get("since", ())]
        known = {ref: await self.get(ref) for ref in named}
        return filtering.chosen(await self._lookup.all(), filters, known.__getitem__)

    async def get(self, ref: str, platform: Platform | None = None) -> Image:
        """The image that a reference, an id or the beginning of one means.

        Raises:
            ImageNotFound: there is none, or it is not here for `platform`.
            InvalidArgument: the beginning of an id is ambiguous.
        """
        content, names, _ = await self._lookup.find(ref, platform)
        return await self._lookup.image(content, names)

    async def ids(self, refs: Iterable[str]) -> Mapping[str, Digest | None]:
        """Reference -> the id of the image that it leads to now, or None."""
        return await self._lookup.ids(refs)

    async def unpack(self, ref: str, platform: Platform | None = None) -> Image:
        """See to it that the snapshots of an image are there, from its blobs; the image.

        They are, after a pull. A power failure may have taken them.

        Raises:
            ImageNotFound: there is no such image.
            NotFound: a blob of it is not here either.
        """
        content, names, _ = await self._lookup.find(ref, platform)
        await self._puller.unpack(content)
        return await self._lookup.image(content, names)

    async def history(self, ref: str, platform: Platform | None = None) -> Sequence[HistoryStep]:
        """How an image was made, newest step first. Raises as `get`."""
        image = await self.get(ref, platform)
        sizes = iter(await self._lookup.layer_sizes(image.config.rootfs_diff_ids))
        steps = [
            HistoryStep(
                id="<missing>",
                created=entry.created or "",
                created_by=entry.created_by,
                comment=entry.comment,
                size=0 if entry.empty_layer else next(sizes, 0),
            )
            for entry in image.config.history
        ]
        if steps:
            last = steps[-1]
            steps[-1] = HistoryStep(
                id=image.id,
                created=last.created,
                created_by=last.created_by,
                comment=last.comment,
                size=last.size,
                tags=image.names,
            )
        return steps[::-1]

    # move

    async def pull(
        self,
        reference: Reference | str,
        *,
        platform: Platform | None = None,
        every_platform: bool = False,
        auth: Credentials | None = None,
        progress: Report = silent,
    ) -> Image:
        """Bring an image here from its registry; see `Puller.pull` for what it raises."""
        reference = _reference(reference)
        await self.house.make_room()
        target, _ = await self._puller.pull(
            reference,
            platform or self.platform,
            strict=platform is not None,
            everything=every_platform,
            credentials=auth,
            report=progress,
        )
        self._lookup.documents.forget(target.digest)
        content = await self._lookup.documents.content(target, platform)
        return await self._lookup.image(content, self._lookup.names_of(target))

    async def push(
        self,
        reference: Reference | str,
        *,
        platform: Platform | None = None,
        auth: Credentials | None = None,
        progress: Report = silent,
    ) -> Digest:
        """Send the image of that name to its registry; the digest that it has there.

        With a platform only its manifest is sent, also of an index that is here whole.

        Raises:
            ImageNotFound: no image has the name.
            NotFound: a part of it is not here, because it was never pulled for this platform.
            Unauthenticated, PermissionDenied, Unavailable: the registry refuses or fails.
        """
        reference = _reference(reference)
        content, _, target = await self._lookup.find(str(reference), platform)
        if platform is not None:
            target = content.manifest_descriptor
        else:
            target = Saver(self._db, self._content).whole(target, content).target
        repository = self._registry.repository(reference, auth)
        every = self._lookup.names()
        sources = await push.sources_of(self._db, every, reference)
        return await push.Pusher(self._content, repository, progress, sources).push(
            reference, target
        )

    async def copy(
        self,
        source: Reference | str,
        destination: Reference | str,
        *,
        auth: Credentials | None = None,
        destination_auth: Credentials | None = None,
        progress: Report = silent,
    ) -> Digest:
        """Copy an image with all its platforms from one registry to another; see `Copier.copy`."""
        source, destination = _reference(source), _reference(destination)
        copier = copying.Copier(self._db, self._content, self._puller)
        try:
            return await copier.copy(
                self._registry.repository(source, auth),
                self._registry.repository(destination, destination_auth),
                report=progress,
            )
        finally:
            await self._collect()  # what passed through and no image here has

    async def login(self, server: str, credentials: Credentials) -> str:
        """Show credentials to a registry; the token to keep in place of the password, or "".

        Raises:
            Unauthenticated: it refuses them.
        """
        return await self._registry.login(server, credentials)

    async def verify(
        self,
        reference: Reference | str,
        *,
        keys: Sequence[bytes] = (),
        platform: Platform | None = None,
        auth: Credentials | None = None,
    ) -> Verdict:
        """Whether the policy, or one of the keys, vouches for what a registry has under a name.

        Raises:
            Untrusted: it does not; the text says why.
            InvalidArgument: the policy or a key cannot be understood.
        """
        repository = self._registry.repository(_reference(reference), auth)
        targets = await Remote(repository).targets(platform or self.platform)
        if keys:
            return await self.trust.verify(repository, targets, keys)
        return await self.trust.judge(repository, targets)

    def remote(self, reference: Reference | str, auth: Credentials | None = None) -> Remote:
        """The repository of a reference at its registry, to look at."""
        return Remote(self._registry.repository(_reference(reference), auth))

    async def import_tar(
        self,
        content: AsyncIterator[bytes],
        reference: Reference | str | None = None,
        *,
        message: str = "",
        changes: Iterable[str] = (),
        progress: Report = silent,
    ) -> Image:
        """Make an image of one layer from the tar of a root file system, compressed or not.

        `content` is read to its end. `changes` are Dockerfile instructions for the config. When
        the name is taken, its image keeps its digest as its name.

        Raises:
            InvalidArgument: it is not a tar, or a hostile one, or a change is malformed.
            ResourceExhausted: the disk is full.
        """
        name = None if reference is None else _reference(reference)
        if name is not None and name.digest is not None:
            raise InvalidArgument("cannot import digest reference")
        config = changing.apply(RunConfig(), changes)
        importer = importing.Importer(
            self._db, self._content, self._unpacker, self._maker, self.platform
        )
        target = await importer.run(content, name, config=config, message=message, report=progress)
        image = await self._lookup.documents.content(target)
        return await self._lookup.image(image, self._lookup.names_of(target))

    async def save(
        self,
        refs: Iterable[str],
        *,
        platforms: Sequence[Platform] = (),
        kind: ArchiveFormat = ArchiveFormat.DOCKER,
    ) -> AsyncIterator[bytes]:
        """The bytes of an archive of images, given by names or ids; see `images.saving`.

        A name is saved with the image, an id without any, a name without a tag with all its tags.

        Raises:
            ImageNotFound: one of them is not here, or not for one of `platforms`.
            NotFound: a part of one is not here.
        """
        saver = Saver(self._db, self._content, kind)
        chosen: dict[Digest, Saved] = {}
        every = self._lookup.names()
        for ref in [name for given in refs for name in catalog.tags_of(every, given)]:
            content, names, target = await self._lookup.find(ref, None)
            found = [await self._lookup.documents.content(target, one) for one in platforms]
            saved = saver.part(target, found) if found else saver.whole(target, content)
            saved = chosen.setdefault(saved.target.digest, saved)
            wanted = [name.reference for name in names if catalog.is_meant(name, ref)]
            saved.names = list(dict.fromkeys([*saved.names, *wanted]))
        return saver.write(list(chosen.values()))

    async def export(self, ref: str, platform: Platform | None = None) -> AsyncIterator[bytes]:
        """The tar of an image's whole file system, without its config.

        Raises:
            ImageNotFound: there is no such image.
            NotFound: it has no layers.
        """
        image = await self.unpack(ref, platform)
        return self._differ.export(self._snapshotter.directories(image.chain_id))

    async def load(
        self,
        source: AsyncIterator[bytes],
        *,
        platforms: Sequence[Platform] = (),
        progress: Report = silent,
    ) -> Sequence[LoadedImage]:
        """Make images of an archive; see `images.loading` for formats and errors."""
        await self.house.make_room()
        loaded = await self._loader.run(
            source, platforms or (self.platform,), strict=bool(platforms), report=progress
        )
        for image in loaded:
            self._lookup.documents.forget(image.target.digest)
        return [
            LoadedImage(id=image.id, names=tuple(name.familiar() for name in image.names))
            for image in loaded
        ]

    async def shared_sizes(self, images: Iterable[Image]) -> dict[str, int]:
        """Image id -> bytes of its layers that another of the images has too."""
        return await self._lookup.shared_sizes(images)

    async def store_usage(self) -> StoreUsage:
        """What the store takes on the disk, as du counts."""
        return await asyncio.to_thread(measure, self._layout, self._db)

    async def check(self, *, repair: bool = False) -> CheckReport:
        """Look for damage in the store, and mend what can be; see `images.checking`."""
        return await self._checker.run(repair=repair)

    # make

    def lease(self, *, seconds: float = leases.DEADLINE_S) -> AbstractAsyncContextManager[str]:
        """A lease for `commit_layer` and `create_image`: what they make stays for its time."""
        return leases.lease(self._db, seconds=seconds)

    async def changes(self, snapshot: str | Mount) -> Sequence[Change]:
        """What an active snapshot, by its key or as its mount, changes below it; by path.

        Raises:
            NotFound: there is no such snapshot.
            FailedPrecondition: it has no writable directory.
        """
        return await self._differ.changes(self._writable(snapshot))

    async def commit_layer(
        self,
        snapshot: str | Mount,
        *,
        lease: str,
        compression: Compression = Compression.GZIP,
        newest: int | None = None,
        without: Sequence[str] = (),
    ) -> CommittedLayer:
        """Make a layer of what an active snapshot changes; see `Differ.commit`."""
        return await self._differ.commit(
            self._writable(snapshot),
            lease=lease,
            compression=compression,
            newest=newest,
            without=without,
        )

    async def commit_written(
        self, write: Callable[[int], Coroutine[Any, Any, AppliedLayer]], *, lease: str
    ) -> CommittedLayer:
        """Make a layer of what `write` writes to the descriptor that it gets."""
        return await self._differ.commit_written(write, lease=lease)

    async def create_image(
        self,
        config: ImageConfig,
        layers: Sequence[CommittedLayer],
        name: Reference | str | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
        lease: str | None = None,
    ) -> Image:
        """Make an image of layers whose blobs are here, bottom first; their snapshots too.

        The config's diff ids are those of the layers. Without a name its digest keeps it.

        Raises:
            NotFound: a layer's blob is not here.
            InvalidArgument: the name has a digest, or a layer cannot be unpacked.
        """
        reference = None if name is None else _reference(name)
        if reference is not None and reference.digest is not None:
            raise InvalidArgument("create image: a digest cannot be chosen as its name")
        image = NewImage(config=config, layers=layers, annotations=dict(annotations or {}))
        async with AsyncExitStack() as stack:
            held = lease or str(await stack.enter_async_context(self.lease()))
            target, content = await self._maker.make(image, reference, lease=held)
        return await self._lookup.image(content, self._lookup.names_of(target))

    # change

    async def tag(self, source: str, name: Reference | str) -> None:
        """Give an image one more name; a name that is taken moves. Raises as `get`."""
        reference = _reference(name)
        catalog.check_tag(reference)
        _, _, target = await self._lookup.find(source, None)

        def point(conn: Connection) -> bool:
            return catalog.point(conn, reference, target)

        await self._db.write(point)

    async def remove(
        self, ref: str, *, force: bool = False, platforms: Sequence[Platform] = ()
    ) -> Sequence[Removed]:
        """Take a name away, or `platforms` of an image; see `Remover.remove`."""
        return await self._remover.remove(ref, force=force, platforms=platforms)

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Remove images that no container uses: those without a tag, or all with dangling=false.

        Raises:
            InvalidArgument: an unknown filter, or a value that is none.
        """
        rest = {name: values for name, values in (filters or {}).items() if name != "dangling"}
        return await self._remover.prune(await self.list(rest), filters)

    # inside

    def _writable(self, snapshot: str | Mount) -> Mount:
        mount = self._snapshotter.mounts(snapshot) if isinstance(snapshot, str) else snapshot
        if mount["type"] == "overlay" and "upper" not in mount:
            raise FailedPrecondition(f"read snapshot {snapshot}: it is read-only")
        return mount


def _reference(reference: Reference | str) -> Reference:
    if isinstance(reference, str):
        reference = Reference.parse(reference)
    return reference.with_default_tag()
