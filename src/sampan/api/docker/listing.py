"""GET /containers/json: the lines of `docker ps`.

Programs ask for the list again and again, and most of it is as it was. So the lines that were told
last are kept, and told again while the container, its networks and its ports are the same; only the
sentence about its age is made anew each time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from msgspec import UNSET

from sampan.api.docker import ages, answers, convert, versions
from sampan.api.docker.endpoints import Live
from sampan.engine import ancestry
from sampan.errors import ContainerNotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.engine.engine import Engine
    from sampan.engine.model import Container
    from sampan.network.model import Endpoint, Published
    from sampan.wire.containers import ContainerSummary


async def listing(call: Call) -> StreamResponse:
    """GET /containers/json?all&limit&size&filters"""
    limit = call.number("limit")
    filters = await ancestry.with_descendants(call.engine.images, call.filters())
    found = call.engine.list(
        all=call.flag("all"),
        filters=filters,
        limit=limit if limit is not None and limit > 0 else None,
    )
    if call.flag("size"):
        return answers.json(await measured(call, found))
    moved = await moved_names(call.engine, found)
    return answers.json(call.lines.told(call.engine, found, call.minor, moved))


async def moved_names(engine: Engine, found: Sequence[Container]) -> Collection[str]:
    """The ids of containers whose image has no longer the name that they were made with.

    An image of another platform than the host's is not what its name leads to; it keeps it.
    """
    ours = engine.images.platform.architecture
    made_of = [
        (one.id, convert.image_name(one), one.image_id)
        for one in found
        if one.image_id and one.architecture in ("", ours)
    ]
    ids = await engine.images.ids({name for _, name, _ in made_of})
    return {one for one, name, image_id in made_of if ids[name] != image_id}


async def measured(call: Call, found: Sequence[Container]) -> list[ContainerSummary]:
    """Lines with sizes; a container that goes meanwhile has none."""
    moved = await moved_names(call.engine, found)
    lines = Lines().told(call.engine, found, call.minor, moved)
    for line in lines:
        try:
            sizes = await call.engine.sizes(line.id)
        except ContainerNotFound:
            continue
        line.size_rw, line.size_root_fs = sizes.writable or UNSET, sizes.total
    return lines


class _Known(NamedTuple):
    """A line and what it was made of."""

    container: Container
    endpoints: Sequence[Endpoint]
    published: Sequence[Published]
    linked: Sequence[str]
    nameless: bool
    line: ContainerSummary


class Lines:
    """The lines that were told last."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._made_for: tuple[int, Mapping[str, str]] = (0, {})

    def told(
        self,
        engine: Engine,
        found: Iterable[Container],
        minor: int,
        moved: Collection[str] = (),
    ) -> list[ContainerSummary]:
        """The lines of `found` as they are now. They are ours: nobody may change them.

        Those of `moved` have the id of their image in place of its name.
        """
        now, made_for = time.time_ns(), (minor, engine.networks.ids())
        if made_for != self._made_for:
            self._known, self._made_for = {}, made_for
        before, self._known = self._known, {}
        linked = engine.link_names()
        for one in found:
            endpoints = engine.networks.endpoints(one.id)
            published = engine.networks.published(one.id)
            made_of = (one, endpoints, published, linked.get(one.name, ()), one.id in moved)
            known = before.get(one.id)
            if known is None or known[:-1] != made_of:
                known = _Known(*made_of, self._line(*made_of))
            known.line.status = ages.status(one.state, now)
            self._known[one.id] = known
        return [known.line for known in self._known.values()]

    def _line(
        self,
        one: Container,
        endpoints: Sequence[Endpoint],
        published: Sequence[Published],
        linked: Sequence[str],
        nameless: bool,
    ) -> ContainerSummary:
        minor, network_ids = self._made_for
        line = convert.summary(one, 0, Live(endpoints, published, network_ids), linked)
        if nameless:
            line.image = str(one.image_id)
        versions.container_summary(line, minor)
        return line


PATHS = {("GET", "/containers/json"): listing}
