"""The images room's front: every use-case on images of one store.

list, get (inspect), history, tag, remove, prune here; pull, push and import pass through to their
files. The engine makes one `ImageService` and closes it; `users` tells it which containers use
which image, because containers are the engine's. Removing takes names away; blobs and snapshots
follow when the collector finds that nothing needs them.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import Conflict, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from sampan.images import catalog, importing, push
from sampan.images import changes as changing
from sampan.images import filters as filtering
from sampan.images.creating import ImageMaker, NewImage
from sampan.images.diffing import Differ
from sampan.images.documents import Documents
from sampan.images.model import Content, HistoryStep, Image, Pruned, Removed
from sampan.images.progress import Report, silent
from sampan.images.pull import Puller
from sampan.images.unpack import Unpacker
from sampan.layers.compression import Compression
from sampan.spec.digest import chain_ids
from sampan.spec.image import RunConfig
from sampan.spec.platform import Platform
from sampan.spec.reference import Reference
from sampan.store import images, leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sampan.images.catalog import Name
    from sampan.images.diffing import Change, CommittedLayer
    from sampan.images.filters import Filters
    from sampan.layers.workers import LayerWorkers
    from sampan.registry.client import Registry
    from sampan.registry.credentials import Credentials
    from sampan.snapshots.base import Mount, Snapshotter
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor, ImageConfig
    from sampan.store.content import ContentStore
    from sampan.store.database import Connection, Database

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUser:
    """A container that was made of an image. `image` is the image's id."""

    container: str
    image: str
    running: bool


