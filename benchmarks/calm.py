"""Figures of an idle machine, on one that has neighbours.

A virtual machine is idle only while nobody else computes on its processor's core: a neighbour there
makes everything up to twice as slow, for seconds or for minutes. A short fixed loop on each
processor tells. What is promised in milliseconds "on an idle machine" is taken in short turns, and
a turn is kept if the loop was near its best on every processor right before it and right behind it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from timing import BURST, Row, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_STEPS = 20_000  # about a millisecond
_NEAR = 1.25  # of the best time seen on that processor
_PAUSE = 0.05  # seconds between two looks at a busy processor


class Gauge:
    """The fixed loop, and its best time on each processor so far.

    Attributes:
        best: milliseconds of the loop at its best, on the fastest processor.
    """

    def __init__(self, patience: float, best: float) -> None:
        """`patience` is in seconds for each figure. `best`, in milliseconds, was seen before: the
        machine may be slow for the whole of a run."""
        self._patience = patience
        self.best = best
        self._cpus = sorted(os.sched_getaffinity(0))

    def calm(self) -> bool:
        """Whether every processor is as fast as it has been at its best."""
        try:
            return all(self._near(cpu) for cpu in self._cpus)
        finally:
            os.sched_setaffinity(0, self._cpus)

    def turns(self, case: Callable[[], float], count: int, burst: int = BURST) -> list[float]:
        """Values of `case` in calm turns, `count` or what there is when the patience has ended.

        A turn is `burst` values, behind one that is not kept if they are several.
        """
        kept: list[float] = []
        deadline = time.monotonic() + self._patience
        while len(kept) < count and time.monotonic() < deadline:
            if not self.calm():
                time.sleep(_PAUSE)
                continue
            if burst > 1:
                case()
            values = [case() for _ in range(burst)]
            if self.calm():
                kept += values
        return kept

    def _near(self, cpu: int) -> bool:
        os.sched_setaffinity(0, {cpu})
        taken = min(_loop(), _loop())
        self.best = min(self.best, taken)
        return taken <= self.best * _NEAR


def in_calm(
    figure: str,
    unit: str,
    gauge: Gauge,
    cases: Mapping[str, Callable[[], float]],
    count: int,
    burst: int = BURST,
) -> list[Row]:
    """Sampan's case in calm turns; no row if there were none."""
    values = gauge.turns(cases["sampan"], count, burst) if "sampan" in cases else []
    return rows(figure, unit, {"sampan": values} if values else {})


def _loop() -> float:
    begin = time.perf_counter()
    total = 0
    for step in range(_STEPS):
        total += step
    return (time.perf_counter() - begin) * 1e3
