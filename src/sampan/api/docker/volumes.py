"""/volumes/*: one function per endpoint, each a translation around one call of the engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from sampan.api.docker import ages, answers, versions
from sampan.api.docker.images import parts
from sampan.wire import volumes as wire

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.volumes.local import Volume

_decode_create = msgspec.json.Decoder(wire.VolumeCreate)


def volume(value: Volume, usage: wire.UsageData | None = None) -> wire.Volume:
    """A volume in Docker's shape; its time without a fraction, as dockerd has it."""
    return wire.Volume(
        created_at=ages.rfc3339(value.created_at // ages.SECOND * ages.SECOND),
        labels=dict(value.labels) or None,
        mountpoint=value.path,
        name=value.name,
        options=dict(value.options) or None,
        usage_data=UNSET if usage is None else usage,
    )


async def create(call: Call) -> StreamResponse:
    """POST /volumes/create"""
    body = await call.needed_json(_decode_create)
    made = await call.engine.volumes.create(
        body.name or "", driver=body.driver or "", labels=body.labels, options=body.driver_opts
    )
    return answers.json(volume(made), 201)


async def listing(call: Call) -> StreamResponse:
    """GET /volumes?filters"""
    found = call.engine.volumes.list(call.filters())
    return answers.json(wire.VolumeList(volumes=[volume(one) for one in found]))


async def inspect(call: Call) -> StreamResponse:
    """GET /volumes/{name}"""
    return answers.json(volume(call.engine.volumes.get(call.name)))


async def remove(call: Call) -> StreamResponse:
    """DELETE /volumes/{name}?force"""
    await call.engine.volumes.remove(call.name, force=call.flag("force"))
    return answers.empty()


async def prune(call: Call) -> StreamResponse:
    """POST /volumes/prune?filters"""
    filters = call.filters()
    if call.minor < versions.PRUNE_SPARES_NAMED:
        filters.setdefault("all", ["true"])
    pruned = await call.engine.volumes.prune(filters)
    return answers.json(
        wire.VolumesPruned(
            volumes_deleted=list(pruned.ids) or None, space_reclaimed=pruned.space_reclaimed
        )
    )


async def usage(call: Call) -> list[wire.Volume]:
    """The volumes of GET /system/df."""
    found = call.engine.volumes.list()
    counts = call.engine.volumes.counts()
    sizes = await asyncio.gather(*(call.engine.volumes.size(one) for one in found))
    return [
        volume(one, wire.UsageData(size=size, ref_count=counts[one.name]))
        for one, size in zip(found, sizes, strict=True)
    ]


async def export(call: Call) -> StreamResponse:
    """GET /volumes/{name}/export: its files as a tar. Not in Docker's API"""
    pieces = await (await call.builder()).export_volume(call.name)
    answer = await answers.stream(call.request, "application/x-tar")
    async for piece in pieces:
        await answer.write(piece)
    await answer.write_eof()
    return answer


async def bring(call: Call) -> StreamResponse:
    """POST /volumes/{name}/import: the body is a tar. Not in Docker's API"""
    await (await call.builder()).import_volume(call.name, parts(call))
    return answers.empty()


PATHS = {
    ("GET", "/volumes"): listing,
    ("POST", "/volumes/create"): create,
    ("POST", "/volumes/prune"): prune,
}
NAMED = {
    ("GET", "volumes", ""): inspect,
    ("DELETE", "volumes", ""): remove,
    ("GET", "volumes", "export"): export,
    ("POST", "volumes", "import"): bring,
}
