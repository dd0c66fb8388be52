"""What a stage stands on: nothing, another stage, or an image that is here or pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sampan.builder.cache import key_of
from sampan.builder.language.failure import DockerfileError
from sampan.builder.model import NoteKind, State
from sampan.builder.scope import expand
from sampan.errors import ImageNotFound, InvalidArgument
from sampan.images.diffing import CommittedLayer
from sampan.spec.platform import Platform
from sampan.spec.reference import Reference
from sampan.store import leases
from sampan.store.locks import KeyedLocks

if TYPE_CHECKING:
    from sampan.builder.graph import Build
    from sampan.builder.language.stages import Stage
    from sampan.builder.stage import StageWork
    from sampan.images.model import Image
    from sampan.images.progress import Progress
    from sampan.store.database import Connection

SCRATCH = "scratch"


class Bases:
    """The bases of one build; an image is looked for once."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._locks = KeyedLocks()
        self._images: dict[tuple[str, str], Image] = {}

    def resolved(self) -> list[dict[str, Any]]:
        """The images that were used, with their digests."""
        return [
            {
                "uri": f"pkg:docker/{name}",
                "digest": {found.target.digest.algorithm: found.target.digest.hex},
            }
            for (name, _), found in sorted(self._images.items(), key=lambda item: item[0])
        ]

    def name_of(self, stage: Stage) -> str:
        """The expanded name behind FROM.

        Raises:
            DockerfileError: nothing is left of it.
        """
        base = stage.base
        name = expand(base, base.image, self._build.globals.expander().word)
        if not name:
            raise DockerfileError(
                f"base name ({base.image}) should not be blank", base.origin.place
            )
        return name

    def parent_of(self, stage: Stage) -> Stage | None:
        """The stage that a stage goes on from, if it does."""
        name = self.name_of(stage)
        for other in self._build.program.stages[: stage.index]:
            if other.name and other.name == name.lower():
                return other
        return None

    async def state_of(self, stage: Stage, work: StageWork) -> State:
        """The state that a stage begins with."""
        parent = self.parent_of(stage)
        if parent is not None:
            return await self._build.state(parent)
        platform = self._platform(stage)
        name = self.name_of(stage)
        if name == SCRATCH:
            return State(key=key_of("from", SCRATCH), platform=platform)
        return await self.image(name, platform, work)

    def _platform(self, stage: Stage) -> Platform:
        text = expand(stage.base, stage.base.platform, self._build.globals.expander().word)
        return Platform.parse(text) if text else self._build.platform

    async def image(self, name: str, platform: Platform, work: StageWork) -> State:
        """The state that an image is.

        Raises:
            ImageNotFound, Unauthenticated, Unavailable: it is not here and cannot be pulled.
        """
        async with self._locks.hold(name):
            found = self._images.get((name, str(platform)))
            if found is None:
                found = await self._found(name, platform, work)
                self._images[name, str(platform)] = found
        layers = tuple(
            CommittedLayer(descriptor, diff_id)
            for descriptor, diff_id in zip(found.layers, found.config.rootfs_diff_ids, strict=True)
        )
        return State(
            key=key_of("from", found.chain_id, str(platform)),
            platform=found.config.platform,
            config=found.config.config,
            author=found.config.author,
            history=found.config.history,
            image=found.id.hex,
            base=found.chain_id,
            base_layers=layers,
            created=found.config.created,
        )

    async def _found(self, name: str, platform: Platform, work: StageWork) -> Image:
        try:
            Reference.parse(name)
        except InvalidArgument:
            if len(name) < 12 or set(name.removeprefix("sha256:")) - set("0123456789abcdef"):
                raise InvalidArgument(
                    f"failed to parse stage name {name[:200]!r}: invalid reference format"
                ) from None
        images = self._build.engine.images
        image = None
        if not self._build.options.pull:
            image = await self._here(name, platform)
        if image is None:
            image = await self._pulled(name, platform, work)
        if image.chain_id and not self._build.engine.services.snapshots.has(image.chain_id):
            image = await images.unpack(name, platform)
        await self._hold(image)
        return image

    async def _here(self, name: str, platform: Platform) -> Image | None:
        try:
            image = await self._build.engine.images.get(name)
        except ImageNotFound:
            return None
        wanted = self._build.options.platform
        if not wanted or image.config.platform == platform:
            return image
        try:
            return await self._build.engine.images.get(name, platform)
        except ImageNotFound:
            return None

    async def _pulled(self, name: str, platform: Platform, work: StageWork) -> Image:
        def report(step: Progress) -> None:
            work.note(NoteKind.PULLING, progress=step)

        build = self._build
        wanted = platform if build.options.platform or work.stage.base.platform else None
        return await build.engine.images.pull(
            name, platform=wanted, auth=build.options.credentials(name), progress=report
        )

    async def _hold(self, image: Image) -> None:
        """Nobody may collect a base while something is built on it."""

        def hold(conn: Connection) -> None:
            if image.chain_id:
                leases.hold(conn, self._build.lease, "snapshot", (image.chain_id,))
            digests = [str(layer.digest) for layer in image.layers]
            leases.hold(conn, self._build.lease, "blob", digests)

        await self._build.engine.services.db.write(hold)
