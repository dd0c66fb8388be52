"""Images as the engine gives them: the image service, and the events that clients expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sampan.engine.events import make
from sampan.errors import SampanError
from sampan.images.progress import Report, silent
from sampan.images.retention import Policy
from sampan.images.saving import ArchiveFormat
from sampan.layers.compression import Compression
from sampan.spec.reference import Reference

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sampan.engine.events import Events
    from sampan.images.checking import Report as CheckReport
    from sampan.images.diffing import Change, CommittedLayer
    from sampan.images.housekeeping import Collected
    from sampan.images.manifests import Manifests
    from sampan.images.model import HistoryStep, Image, LoadedImage, Pruned, Removed
    from sampan.images.policy import Policy as TrustPolicy
    from sampan.images.remote import Remote
    from sampan.images.service import ImageService
    from sampan.images.trust import Verdict
    from sampan.layers.applied import AppliedLayer
    from sampan.registry.credentials import Credentials
    from sampan.snapshots.base import Mount
    from sampan.spec.digest import Digest
    from sampan.spec.image import Descriptor, ImageConfig
    from sampan.spec.platform import Platform
    from sampan.store.content import ContentStore
    from sampan.store.usage import StoreUsage


class Images:
    """Every use-case of `ImageService`; see there for what each does and raises."""

    def __init__(self, service: ImageService, events: Events) -> None:
        self._service = service
        self._events = events

    @property
    def platform(self) -> Platform:
        """The platform of this host."""
        return self._service.platform

    async def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[Image]:
        """The images that pass the filters, newest first."""
        return await self._service.list(filters)

    async def get(self, ref: str, platform: Platform | None = None) -> Image:
        """The image of a reference or an id."""
        return await self._service.get(ref, platform)

    async def ids(self, refs: Iterable[str]) -> Mapping[str, Digest | None]:
        """Reference -> the id of the image that it leads to now, or None."""
        return await self._service.ids(refs)

    @property
    def manifests(self) -> Manifests:
        """What indexes have."""
        return self._service.manifests

    async def unpack(self, ref: str, platform: Platform | None = None) -> Image:
        """See to it that an image's snapshots are there."""
        return await self._service.unpack(ref, platform)

    async def history(self, ref: str, platform: Platform | None = None) -> Sequence[HistoryStep]:
        """How an image was made, newest step first."""
        return await self._service.history(ref, platform)

    async def pull(
        self,
        reference: Reference | str,
        *,
        platform: Platform | None = None,
        every_platform: bool = False,
        auth: Credentials | None = None,
        progress: Report = silent,
    ) -> Image:
        """Bring an image here from its registry."""
        image = await self._service.pull(
            reference,
            platform=platform,
            every_platform=every_platform,
            auth=auth,
            progress=progress,
        )
        await self._tell("pull", _name(reference), _name(reference))
        return image

    async def push(
        self,
        reference: Reference | str,
        *,
        platform: Platform | None = None,
        auth: Credentials | None = None,
        progress: Report = silent,
    ) -> Digest:
        """Send an image to its registry."""
        digest = await self._service.push(
            reference, platform=platform, auth=auth, progress=progress
        )
        await self._tell("push", _name(reference), _name(reference))
        return digest

    async def copy(
        self,
        source: str,
        destination: str,
        *,
        auth: Credentials | None = None,
        destination_auth: Credentials | None = None,
        progress: Report = silent,
    ) -> Digest:
        """Copy an image from one registry to another."""
        return await self._service.copy(
            source,
            destination,
            auth=auth,
            destination_auth=destination_auth,
            progress=progress,
        )

    async def login(self, server: str, credentials: Credentials) -> str:
        """Show credentials to a registry; the token to keep instead of the password, or ""."""
        return await self._service.login(server, credentials)

    async def verify(
        self,
        reference: Reference | str,
        *,
        keys: Sequence[bytes] = (),
        platform: Platform | None = None,
        auth: Credentials | None = None,
    ) -> Verdict:
        """Whether the policy, or one of the keys, vouches for what a registry has."""
        return await self._service.verify(reference, keys=keys, platform=platform, auth=auth)

    def policy(self) -> TrustPolicy:
        """The trust policy of the moment."""
        return self._service.trust.policy()

    def remote(self, reference: Reference | str, auth: Credentials | None = None) -> Remote:
        """The repository of a reference at its registry, to look at."""
        return self._service.remote(reference, auth)

    async def import_tar(
        self,
        content: AsyncIterator[bytes],
        reference: Reference | str | None = None,
        *,
        message: str = "",
        changes: Iterable[str] = (),
        progress: Report = silent,
    ) -> Image:
        """Make an image of a root file system's tar."""
        image = await self._service.import_tar(
            content, reference, message=message, changes=changes, progress=progress
        )
        await self._tell("import", image.id, image.id)
        return image

    async def save(
        self,
        refs: Iterable[str],
        *,
        platforms: Sequence[Platform] = (),
        kind: ArchiveFormat = ArchiveFormat.DOCKER,
    ) -> AsyncIterator[bytes]:
        """The bytes of an archive of images; errors come before the first of them."""
        refs = tuple(refs)
        pieces = await self._service.save(refs, platforms=platforms, kind=kind)
        for ref in refs:
            await self._tell("save", (await self._service.get(ref)).id, ref)
        return pieces

    async def export(self, ref: str, platform: Platform | None = None) -> AsyncIterator[bytes]:
        """The tar of an image's whole file system."""
        return await self._service.export(ref, platform)

    async def load(
        self,
        source: AsyncIterator[bytes],
        *,
        platforms: Sequence[Platform] = (),
        progress: Report = silent,
    ) -> Sequence[LoadedImage]:
        """Make images of an archive."""
        loaded = await self._service.load(source, platforms=platforms, progress=progress)
        for image in loaded:
            await self._tell("load", image.id, image.names[0] if image.names else image.id)
        return loaded

    def lease(self) -> AbstractAsyncContextManager[str]:
        """A lease that keeps what `commit_layer` makes until an image has it."""
        return self._service.lease()

    async def changes(self, snapshot: str | Mount) -> Sequence[Change]:
        """What an active snapshot changes below it."""
        return await self._service.changes(snapshot)

    async def commit_layer(
        self,
        snapshot: str | Mount,
        *,
        lease: str,
        compression: Compression = Compression.GZIP,
        newest: int | None = None,
        without: Sequence[str] = (),
    ) -> CommittedLayer:
        """Make a layer of what an active snapshot changes."""
        return await self._service.commit_layer(
            snapshot, lease=lease, compression=compression, newest=newest, without=without
        )

    async def commit_written(
        self, write: Callable[[int], Coroutine[Any, Any, AppliedLayer]], *, lease: str
    ) -> CommittedLayer:
        """Make a layer of what `write` writes to the descriptor that it gets."""
        return await self._service.commit_written(write, lease=lease)

    async def create_image(
        self,
        config: ImageConfig,
        layers: Sequence[CommittedLayer],
        name: Reference | str | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
        lease: str | None = None,
    ) -> Image:
        """Make an image of layers whose blobs are here."""
        image = await self._service.create_image(
            config, layers, name, annotations=annotations, lease=lease
        )
        if name is None:
            await self._tell("create", image.id, image.id)
        else:
            await self._tell("tag", image.id, _name(name))
        return image

    async def create_index(
        self, images: Sequence[Image], names: Sequence[Reference], *, lease: str
    ) -> Descriptor:
        """Make an index of images for several platforms."""
        made = await self._service.create_index(images, names, lease)
        for name in names:
            await self._tell("tag", images[0].id, _name(name))
        return made

    async def tag(self, source: str, name: Reference | str) -> None:
        """Give an image one more name."""
        await self._service.tag(source, name)
        image = await self._service.get(source)
        await self._tell("tag", image.id, _name(name))

    async def remove(
        self, ref: str, *, force: bool = False, platforms: Sequence[Platform] = ()
    ) -> Sequence[Removed]:
        """Take a name away, or an image, or some of its platforms."""
        image = await self._service.get(ref)
        removed = await self._service.remove(ref, force=force, platforms=platforms)
        await self._tell_removed(removed, image.id)
        return removed

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> Pruned:
        """Remove images that nothing uses."""
        pruned = await self._service.prune(filters)
        await self._tell_removed(pruned.removed, "")
        await self._events.emit("image", "prune", "", reclaimed=str(pruned.reclaimed))
        return pruned

    # for clients that take the steps of a pull themselves

    @property
    def content(self) -> ContentStore:
        """The blobs."""
        return self._service.steps.content

    async def apply(
        self, layer: Descriptor, directory: str, lowers: Sequence[str] = ()
    ) -> AppliedLayer:
        """Unpack a layer's blob into a snapshot's directory: see `Unpacker.apply`."""
        return await self._service.steps.unpacker.apply(layer, directory, lowers)

    async def apply_file(self, file: int, directory: str, lowers: Sequence[str] = ()) -> None:
        """Unpack a layer in an open file: see `Unpacker.apply_file`."""
        await self._service.steps.unpacker.apply_file(file, directory, lowers)

    async def take_apart(self, file: int, directory: str) -> None:
        """Take an archive of files apart: see `Unpacker.take_apart`."""
        await self._service.steps.unpacker.take_apart(file, directory)

    async def name(self, reference: Reference, target: Descriptor, *, move: bool) -> None:
        """Make a name lead to content that is here: see `Namer.name`."""
        await self._service.steps.name(reference, target, move=move)
        await self._tell("tag", str(target.digest), reference.familiar())

    async def unname(self, name: str) -> None:
        """Take a stored name away, whoever uses the image; its content goes if nothing has it.

        Raises:
            ImageNotFound: there is no such name.
        """
        row = await self._service.steps.unname(name)
        await self._tell("untag", str(row.target.digest), name)
        await self._service.house.run(Policy())  # without a policy: only what nothing needs

    def use(self, image_id: str) -> None:
        """Note that a container was made of an image."""
        self._service.house.use(image_id)

    async def collect(self, policy: Policy | None = None) -> Collected:
        """Collect now, by a policy or that of the configuration."""
        done = await self._service.house.run(policy)
        await self._tell_removed(done.removed, "")
        return done

    @property
    def has_policy(self) -> bool:
        """Whether the configuration says what may be collected unasked."""
        return self._service.house.has_policy

    async def keep_house(self) -> None:
        """Collect from time to time, for ever, when the configuration has a policy."""
        await self._service.house.keep_house()

    async def check(self, *, repair: bool = False) -> CheckReport:
        """Look for damage in the store, and mend what can be."""
        return await self._service.check(repair=repair)

    async def shared_sizes(self, images: Iterable[Image]) -> dict[str, int]:
        """Image id -> bytes of its layers that another of the images has too."""
        return await self._service.shared_sizes(images)

    async def store_usage(self) -> StoreUsage:
        """What the store takes on the disk."""
        return await self._service.store_usage()

    async def aclose(self) -> None:
        """Close the connections to registries."""
        await self._service.aclose()

    async def _tell_removed(
        self, removed: builtins.list[Removed] | Sequence[Removed], image_id: str
    ) -> None:
        for step in removed:
            if step.untagged:
                actor = image_id or step.untagged
                await self._tell("untag", actor, actor)
            if step.deleted:
                await self._tell("delete", step.deleted, step.deleted)

    async def _tell(self, action: str, actor: str, name: str) -> None:
        """Emit an event with the image's labels, by which clients filter, as long as it is here."""
        try:
            labels: Mapping[str, str] = (await self._service.get(actor)).config.config.labels
        except SampanError:
            labels = {}
        await self._events.store([make("image", action, actor, {**labels, "name": name})])


def _name(reference: Reference | str) -> str:
    return (Reference.parse(reference) if isinstance(reference, str) else reference).familiar()
