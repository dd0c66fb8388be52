"""Images in Docker's shape: pure functions from the model of `images/` to bodies.

A `Digest` is made a plain string on the way: the encoder takes no subclasses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from sampan.api.docker import ages
from sampan.wire import distribution
from sampan.wire import hostconfig as wire
from sampan.wire import images as bodies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from msgspec import UnsetType

    from sampan.images.manifests import ManifestState
    from sampan.images.model import HistoryStep, Image, Removed
    from sampan.spec.image import Descriptor, Healthcheck, ImageConfig, RunConfig


_SHELL = "/bin/sh -c "


def summary(image: Image, containers: int = -1, shared: int = -1) -> bodies.ImageSummary:
    """One line of `docker images`."""
    return bodies.ImageSummary(
        containers=containers,
        created=ages.unix_seconds(image.created),
        id=str(image.id),
        labels=dict(image.config.config.labels) or None,
        repo_digests=list(image.digests),
        repo_tags=list(image.names),
        shared_size=shared,
        size=image.size,
        descriptor=descriptor(image.target),
    )


def descriptor(value: Descriptor) -> distribution.Descriptor:
    """What identifies content, in the words of the specification."""
    return distribution.Descriptor(
        media_type=value.media_type,
        digest=str(value.digest),
        size=value.size,
        annotations=value.annotations,
        artifact_type=value.artifact_type,
    )


def manifest(state: ManifestState, users: Mapping[str, Sequence[str]]) -> bodies.ManifestSummary:
    """One manifest of an image; `users` are ids of containers by that of their image."""
    answer = bodies.ManifestSummary(
        id=str(state.descriptor.digest),
        descriptor=descriptor(state.descriptor),
        available=state.is_available,
        size=bodies.ManifestSize(content=state.content, total=state.content + state.unpacked),
        kind="attestation" if state.subject else "image" if state.platform else "unknown",
    )
    if state.subject:
        answer.attestation_data = bodies.AttestationData(subject=state.subject)
    elif state.platform:
        answer.image_data = bodies.ImageData(
            platform=distribution.Platform(
                architecture=state.platform.architecture,
                os=state.platform.os,
                variant=state.platform.variant,
            ),
            size=bodies.UnpackedSize(unpacked=state.unpacked),
            containers=list(users.get(str(state.image_id), ())),
        )
    return answer


def inspect(image: Image, others: Iterable[Image] = ()) -> bodies.ImageInspect:
    """The whole of an image; its parent is looked for among `others`."""
    config = image.config
    history = config.history
    return bodies.ImageInspect(
        id=str(image.id),
        repo_tags=list(image.names),
        repo_digests=list(image.digests),
        parent=parent(image, others) or UNSET,
        comment=(history[-1].comment if history else "") or UNSET,
        created=image.created or UNSET,
        author=config.author or UNSET,
        config=run_config(config.config),
        container_config=_last_step(config),
        architecture=config.architecture,
        variant=config.variant or UNSET,
        os=config.os,
        size=image.size,
        root_fs=bodies.RootFS(layers=[str(diff_id) for diff_id in config.rootfs_diff_ids]),
        descriptor=descriptor(image.target),
    )


def _last_step(config: ImageConfig) -> bodies.ImageConfig:
    """How the container ran that the last step was made in, as old clients look for it: with the
    arguments of the build in front of its command."""
    ran = run_config(config.config)
    text = config.history[-1].created_by if config.history else ""
    count, _, rest = text.removeprefix("RUN ").partition(" ")
    if count.startswith("|") and count[1:].isdigit():
        *arguments, command = rest.split(" ", int(count[1:]))
        words = command.split(" ", 2) if command.startswith(_SHELL) else [command]
        ran.cmd = [count, *arguments, *words]
    return ran


def parent(image: Image, others: Iterable[Image]) -> str:
    """The image that `image` was made of by its last step, "" when it is not here.

    It follows from the documents: the parent has the same history but for the last step, and its
    layers are the first ones.
    """
    history, layers = image.config.history, image.config.rootfs_diff_ids
    for other in others:
        below = other.config.rootfs_diff_ids
        if other.config.history == history[:-1] and layers[: len(below)] == below:
            return str(other.id)
    return ""


def run_config(config: RunConfig) -> bodies.ImageConfig:
    """How containers of the image run; what the image does not say is left out."""
    return bodies.ImageConfig(
        user=config.user or UNSET,
        exposed_ports=_set(config.exposed_ports),
        env=_list(config.env),
        cmd=_list(config.cmd),
        healthcheck=_healthcheck(config.healthcheck) if config.healthcheck else UNSET,
        volumes=_set(config.volumes),
        working_dir=config.working_dir or UNSET,
        entrypoint=_list(config.entrypoint),
        on_build=_list(config.on_build),
        labels=dict(config.labels) or UNSET,
        stop_signal=config.stop_signal or UNSET,
        shell=_list(config.shell),
    )


def _list(values: tuple[str, ...]) -> list[str] | UnsetType:
    return list(values) or UNSET


def _set(values: tuple[str, ...]) -> dict[str, dict[str, object]] | UnsetType:
    return {value: {} for value in values} or UNSET


def _healthcheck(check: Healthcheck) -> wire.Healthcheck:
    return wire.Healthcheck(
        test=list(check.test),
        interval=check.interval or UNSET,
        timeout=check.timeout or UNSET,
        start_period=check.start_period or UNSET,
        start_interval=check.start_interval or UNSET,
        retries=check.retries or UNSET,
    )


def history(steps: Iterable[HistoryStep]) -> list[bodies.HistoryEntry]:
    """The lines of `docker history`, newest first."""
    return [
        bodies.HistoryEntry(
            comment=step.comment,
            created=ages.unix_seconds(step.created),
            created_by=step.created_by,
            id=str(step.id),
            size=step.size,
            tags=list(step.tags) or None,
        )
        for step in steps
    ]


def removed(steps: Iterable[Removed]) -> list[bodies.ImageDeleted]:
    """What a removal did, one member per entry."""
    return [
        bodies.ImageDeleted(untagged=step.untagged or UNSET, deleted=str(step.deleted) or UNSET)
        for step in steps
    ]
