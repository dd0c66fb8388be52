"""How much room images and containers take, measured now and then: a kubelet asks all the time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sampan.errors import NotFound
from sampan.store.snapshots import Kind

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

FRESH = 10.0
"""Seconds for which a measurement is good."""


class Usage:
    """Bytes and inodes of snapshots."""

    def __init__(self, engine: Engine) -> None:
        self._snapshots = engine.services.snapshots
        self._totals: tuple[float, tuple[int, int], tuple[int, int]] | None = None
        self._layers: dict[str, tuple[float, int, int]] = {}

    async def read(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(bytes, inodes) of all layers, and of all that containers have written."""
        now = time.monotonic()
        if self._totals is not None and now - self._totals[0] < FRESH:
            return self._totals[1], self._totals[2]
        sums = {True: [0, 0], False: [0, 0]}
        for row in self._snapshots.walk():
            size, inodes = await self.of(row.key, keep=row.kind is not Kind.COMMITTED)
            kind = sums[row.kind is Kind.COMMITTED]
            kind[0] += size
            kind[1] += inodes
        images = (sums[True][0], sums[True][1])
        containers = (sums[False][0], sums[False][1])
        self._totals = now, images, containers
        return images, containers

    async def of(self, key: str, *, keep: bool = True) -> tuple[int, int]:
        """(bytes, inodes) of one snapshot; (0, 0) when it is gone."""
        now = time.monotonic()
        known = self._layers.get(key)
        if known is not None and now - known[0] < FRESH:
            return known[1], known[2]
        try:
            usage = await self._snapshots.usage(key)
        except NotFound:
            self._layers.pop(key, None)
            return 0, 0
        if keep:
            if len(self._layers) > 4096:
                self._layers.clear()
            self._layers[key] = now, usage.size, usage.inodes
        return usage.size, usage.inodes
