"""A builder that is made when the first build comes.

Most engines never build, and what a builder is made of takes a twentieth of their memory and a
good part of their start.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sampan.builder import leftovers

if TYPE_CHECKING:
    from typing import Self

    from sampan.builder.builder import Builder
    from sampan.engine.engine import Engine


class OnDemand:
    """The builder of one engine."""

    @classmethod
    async def open(cls, engine: Engine) -> Self:
        """Make the builder now if it has something to clear away, or its cache to keep small."""
        made, config = cls(engine), engine.services.config
        has_bounds = config.build_cache_unused_for or config.build_cache_max_size
        if has_bounds or leftovers.are_there(engine):
            await made.get()
        return made

    def __init__(self, engine: Engine) -> None:
        """For `open`."""
        self._engine = engine
        self._one = asyncio.Lock()
        self._made: Builder | None = None

    async def get(self) -> Builder:
        """The builder."""
        async with self._one:
            if self._made is None:
                from sampan.builder.builder import Builder

                self._made = await Builder.open(self._engine)
        return self._made
