"""What a pull, push or load says while it works: dockerd's words, without its JSON.

A step has the short id of a layer, a status, and bytes done of a total where that makes sense. A
line has no id, except for `Pulling from`, whose id is the tag. The receiver is called from the
event loop and must not block; bytes are told at most twenty times a second for each layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_INTERVAL: Final = 0.05
_SETTLING: Final = 1.0

PULLING: Final = "Pulling fs layer"
WAITING: Final = "Waiting"
DOWNLOADING: Final = "Downloading"
VERIFYING: Final = "Verifying Checksum"
DOWNLOADED: Final = "Download complete"
EXTRACTING: Final = "Extracting"
PULLED: Final = "Pull complete"
EXISTS: Final = "Already exists"

LOADING: Final = "Loading layer"
LOADED: Final = "Loaded"

PREPARING: Final = "Preparing"
PUSHING: Final = "Pushing"
PUSHED: Final = "Pushed"
LAYER_EXISTS: Final = "Layer already exists"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step. `current` and `total` are bytes, `rate` bytes a second lately; all are 0 where
    nothing is counted."""

    id: str
    status: str
    current: int = 0
    total: int = 0
    rate: int = 0


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """The receiver for those who do not want to know."""


class Meter:
    """Tells how many bytes of one layer are done, not more often than anybody can read."""

    __slots__ = ("_clock", "_id", "_last", "_next", "_rate", "_report", "_status", "_total")

    def __init__(
        self,
        report: Report,
        short_id: str,
        status: str,
        total: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._clock = clock
        self._id = short_id
        self._status = status
        self._total = total
        self._next = 0.0
        self._rate = 0.0
        self._last: tuple[float, int] | None = None  # when, and how many bytes were done

    def __call__(self, current: int) -> None:
        now = self._clock()
        if now >= self._next or current >= self._total:
            self._next = now + _INTERVAL
            self._measure(now, current)
            self._report(Progress(self._id, self._status, current, self._total, round(self._rate)))

    def _measure(self, now: float, current: int) -> None:
        """A mean in which the last second counts most; what was there at the start does not."""
        last, self._last = self._last, (now, current)
        if last is None or now <= last[0]:
            return
        seconds = now - last[0]
        weight = min(1.0, seconds / _SETTLING) if self._rate else 1.0
        self._rate += weight * (max(0, current - last[1]) / seconds - self._rate)
