"""What the cache holds, and how it becomes smaller: by age, by size, or altogether."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sampan.builder.model import CacheEntry, PrunedCache
from sampan.errors import NotFound
from sampan.images.retention import Policy
from sampan.store import builder as rows

if TYPE_CHECKING:
    from sampan.engine.services import Services
    from sampan.store.builder import MountRow, ResultRow
    from sampan.store.database import Connection

_SHOWN: Final = 25  # characters of a key that docker's tables have room for


class Upkeep:
    """Looks after the cache of one root."""

    def __init__(self, services: Services) -> None:
        self._services = services

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
                shared=row.snapshot.startswith("sha256:"),
                size=await self._size(row.snapshot),
                created_ns=row.created_ns,
                used_ns=row.used_ns,
                uses=row.uses,
            )
            for row in results
            if row.snapshot is not None
        ]
        mounts = self._services.db.read_now(rows.mounts)
        return [*found, *[await self._mount(mount) for mount in mounts]]

    async def _mount(self, mount: MountRow) -> CacheEntry:
        return CacheEntry(
            id=mount.id,
            parent="",
            kind="exec.cachemount",
            title=f"cache mount {mount.name}",
            shared=False,
            size=await self._size(mount.snapshot),
            created_ns=mount.created_ns,
            used_ns=mount.used_ns,
            uses=1,
        )

    async def prune(self, *, before_ns: int | None = None, keep: int = 0) -> PrunedCache:
        """Remove results not used since `before_ns`, oldest use first, until `keep` bytes are left.

        What images or running builds need stays on the disk until they are gone.
        """
        everything = await self.all_results()
        sizes = {row.id: await self._size(row.snapshot) for row in everything}
        total, gone = sum(sizes.values()), set[int]()
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
        ids = [row.key[:_SHOWN] for row in everything if row.id in gone]
        return PrunedCache(ids=(*ids, *gone_mounts), reclaimed=sum(sizes[each] for each in gone))

    async def _drop_mounts(self, before_ns: int | None) -> list[str]:
        """Directories of cache mounts. They are active snapshots, which no collector touches."""
        snapshots = self._services.snapshots

        def drop(conn: Connection) -> list[tuple[str, int]]:
            old = [row for row in rows.mounts(conn) if before_ns is None or row.used_ns < before_ns]
            return [(row.id, snapshots.remove_now(conn, row.snapshot)) for row in old]

        gone = await self._services.db.write(drop)
        snapshots.discard(number for _, number in gone)
        return [name for name, _ in gone]

    async def _size(self, snapshot: str | None) -> int:
        if snapshot is None:
            return 0
        try:
            return (await self._services.snapshots.usage(snapshot)).size
        except NotFound:
            return 0


def _below(result: int, children: dict[int | None, set[int]]) -> set[int]:
    found = {result}
    waiting = [result]
    while waiting:
        inner = children.get(waiting.pop(), set())
        found |= inner
        waiting += inner
    return found
