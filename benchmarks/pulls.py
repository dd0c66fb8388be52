"""Pull and unpack of the large image into an empty store, as a command, daemons running.

Every pull has new directories; nothing is deleted in between, because ext4 extracts three to four
times slower soon after ten thousand files were deleted. The registry's blobs are in the page cache
for all. What a pull left to be written is synced before the next begins. The floor is skopeo, which
copies the blobs and unpacks nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from commands import runner_of
from peers import LARGE
from timing import Row, rows

if TYPE_CHECKING:
    from pathlib import Path

    from peers import Engine
    from source import Registry
    from timing import Runner

FIGURE = "pull and unpack"
FLOOR = "skopeo (blobs only)"


def measure(
    kinds: tuple[type[Engine], ...],
    place: Path,
    registry: Registry,
    runners: dict[bool, Runner],
    rounds: int,
) -> list[Row]:
    """Every engine in turns; the first turn is kept, it is no warmer than the next."""
    taken: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    taken[FLOOR] = []
    place.mkdir()
    for number in range(rounds):
        for kind in kinds:
            engine = kind(place / f"{kind.name}{number}")
            engine.start()
            try:
                _settle(registry)
                taken[kind.name].append(runner_of(engine, runners)(engine.pull(LARGE)) / 1e3)
            finally:
                engine.stop()
        _settle(registry)
        words = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{LARGE}"]
        taken[FLOOR].append(runners[False]([*words, f"dir:{place}/blobs{number}"]) / 1e3)
    return rows(FIGURE, "s", taken)


def _settle(registry: Registry) -> None:
    os.sync()
    registry.warm()
