"""Collecting on demand, by a policy, and when the disk runs low.

`use` notes that an image was used; that costs nothing, as the notes are written later and together.
A crash loses the last of them, which makes an image look older than it is, and never gone: what a
container has is never chosen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sampan.errors import Conflict, ImageNotFound
from sampan.images.retention import Policy, Situation, choose
from sampan.store import usage, uses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from sampan.images.lookup import Lookup
    from sampan.images.model import Image, Removed
    from sampan.images.removal import ImageUser, Remover
    from sampan.store.database import Database
    from sampan.store.layout import Layout

_log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed, and how many bytes the disk has more."""

    removed: tuple[Removed, ...]
    reclaimed: int


class Housekeeper:
    """Keeps one store within its policy."""

    def __init__(
        self,
        layout: Layout,
        db: Database,
        lookup: Lookup,
        remover: Remover,
        *,
        collect: Callable[[], Awaitable[object]],
        users: Callable[[], Iterable[ImageUser]],
        policy: Policy,
    ) -> None:
        self._layout = layout
        self._db = db
        self._lookup = lookup
        self._remover = remover
        self._collect = collect
        self._users = users
        self._policy = policy
        self._uses: dict[str, int] = {}

    @property
    def has_policy(self) -> bool:
        """Whether the configuration says what may be collected unasked."""
        return not self._policy.is_empty

    def use(self, image_id: str) -> None:
        """Note that an image was used now."""
        self._uses[image_id] = time.time_ns()

    async def run(self, policy: Policy | None = None) -> Collected:
        """Collect now, by `policy` or the one of the configuration."""
        policy = policy or self._policy
        before = await asyncio.to_thread(usage.free_bytes, self._layout)
        await self._flush()
        removed: list[Removed] = []
        for image in [] if policy.is_empty else await self._choose(policy):
            removed += await self._remove(image)
        known = frozenset(image.id for image in await self._lookup.all())
        await self._db.write(lambda conn: uses.forget(conn, known))
        await self._collect()
        after = await asyncio.to_thread(usage.free_bytes, self._layout)
        return Collected(tuple(removed), max(0, after[0] - before[0]))

    async def make_room(self) -> None:
        """Before content comes: collect when less is free than the policy wants."""
        if self._policy.min_free:
            free, _ = await asyncio.to_thread(usage.free_bytes, self._layout)
            if free < self._policy.min_free:
                await self.run()

    async def keep_house(self) -> None:
        """Collect from time to time, for ever, when there is a policy."""
        while not self._policy.is_empty:
            await asyncio.sleep(EVERY_SECONDS)
            done = await self.run()
            if done.removed:
                _log.info("collected %d images", sum(bool(step.deleted) for step in done.removed))

    async def aclose(self) -> None:
        """Write down what was noted."""
        await self._flush()

    async def _choose(self, policy: Policy) -> Sequence[Image]:
        images = await self._lookup.all()
        in_use = frozenset(user.image for user in self._users())
        free, _ = await asyncio.to_thread(usage.free_bytes, self._layout)
        used = self._db.read_now(uses.list)
        now = time.time_ns()
        # An image that was never used counts from when it came, which is when it was first seen.
        fresh = {str(image.id): now for image in images if image.id not in used}
        await self._db.write(lambda conn: uses.put(conn, fresh))
        size = sum(image.size for image in images)
        situation = Situation(size, free, used | fresh, now)
        return choose(images, policy, situation, in_use)

    async def _remove(self, image: Image) -> Sequence[Removed]:
        try:
            return await self._remover.remove(image.id, force=True)
        except (Conflict, ImageNotFound):
            return ()  # somebody began to use it, or removed it

    async def _flush(self) -> None:
        noted, self._uses = self._uses, {}
        if noted:
            await self._db.write(lambda conn: uses.put(conn, noted))
