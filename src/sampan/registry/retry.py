"""How often and how long we try again when a registry does not answer.

Only `Unavailable` is tried again: a lost connection, a time-out, an overloaded server. Waiting
doubles with each attempt, with jitter so that many pulls do not come back at the same moment.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from sampan.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")
PIECE: Final = 1 << 16


class Busy(Unavailable):
    """The registry asks to wait; `after` is its wish in seconds."""

    def __init__(self, message: str, after: float) -> None:
        super().__init__(message)
        self.after = after


class Slow(Unavailable):
    """The registry sends too little to wait for the rest."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Bounds of trying again. Times are in seconds."""

    attempts: int = 4  # for one small request
    blob_attempts: int = 8  # for a blob, counted anew whenever bytes arrived
    first: float = 0.2
    longest: float = 5.0
    patience: float = 60.0  # within this a blob must bring PIECE bytes, or its rest

    async def pause(self, attempt: int, error: Unavailable) -> None:
        """Wait before trying again after failed attempt number `attempt`, counted from 1."""
        delay = min(self.longest, self.first * 2 ** (attempt - 1))
        if isinstance(error, Busy):
            delay = max(delay, min(error.after, 4 * self.longest))
        await asyncio.sleep(delay * random.uniform(0.75, 1.25))  # noqa: S311 - jitter, no secret

    async def run(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """The result of `operation`, which is called until it no longer raises Unavailable.

        Raises:
            Unavailable: the last of the attempts failed.
        """
        attempt = 1
        while True:
            try:
                return await operation()
            except Unavailable as error:
                if attempt >= self.attempts:
                    raise
                await self.pause(attempt, error)
            attempt += 1
