"""What a container changed, as a list and as an image.

A commit freezes the container while its files are read, unless told not to, so that the layer is
one moment of it. The image runs as the container did; the changes of the request come on top.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sampan.engine.model import Status
from sampan.engine.remove import wait_for_end
from sampan.engine.start import root_mount
from sampan.errors import Conflict, FailedPrecondition
from sampan.images import changes as instructions
from sampan.images.diffing import Change, ChangeKind, CommittedLayer
from sampan.layers.compression import Compression
from sampan.spec.image import Healthcheck, History, ImageConfig, RunConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.engine.containers import Entry
    from sampan.engine.lifecycle import Lifecycle
    from sampan.engine.model import Container, HealthCheck
    from sampan.engine.services import Services
    from sampan.images.model import Image

# Mount points that the runtime makes where the image has none. dockerd hides its own the same way.
_OURS: Final = frozenset(
    (
        "/.dockerenv",
        "/dev",
        "/dev/console",
        "/dev/mqueue",
        "/dev/pts",
        "/dev/shm",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/proc",
        "/sys",
    )
)


_POINTS: Final = sorted(path[1:] for path in _OURS)
_ENDING_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """How to commit. `run` None means: as the container runs; `changes` are Dockerfile lines."""

    name: str | None = None
    author: str = ""
    comment: str = ""
    changes: Sequence[str] = ()
    pause: bool = True
    run: RunConfig | None = None


class Committer:
    """Reads what containers changed."""

    def __init__(self, services: Services, lifecycle: Lifecycle) -> None:
        self._services = services
        self._lifecycle = lifecycle

    async def changes(self, entry: Entry) -> list[Change]:
        """The paths that the container changed, sorted; the mount points of ours left out."""
        mount = entry.mount or root_mount(entry.container, self._services)
        return visible(await self._services.images.changes(mount))

    async def commit(self, entry: Entry, request: CommitRequest) -> Image:
        """Make an image of the container's files.

        Raises:
            FailedPrecondition: the container was not made of an image.
            InvalidArgument: a change or the name is wrong.
        """
        container, images = entry.container, self._services.images
        if not container.image_id:
            raise FailedPrecondition(
                f"commit container {container.name}: it runs a directory and has no image below it"
            )
        base = await images.get(container.image_id)
        run = instructions.apply(request.run or run_config(container), request.changes)
        below = [
            CommittedLayer(descriptor, diff_id)
            for descriptor, diff_id in zip(base.layers, base.config.rootfs_diff_ids, strict=True)
        ]
        mount = entry.mount or root_mount(container, self._services)
        async with images.lease() as lease:
            frozen = request.pause and await self._freeze(entry)
            try:
                layer = await images.commit_layer(mount, lease=lease, without=_POINTS)
            finally:
                if frozen:
                    await self._thaw(entry)
            config = _config(base.config, run, container, request)
            made = await images.create_image(config, [*below, layer], request.name, lease=lease)
        self._services.containers.emit(
            entry, "commit", comment=request.comment, imageID=str(made.id), imageRef=_ref(request)
        )
        return made

    async def write_difference(self, entry: Entry, path: str) -> None:
        """Write what the container changed as the tar of a layer, to the new file `path`, which is
        on the file system of the engine's root."""
        services = self._services
        mount = entry.mount or root_mount(entry.container, services)
        async with services.images.lease() as lease:
            layer = await services.images.commit_layer(
                mount, lease=lease, compression=Compression.NONE, without=_POINTS
            )
            os.link(services.layout.blob(str(layer.descriptor.digest)), path)

    async def _freeze(self, entry: Entry) -> bool:
        """Pause a container that runs; False when there is nothing to pause, or no longer."""
        if entry.container.status is not Status.RUNNING:
            return False
        try:
            await self._lifecycle.pause(entry)
        except Conflict:
            # It ends at this moment: its cgroup is gone, and the word of its end is on the way.
            await wait_for_end(entry, _ENDING_SECONDS)
            return False
        except FailedPrecondition:
            return False  # the engine of an ordinary user can pause nothing
        return True

    async def _thaw(self, entry: Entry) -> None:
        if entry.container.status is not Status.PAUSED:
            return  # it was killed meanwhile
        try:
            await self._lifecycle.unpause(entry)
        except Conflict:
            await wait_for_end(entry, _ENDING_SECONDS)  # it was at its end when it was frozen


def visible(found: Sequence[Change]) -> list[Change]:
    """`found` without our mount points, and without directories that only they changed."""
    kept = [c for c in found if c.kind is not ChangeKind.ADDED or c.path not in _OURS]
    if len(kept) == len(found):
        return kept
    touched = {c.path.rpartition("/")[0] for c in found if c not in kept}
    alive = {c.path.rpartition("/")[0] for c in kept}
    return [
        c
        for c in kept
        if c.kind is not ChangeKind.MODIFIED or c.path not in touched or c.path in alive
    ]


def _healthcheck(check: HealthCheck | None) -> Healthcheck | None:
    """The container's check, when it has one of its own or merged with the image's."""
    if check is None or not check.test:
        return None
    return Healthcheck(
        test=check.test,
        interval=check.interval,
        timeout=check.timeout,
        start_period=check.start_period,
        start_interval=check.start_interval,
        retries=check.retries,
    )


def run_config(container: Container) -> RunConfig:
    """How the container runs, in the words of an image."""
    config = container.config
    return RunConfig(
        user=config.user,
        env=tuple(entry for entry in config.env if "=" in entry),
        entrypoint=config.entrypoint or (),
        cmd=config.command or (),
        working_dir=config.cwd,
        exposed_ports=config.exposed_ports,
        volumes=config.volumes,
        labels={**container.image_labels, **config.labels},
        healthcheck=_healthcheck(config.healthcheck),
        stop_signal=config.stop_signal if config.stop_signal not in ("", "SIGTERM") else None,
    )


def _config(
    base: ImageConfig, run: RunConfig, container: Container, request: CommitRequest
) -> ImageConfig:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    command = " ".join([container.path, *container.args])
    step = History(created=now, created_by=command, author=request.author, comment=request.comment)
    inherited = base.config
    run = replace(
        run,
        shell=run.shell or inherited.shell,
        healthcheck=run.healthcheck or inherited.healthcheck,
        on_build=run.on_build or inherited.on_build,
    )
    return replace(
        base, created=now, author=request.author, config=run, history=(*base.history, step)
    )


def _ref(request: CommitRequest) -> str:
    return request.name or ""
