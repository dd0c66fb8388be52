"""GET /system/df: what images, containers, volumes and the builds' cache take.

Clients before 1.52 get everything there is as lists; newer ones get sums of each kind, and the
lists where they ask for all words. In between stand those that ask for no version, or do not know
the sums yet: without `verbose` both are there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import UNSET

from sampan.api.docker import answers, pictures, versions, volumes
from sampan.api.docker.listing import measured
from sampan.errors import InvalidArgument
from sampan.wire import system as bodies

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.store.usage import StoreUsage
    from sampan.wire.build import CacheRecord
    from sampan.wire.containers import ContainerSummary
    from sampan.wire.images import ImageSummary
    from sampan.wire.volumes import Volume

_KINDS = ("container", "image", "volume", "build-cache")


async def disk_usage(call: Call) -> StreamResponse:
    """GET /system/df?type&verbose"""
    wanted = call.values("type") if call.minor >= versions.DF_BY_TYPE else []
    wanted = wanted or list(_KINDS)
    if unknown := [kind for kind in wanted if kind not in _KINDS]:
        raise InvalidArgument(f"unknown object type: {unknown[0]}")
    answer = bodies.DiskUsage()
    if "image" in wanted:
        taken = await call.engine.images.store_usage()
        answer.layers_size = taken.layers + taken.blobs
        answer.store = store_usage(taken)
        answer.images = await _images(call)
    if "container" in wanted:
        answer.containers = await measured(call, call.engine.list(all=True))
    if "volume" in wanted:
        answer.volumes = await volumes.usage(call)
    if "build-cache" in wanted:
        from sampan.api.docker import build

        answer.build_cache = await build.usage(call)
    return answers.json(_shaped(answer, call))


async def _images(call: Call) -> list[ImageSummary]:
    images = await call.engine.images.list()
    shared = await call.engine.images.shared_sizes(images)
    users = Counter(container.image_id for container in call.engine.list(all=True))
    found = [pictures.summary(image, users[image.id], shared[image.id]) for image in images]
    for one in found:
        versions.image_summary(one, call.minor)
        one.containers = users[one.id]
    return found


def _shaped(answer: bodies.DiskUsage, call: Call) -> bodies.DiskUsage:
    """The answer for the version, and the words, that are asked for."""
    if call.minor < versions.DF_IN_SUMS:
        return _with_nulls(answer)
    verbose = call.flag("verbose")
    sums = bodies.DiskUsage(store=answer.store) if verbose else answer
    if answer.images:
        sums.image_usage = _of_images(answer.images, answer.layers_size or 0)
    if answer.containers:
        sums.container_usage = _of_containers(answer.containers)
    if answer.volumes:
        sums.volume_usage = _of_volumes(answer.volumes)
    if answer.build_cache:
        sums.build_cache_usage = _of_cache(answer.build_cache)
    if verbose:
        _itemise(sums, answer)
    return sums


def _with_nulls(answer: bodies.DiskUsage) -> bodies.DiskUsage:
    """What is not asked for is null, or no bytes."""
    answer.layers_size = answer.layers_size or 0
    for name in ("images", "containers", "volumes", "build_cache"):
        if getattr(answer, name) is UNSET:
            setattr(answer, name, None)
    return answer


def _itemise(sums: bodies.DiskUsage, answer: bodies.DiskUsage) -> None:
    for part, items in (
        (sums.image_usage, answer.images),
        (sums.container_usage, answer.containers),
        (sums.volume_usage, answer.volumes),
        (sums.build_cache_usage, answer.build_cache),
    ):
        if part:
            part.items = items  # type: ignore[assignment]


def _of_images(images: list[ImageSummary], taken: int) -> bodies.ImageUsage:
    used = [one for one in images if one.containers > 0]
    return bodies.ImageUsage(
        active_count=len(used),
        reclaimable=max(0, taken - sum(one.size - max(0, one.shared_size) for one in used)),
        total_count=len(images),
        total_size=taken,
    )


def _of_containers(containers: list[ContainerSummary]) -> bodies.ContainerUsage:
    active = [one for one in containers if one.state in ("running", "paused", "restarting")]
    total = sum(one.size_rw or 0 for one in containers)
    return bodies.ContainerUsage(
        active_count=len(active),
        reclaimable=total - sum(one.size_rw or 0 for one in active),
        total_count=len(containers),
        total_size=total,
    )


def _of_volumes(found: list[Volume]) -> bodies.VolumeUsage:
    figures = [one.usage_data for one in found if one.usage_data]
    free = sum(max(0, one.size) for one in figures if not one.ref_count)
    return bodies.VolumeUsage(
        active_count=sum(one.ref_count > 0 for one in figures),
        reclaimable=free,
        total_count=len(found),
        total_size=sum(max(0, one.size) for one in figures),
    )


def _of_cache(records: list[CacheRecord]) -> bodies.CacheUsage:
    own = sum(one.size for one in records if not one.shared)
    return bodies.CacheUsage(
        active_count=sum(one.in_use for one in records),
        reclaimable=own - sum(one.size for one in records if one.in_use and not one.shared),
        total_count=len(records),
        total_size=own,
    )


def store_usage(taken: StoreUsage) -> bodies.StoreUsage:
    """What the store takes, in the words of the answer."""
    return bodies.StoreUsage(
        total=taken.total,
        blobs=taken.blobs,
        layers=taken.layers,
        writable=taken.writable,
        logs=taken.logs,
        volumes=taken.volumes,
        database=taken.database,
        other=taken.other,
    )


PATHS = {("GET", "/system/df"): disk_usage}