class ImageService:
    """Images of one store. Belongs to one event loop."""

    def __init__(
        self,
        *,
        db: Database,
        content: ContentStore,
        snapshotter: Snapshotter,
        workers: LayerWorkers,
        registry: Registry,
        collect: Callable[[], Awaitable[object]],
        users: Callable[[], Iterable[ImageUser]] = tuple,
        platform: Platform | None = None,
    ) -> None:
        """`collect` runs the collector; `users` gives the containers of the moment."""
        self.platform = platform or Platform.host()
        self._db = db
        self._content = content
        self._snapshotter = snapshotter
        self._registry = registry
        self._collect = collect
        self._users = users
        self._sizes: dict[Digest, int] = {}
        self._documents = Documents(content, self.platform)
        self._unpacker = Unpacker(db, content, snapshotter, workers)
        self._puller = Puller(db, content, self._unpacker, registry)
        self._maker = ImageMaker(db, content, self._puller)
        self._differ = Differ(content, workers)

    async def aclose(self) -> None:
        """Close the connections to registries. Call it when no operation runs any more."""
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
        return filtering.chosen(await self._all(), filters, known.__getitem__)

    async def _all(self) -> Sequence[Image]:
        by_id: dict[Digest, tuple[Content, dict[Name, None]]] = {}
        for name in self._names():
            content = await self._readable(name)
            if content is None:
                continue
            by_id.setdefault(content.id, (content, {}))[1][name] = None
        found = [await self._image(content, names) for content, names in by_id.values()]
        return sorted(found, key=lambda image: image.created, reverse=True)

    async def get(self, ref: str, platform: Platform | None = None) -> Image:
        """The image that a reference, an id or the beginning of one means.

        Raises:
            ImageNotFound: there is none, or it is not here for `platform`.
            InvalidArgument: the beginning of an id is ambiguous.
        """
        content, names, _ = await self._find(ref, platform)
        return await self._image(content, names)

    async def inspect(self, ref: str) -> Image:
        """The same as `get`, by the name that APIs use."""
        return await self.get(ref)

    async def unpack(self, ref: str, platform: Platform | None = None) -> Image:
        """See to it that the snapshots of an image are there, from its blobs; the image.

        They are, after a pull. A power failure may have taken them.

        Raises:
            ImageNotFound: there is no such image.
            NotFound: a blob of it is not here either.
        """
        content, names, _ = await self._find(ref, platform)
        await self._puller.unpack(content)
        return await self._image(content, names)

    async def history(self, ref: str) -> Sequence[HistoryStep]:
        """How an image was made, newest step first. Raises as `get`."""
        image = await self.get(ref)
        sizes = iter(await self._layer_sizes(image.config.rootfs_diff_ids))
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
        auth: Credentials | None = None,
        progress: Report = silent,
    ) -> Image:
        """Bring an image here from its registry; see `Puller.pull` for what it raises."""
        reference = _reference(reference)
        target, _ = await self._puller.pull(
            reference,
            platform or self.platform,
            strict=platform is not None,
            credentials=auth,
            report=progress,
        )
        self._documents.forget(target.digest)
        content = await self._documents.content(target, platform)
        return await self._image(content, self._names_of(target))

    async def push(
        self,
        reference: Reference | str,
        *,
        auth: Credentials | None = None,
        progress: Report = silent,
    ) -> Digest:
        """Send the image of that name to its registry; the digest that it has there.

        Raises:
            ImageNotFound: no image has the name.
            NotFound: a part of it is not here, because it was never pulled for this platform.
            Unauthenticated, PermissionDenied, Unavailable: the registry refuses or fails.
        """
        reference = _reference(reference)
        content, _, _ = await self._find(str(reference), None)
        repository = self._registry.repository(reference, auth)
        pusher = push.Pusher(self._content, repository, progress)
        return await pusher.push(reference, content)

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
        image = await self._documents.content(target)
        return await self._image(image, self._names_of(target))

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
    ) -> CommittedLayer:
        """Make a layer of what an active snapshot changes; see `Differ.commit`."""
        return await self._differ.commit(
            self._writable(snapshot), lease=lease, compression=compression, newest=newest
        )

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
        return await self._image(content, self._names_of(target))

    # change

    async def tag(self, source: str, name: Reference | str) -> None:
        """Give an image one more name; a name that is taken moves. Raises as `get`."""
        reference = _reference(name)
        if reference.digest is not None:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        _, _, target = await self._find(source, None)

        def point(conn: Connection) -> bool:
            return catalog.point(conn, reference, target)

        await self._db.write(point)

    async def remove(self, ref: str, *, force: bool = False) -> Sequence[Removed]:
        """Take a name away; with its last tag the image goes too. An id takes every name.

        Raises:
            ImageNotFound: there is no such image.
            Conflict: a container uses it, or an id has several names, and `force` is not given;
            or a running container uses it.
        """
        damaged = catalog.find(self._names(), ref)
        if damaged is not None and await self._readable(damaged) is None:
            return await self._untag([damaged])
        content, names, target = await self._find(ref, None)
        chosen = self._chosen(ref, names)
        if any(name.tagged for name in names if name not in chosen):
            return await self._untag(chosen)
        if len({n.reference.name for n in chosen if n.tagged}) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {content.id.short} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        self._check_unused(content.id, ref, force=force)
        removed = await self._untag(names)
        self._documents.forget(target.digest)
        await self._collect()
        return [*removed, Removed(deleted=content.id)]

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Remove images that no container uses: those without a tag, or all with dangling=false.

        Raises:
            InvalidArgument: an unknown filter, or a value that is none.
        """
        every = not filtering.flag(filters, "dangling", default=True)
        rest = {name: values for name, values in (filters or {}).items() if name != "dangling"}
        used = {user.image for user in self._users()}
        removed: tuple[Removed, ...] = ()
        reclaimed = 0
        for image in await self.list(rest):
            if image.id in used or (image.names and not every):
                continue
            names = [name for name in self._names() if await self._is(name, image.id)]
            removed = (*removed, *await self._untag(names), Removed(deleted=image.id))
            reclaimed += image.size
            for name in names:
                self._documents.forget(name.target.digest)
        await self._collect()
        return Pruned(removed=removed, reclaimed=reclaimed)

    # inside

    def _writable(self, snapshot: str | Mount) -> Mount:
        mount = self._snapshotter.mounts(snapshot) if isinstance(snapshot, str) else snapshot
        if mount["type"] == "overlay" and "upper" not in mount:
            raise FailedPrecondition(f"read snapshot {snapshot}: it is read-only")
        return mount

    def _names(self) -> Sequence[Name]:
        return self._db.read_now(catalog.names)

    def _names_of(self, target: Descriptor) -> Sequence[Name]:
        return [name for name in self._names() if name.target.digest == target.digest]

    async def _is(self, name: Name, image_id: Digest) -> bool:
        content = self._documents.known(name.target.digest) or await self._readable(name)
        return content is not None and content.id == image_id

    async def _readable(self, name: Name) -> Content | None:
        """The content of a name; None when it is damaged, which must not hide the other images."""
        try:
            return await self._documents.content(name.target)
        except (DataLoss, InvalidArgument, NotFound) as error:
            _log.warning("read image %s: %s", name.reference, error)
            return None

    async def _find(
        self, ref: str, platform: Platform | None
    ) -> tuple[Content, Sequence[Name], Descriptor]:
        """The content of an image, all its names, and its target."""
        every = self._names()
        found = catalog.find(every, ref)
        if found is not None:
            content = await self._documents.content(found.target, platform)
            return (
                content,
                [n for n in every if await self._is(n, content.id)] or [found],
                found.target,
            )
        contents = {name: await self._readable(name) for name in every}
        image_id = catalog.find_id((c.id for c in contents.values() if c), ref)
        for name, image in contents.items():
            if image is not None and image.id == image_id:
                return image, [n for n in every if await self._is(n, image.id)], name.target
        raise catalog.no_such_image(ref)

    async def _image(self, content: Content, names: Iterable[Name]) -> Image:
        names = list(names)
        chain = chain_ids(content.config.rootfs_diff_ids)
        sizes = await self._layer_sizes(content.config.rootfs_diff_ids)
        return Image(
            id=content.id,
            names=tuple(name.reference.familiar() for name in names if name.tagged),
            digests=tuple(sorted({name.at_digest() for name in names})),
            config=content.config,
            created=content.config.created or "",
            size=sum(sizes),
            chain_id=chain[-1] if chain else "",
            layers=content.manifest.layers,
            target=names[0].target if names else content.manifest_descriptor,
        )

    async def _layer_sizes(self, diff_ids: tuple[Digest, ...]) -> Sequence[int]:
        return [await self._layer_size(chain_id) for chain_id in chain_ids(diff_ids)]

    async def _layer_size(self, chain_id: Digest) -> int:
        """Bytes on disk, remembered: a committed snapshot does not change."""
        if chain_id not in self._sizes:
            try:
                self._sizes[chain_id] = (await self._snapshotter.usage(chain_id)).size
            except NotFound:
                return 0  # lost in a power failure, until it is unpacked again
        return self._sizes[chain_id]

    def _chosen(self, ref: str, names: Sequence[Name]) -> Sequence[Name]:
        """The names that `ref` means: itself when it is a tag, else all of them."""
        found = catalog.find(names, ref)
        return [found] if found is not None and found.tagged else names

    async def _untag(self, names: Iterable[Name]) -> Sequence[Removed]:
        gone = list(names)

        def delete(conn: Connection) -> None:
            for name in gone:
                images.delete(conn, str(name.reference))

        await self._db.write(delete)
        return [Removed(untagged=name.reference.familiar()) for name in gone]

    def _check_unused(self, image_id: Digest, ref: str, *, force: bool) -> None:
        for user in self._users():
            if user.image != image_id:
                continue
            if user.running:
                raise Conflict(
                    f"conflict: unable to delete {image_id.short} (cannot be forced) - "
                    f"image is being used by running container {user.container[:12]}"
                )
            if not force:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{ref}" (must force) - '
                    f"container {user.container[:12]} is using its referenced image "
                    f"{image_id.short}"
                )


def _reference(reference: Reference | str) -> Reference:
    if isinstance(reference, str):
        reference = Reference.parse(reference)
    return reference.with_default_tag()
