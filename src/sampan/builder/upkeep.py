"""What the cache holds, and how it becomes smaller: by age, by size, or altogether."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from sampan.builder.model import CacheEntry, PrunedCache
from sampan.errors import Conflict, NotFound
from sampan.images.retention import Policy
from sampan.store import builder as rows

if TYPE_CHECKING:
    from sampan.builder.files.sources import Kept, Sources
    from sampan.engine.services import Services
    from sampan.store.builder import MountRow, ResultRow

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 600.0
_SHOWN: Final = 25  # characters of a key that docker's tables have room for


class Upkeep:
    """Looks after the cache of one root."""

    def __init__(self, services: Services, sources: Sources) -> None:
        self._services = services
        self._sources = sources
        self._stirred = asyncio.Event()

    async def all_results(self) -> tuple[ResultRow, ...]:
        """All results, oldest first."""
        return self._services.db.read_now(rows.list)

    async def usage(self) -> list[CacheEntry]:
        """Every entry, oldest first. What an image has too is shared."""
        results = await self.all_results()
        keys = {row.id: row.key[:_SHOWN] for row in results}
        found = [
            CacheEntry(
                id=keys[row.id],
                parent=keys.get(row.parent, "") if row.parent else "",
                kind="regular",
                title=row.title,
                shared=_is_shared(row.snapshot),
                size=await self._size(row.snapshot),
                created_ns=row.created_ns,
                used_ns=row.used_ns,
                uses=row.uses,
            )
            for row in results
            if row.snapshot is not None
        ]
        mounts = self._services.db.read_now(rows.mounts)
        kept = [_source(one) for one in self._sources.list()]
        return [*found, *[await self._mount(mount) for mount in mounts], *kept]

    async def _mount(self, mount: MountRow) -> CacheEntry:
        return CacheEntry(
            id=mount.volume,
            parent="",
            kind="exec.cachemount",
            title=f"cache mount {mount.name}",
            shared=True,  # counted among the volumes
            size=await self._services.volumes.size(self._services.volumes.get(mount.volume)),
            created_ns=mount.created_ns,
            used_ns=mount.used_ns,
            uses=1,
        )

    def stir(self) -> None:
        """Say that the cache has grown."""
        self._stirred.set()

    async def keep_house(self, unused_for: int, max_size: int) -> None:
        """Keep the cache within its bounds (seconds, bytes; 0 is none), for ever."""
        while unused_for or max_size:
            await self.keep_within(unused_for, max_size)
            self._stirred.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._stirred.wait()

    async def keep_within(self, unused_for: int, max_size: int) -> None:
        """Remove what was not used for `unused_for` seconds, and then what is above `max_size`
        bytes, the oldest use first."""
        gone: list[PrunedCache] = []
        if unused_for:
            gone.append(await self.prune(before_ns=time.time_ns() - unused_for * 10**9))
        if max_size:
            gone.append(await self.prune(keep=max_size))
        if count := sum(len(one.ids) for one in gone):
            log.info("build cache: %d entries removed by its bounds", count)

    async def prune(self, *, before_ns: int | None = None, keep: int = 0) -> PrunedCache:
        """Remove results not used since `before_ns`, oldest use first, until `keep` bytes are left.

        What images or running builds need stays on the disk until they are gone, so the layers of
        images count for nothing here.
        """
        everything = await self.all_results()
        sizes = {
            row.id: 0 if _is_shared(row.snapshot) else await self._size(row.snapshot)
            for row in everything
        }
        gone_sources = await self._drop_sources(before_ns, keep, sum(sizes.values()))
        total, gone = sum(sizes.values()), set[int]()
        if keep:
            total += sum(one.size for one in self._sources.list())
        children: dict[int | None, set[int]] = {}
        for row in everything:
            children.setdefault(row.parent, set()).add(row.id)
        for row in sorted(everything, key=lambda row: row.used_ns):
            if row.id in gone or (before_ns is not None and row.used_ns >= before_ns):
                continue
            if keep and total <= keep:
                break
            branch = _below(row.id, children) - gone
            gone |= branch
            total -= sum(sizes[each] for each in branch)
            await self._services.db.write(partial(rows.delete, result_id=row.id))
        gone_mounts = [] if keep else await self._drop_mounts(before_ns)
        await self._services.images.collect(Policy())
        freed = sum(sizes[each] for each in gone) + sum(one.size for one in gone_sources)
        ids = [row.key[:_SHOWN] for row in everything if row.id in gone]
        sources = [one.key[:_SHOWN] for one in gone_sources]
        return PrunedCache(
            ids=(*ids, *(name for name, _ in gone_mounts), *sources),
            reclaimed=freed + sum(size for _, size in gone_mounts),
        )

    async def _drop_sources(self, before_ns: int | None, keep: int, others: int) -> list[Kept]:
        """Directories that clients built from, oldest first, until `keep` bytes are left."""
        kept = sorted(self._sources.list(), key=lambda one: one.used_ns)
        total, gone = others + sum(one.size for one in kept), []
        for one in kept:
            if (before_ns is not None and one.used_ns >= before_ns) or (keep and total <= keep):
                continue
            await self._sources.remove(one.key)
            total -= one.size
            gone.append(one)
        return gone

    async def _drop_mounts(self, before_ns: int | None) -> list[tuple[str, int]]:
        """Directories of cache mounts that nobody uses, with their sizes."""
        services = self._services
        gone: list[tuple[str, int]] = []
        for row in services.db.read_now(rows.mounts):
            if before_ns is not None and row.used_ns >= before_ns:
                continue
            try:
                size = await services.volumes.size(services.volumes.get(row.volume))
                await services.volumes.remove(row.volume)
            except (Conflict, NotFound):
                continue
            gone.append((row.volume, size))
        return gone

    async def _size(self, snapshot: str | None) -> int:
        if snapshot is None:
            return 0
        try:
            return (await self._services.snapshots.usage(snapshot)).size
        except NotFound:
            return 0


def _is_shared(snapshot: str | None) -> bool:
    """Whether the files have become layers of an image, which counts them."""
    return snapshot is not None and snapshot.startswith("sha256:")


def _source(kept: Kept) -> CacheEntry:
    return CacheEntry(
        id=kept.key[:_SHOWN],
        parent="",
        kind="source.local",
        title="files of a context, to be sent once",
        shared=False,
        size=kept.size,
        created_ns=kept.used_ns,
        used_ns=kept.used_ns,
        uses=1,
    )


def _below(result: int, children: dict[int | None, set[int]]) -> set[int]:
    found = {result}
    waiting = [result]
    while waiting:
        inner = children.get(waiting.pop(), set())
        found |= inner
        waiting += inner
    return found
