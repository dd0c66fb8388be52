"""The cache across machines: results written beside an image, and taken from one.

A cache travels as an ordinary image: its layers are the results' layers, and an annotation of its
manifest lists the results, bottom first, with their keys. So a cache is pushed, pulled, saved and
loaded like any image, and an image that was built with its cache inline is one itself. With the
mode `max` each other stage has an image of its own, whose name ends in `-stage-N`.

A cache is trusted as its image is: whoever may write it may put files behind the keys.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sampan.builder.cache import layer_text
from sampan.errors import ImageNotFound, InvalidArgument, SampanError
from sampan.images.diffing import CommittedLayer
from sampan.spec.digest import chain_ids
from sampan.spec.reference import Reference
from sampan.store import builder as rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.builder.exporting import Exporter
    from sampan.builder.graph import Build
    from sampan.builder.model import State
    from sampan.engine.engine import Engine
    from sampan.images.model import Image
    from sampan.store.builder import ResultRow
    from sampan.store.database import Connection

ANNOTATION: Final = "dev.sampan.build.cache"
STAGES: Final = "dev.sampan.build.stages"
MAX_RECORDS: Final = 2000
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_STAGE: Final = "-stage-"


class Record(NamedTuple):
    """One result: `has_layer` says that the next layer of the image is its."""

    key: str
    title: str
    made_s: int
    has_layer: bool


class Exchange:
    """Imports and exports caches of one engine."""

    def __init__(self, engine: Engine, exporter: Exporter) -> None:
        self._engine = engine
        self._exporter = exporter

    def annotations(self, state: State) -> dict[str, str]:
        """What an image of a state says of the results that it was made of."""

        def chain(conn: Connection) -> list[ResultRow]:
            found = []
            at = state.top
            while at is not None:
                found.append(rows.get(conn, at))
                at = found[-1].parent
            return found[::-1]

        wanted = set(state.results)
        records = [
            [row.key, row.title, row.made_s, row.id in wanted]
            for row in self._engine.services.db.read_now(chain)
        ]
        return {ANNOTATION: json.dumps(records, separators=(",", ":"))}

    async def save(
        self, build: Build, state: State, names: Sequence[str], *, every_stage: bool
    ) -> list[str]:
        """Make cache images under `names`, and beside the first those of the other stages; all
        names that were made."""
        made: list[str] = []
        others = build.states() if every_stage else {}
        for text in names:
            name = Reference.parse(text).with_default_tag()
            stages = {f"{name.tag}{_STAGE}{index}": each for index, each in others.items()}
            more = {STAGES: json.dumps(sorted(stages))} if stages else {}
            found = {**self.annotations(state), **more}
            await self._exporter.image(state, [name], build.lease, annotations=found)
            made.append(name.familiar())
            for tag, each in stages.items():
                other = _tagged(name, tag)
                notes = self.annotations(each)
                await self._exporter.image(each, [other], build.lease, annotations=notes)
                made.append(other.familiar())
        return made

    async def load(self, build: Build) -> None:
        """Take results from images, here or at their registries. What cannot be had is told."""
        options, found = build.options, False
        for text in options.cache_from:
            try:
                image = await self._image(build, text)
                found = True
                await self._take(image)
                for tag in _stages_of(image):
                    name = _tagged(Reference.parse(text), tag)
                    await self._take(await self._image(build, name.familiar()))
            except SampanError as error:
                build.warn(f"cache of {text[:200]} is not used: {error}")
        if options.cache_from and options.cache_only_from and not found:
            build.options = replace(options, no_cache=True)

    async def _image(self, build: Build, name: str) -> Image:
        images = self._engine.images
        try:
            image = await images.get(name)
        except ImageNotFound:
            image = await images.pull(name, auth=build.options.credentials(name))
        if image.chain_id and not self._engine.services.snapshots.has(image.chain_id):
            image = await images.unpack(name)
        return image

    async def _take(self, image: Image) -> None:
        text = image.annotations.get(ANNOTATION)
        if text is None:
            return
        records = _parse(text)
        count = sum(record.has_layer for record in records)
        diff_ids = image.config.rootfs_diff_ids
        if count > len(diff_ids):
            raise InvalidArgument("its records do not fit its layers")
        first = len(diff_ids) - count
        chain = chain_ids(diff_ids)
        layers = [
            (str(name), CommittedLayer(descriptor, diff_id))
            for name, descriptor, diff_id in list(zip(chain, image.layers, diff_ids, strict=True))[
                first:
            ]
        ]
        await self._engine.services.db.write(lambda conn: _insert(conn, records, layers))


def _insert(
    conn: Connection, records: list[Record], layers: list[tuple[str, CommittedLayer]]
) -> None:
    parent: int | None = None
    for record in records:
        name, layer = layers.pop(0) if record.has_layer else (None, None)
        known = rows.find(conn, record.key, parent)
        if known is None or (known.snapshot is None and name is not None):
            made = rows.insert(conn, record.key, parent, name, record.title, record.made_s)
            if layer is not None:
                rows.set_layer(conn, made, layer_text(layer), str(layer.descriptor.digest))
            parent = made
        else:
            parent = known.id


def _parse(text: str) -> list[Record]:
    """The records of an annotation, which somebody else wrote.

    Raises:
        InvalidArgument: it is something else.
    """
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) > MAX_RECORDS:
        raise InvalidArgument("its list of results is malformed")
    records = []
    for entry in found:
        match entry:
            case [str(key), str(title), int(made_s), bool(has_layer)] if _KEY.fullmatch(key):
                if not 0 <= made_s < 1 << 40:
                    raise InvalidArgument("its list of results has a time out of range")
                records.append(Record(key, title[:1000], made_s, has_layer))
            case _:
                raise InvalidArgument("its list of results is malformed")
    return records


def _tagged(name: Reference, tag: str) -> Reference:
    """Another tag of a repository. Raises InvalidArgument."""
    return Reference.parse(f"{name.name}:{tag}")


def _stages_of(image: Image) -> list[str]:
    """The tags of the other stages."""
    try:
        found: Any = json.loads(image.annotations.get(STAGES, "[]"))
    except (ValueError, RecursionError):
        return []
    if not isinstance(found, list) or len(found) > 200:
        return []
    return [tag for tag in found if isinstance(tag, str) and _STAGE in tag]
