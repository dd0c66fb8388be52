"""What builds made before, found by what they were made of.

A key is a hash over the key before it, the instruction in a canonical form, and the content of
what it reads; never over times, so that a fresh checkout hits. A result is found by its key above
its parent. What a build uses is held by the build's lease, so a prune meanwhile harms nobody.

Layers are made of results when somebody wants them, once; a result's snapshot gets its chain id as
its name then, and an image needs no unpacking.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sampan.errors import NotFound
from sampan.ids import new_id
from sampan.images.diffing import CommittedLayer
from sampan.images.failures import finish
from sampan.spec.digest import Digest, chain_ids
from sampan.spec.image import Descriptor
from sampan.store import builder as rows
from sampan.store import leases, snapshots
from sampan.store.locks import KeyedLocks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sampan.builder.model import State
    from sampan.engine.services import Services
    from sampan.snapshots.base import Mount
    from sampan.store.builder import ResultRow
    from sampan.store.database import Connection


def key_of(*parts: Any) -> str:
    """The hash of parts that JSON can say."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Filled:
    """A snapshot with files that are no result yet: its key while it is active, and its mount."""

    active: str
    mount: Mount


class Cache:
    """The results of one root."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._locks = KeyedLocks()

    async def step(
        self,
        state: State,
        key: str,
        title: str,
        make: Callable[[], Awaitable[Filled]],
        *,
        lease: str,
        made_s: int,
        use: bool = True,
    ) -> tuple[State, bool]:
        """The state behind an instruction, from the cache or by `make`, and whether it was there.

        `make` gives the files, in a snapshot above the state or above nothing (`filled`). One task
        at a time makes one key.
        """
        async with self._locks.hold(key):
            found = await self._find(key, state.top, lease) if use else None
            if found is not None:
                return _behind(state, found), True
            made = await make()
            try:
                row = await finish(self._record(state, key, title, made, lease, made_s))
            except BaseException:
                await finish(self.discard(made.active))
                raise
            return _behind(state, row), False

    async def filled(
        self, state: State | None, lease: str, fill: Callable[[str, Mount], Awaitable[None]]
    ) -> Filled:
        """A snapshot above a state, or above nothing, that `fill` wrote by its key and mount."""
        active = f"build-{new_id()[:32]}"

        def prepare(conn: Connection) -> Mount:
            parent = None if state is None else top_snapshot(conn, state)
            return self._services.snapshots.prepare_now(conn, active, parent, lease=lease)

        try:
            mount = await self._services.db.write(prepare)
            await fill(active, mount)
        except BaseException:
            await finish(self.discard(active))
            raise
        return Filled(active, mount)

    async def discard(self, active: str) -> None:
        """Remove a snapshot that did not become a result."""
        try:
            await self._services.snapshots.remove(active)
        except NotFound:
            return

    async def note(self, state: State, key: str, title: str, made_s: int) -> tuple[int, bool]:
        """Remember an instruction that changes no files: its time, and whether it was known."""

        def look(conn: Connection) -> tuple[int, bool]:
            found = _seen(conn, key, state.top)
            if found is None:
                rows.insert(conn, key, state.top, None, title, made_s)
            return (made_s, False) if found is None else (found.made_s, True)

        return await self._services.db.write(look)

    async def tree(self, state: State) -> Mount | None:
        """The files of a state, to be read; None when there are none."""
        name = self._services.db.read_now(lambda conn: top_snapshot(conn, state))
        return None if name is None else self._services.snapshots.tree(name)

    async def _find(self, key: str, parent: int | None, lease: str) -> ResultRow | None:
        def look(conn: Connection) -> ResultRow | None:
            found = _seen(conn, key, parent)
            if found is not None and found.snapshot is not None:
                leases.hold(conn, lease, "snapshot", (found.snapshot,))
            if found is not None and found.layer is not None:
                leases.hold(conn, lease, "blob", (json.loads(found.layer)["digest"],))
            return found

        return await self._services.db.write(look)

    async def _record(
        self, state: State, key: str, title: str, made: Filled, lease: str, made_s: int
    ) -> ResultRow:
        changed = await self._has_changes(made.mount)
        name = f"{made.active}-done"

        def write(conn: Connection) -> ResultRow:
            if changed:
                parent = top_snapshot(conn, state)
                self._services.snapshots.commit_now(
                    conn, name, made.active, parent=parent, lease=lease
                )
            kept = name if changed else None
            return rows.get(conn, rows.insert(conn, key, state.top, kept, title, made_s))

        row = await self._services.db.write(write)
        if not changed:
            await self.discard(made.active)
        return row

    async def _has_changes(self, mount: Mount) -> bool:
        """Whether anything was written, or the root itself changed."""
        if await self._services.on_disk(_is_marked, mount):
            return True
        return "parent" in mount and bool(await self._services.images.changes(mount))

    # layers

    async def layer(self, result: int, lease: str) -> CommittedLayer:
        """The layer of a result, made now if it was never wanted."""
        async with self._locks.hold(f"layer {result}"):
            row = self._services.db.read_now(lambda conn: rows.get(conn, result))
            if row.layer is not None:
                return _layer(row.layer)
            assert row.snapshot is not None
            mount = _writable(self._services.snapshots.tree(row.snapshot))
            made = await self._services.images.commit_layer(mount, lease=lease, newest=row.made_s)
            text, blob = layer_text(made), str(made.descriptor.digest)
            await self._services.db.write(lambda conn: rows.set_layer(conn, result, text, blob))
            return made

    async def layers(self, state: State, lease: str) -> list[CommittedLayer]:
        """All layers of a state, bottom first; its snapshots have their chain ids afterwards."""
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(self.layer(result, lease)) for result in state.results]
        layers = [*state.base_layers, *(task.result() for task in made)]
        chain = chain_ids(tuple(layer.diff_id for layer in layers))
        names = chain[len(state.base_layers) :]

        def rename(conn: Connection) -> None:
            for result, name in zip(state.results, names, strict=True):
                rows.rename_snapshot(conn, result, name)
                leases.hold(conn, lease, "snapshot", (name,))

        await self._services.db.write(rename)
        return layers


def top_snapshot(conn: Connection, state: State) -> str | None:
    """The name of the newest snapshot of a state, None for one without files. Raises NotFound."""
    if state.results:
        return rows.get(conn, state.results[-1]).snapshot
    return state.base or None


def _seen(conn: Connection, key: str, parent: int | None) -> ResultRow | None:
    """The result of a key, noted as used; not one whose files are gone."""
    found = rows.find(conn, key, parent)
    if found is None:
        return None
    if found.snapshot is not None and snapshots.find(conn, found.snapshot) is None:
        return None
    rows.touch(conn, found.id)
    return found


def _behind(state: State, row: ResultRow) -> State:
    results = state.results if row.snapshot is None else (*state.results, row.id)
    return replace(state, key=row.key, top=row.id, results=results, made_s=row.made_s)


def _is_marked(mount: Mount) -> bool:
    """Whether the root itself changed, or there is anything in a directory of changes only."""
    if mount["type"] == "overlay":
        written, lower = mount["upper"], mount["lowers"][0]
    elif "parent" in mount:
        written, lower = mount["source"], mount["parent"]
    else:
        return bool(os.listdir(mount["source"]))
    if _dress(written) != _dress(lower):
        return True
    return mount["type"] == "overlay" and bool(os.listdir(written))


def _dress(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_mode, status.st_uid, status.st_gid


def _writable(tree: Mount) -> Mount:
    """A committed snapshot in the words of an active one, which a layer is made of."""
    if tree["type"] == "bind":
        return tree
    upper, *lowers = tree["lowers"]
    work = os.path.join(os.path.dirname(upper), "work")
    return {"type": "overlay", "lowers": lowers, "upper": upper, "work": work}


def layer_text(layer: CommittedLayer) -> str:
    """A layer as a row has it."""
    return json.dumps(
        {
            "media_type": layer.descriptor.media_type,
            "digest": layer.descriptor.digest,
            "size": layer.descriptor.size,
            "diff_id": layer.diff_id,
            "tar": layer.size,
        }
    )


def _layer(text: str) -> CommittedLayer:
    said = json.loads(text)
    descriptor = Descriptor(said["media_type"], Digest.parse(said["digest"]), said["size"])
    return CommittedLayer(descriptor, Digest.parse(said["diff_id"]), said["tar"])
