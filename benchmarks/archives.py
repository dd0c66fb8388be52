"""Save, push and load of the large image, as commands, daemons running.

An engine saves and pushes what it pulled, and a second one of its kind with an empty store loads
what the first one saved. Each push goes to a registry with nothing in it. What was left to be
written is synced before each.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from commands import runner_of
from peers import LARGE
from source import Registry
from timing import Row, rows

if TYPE_CHECKING:
    from pathlib import Path

    from peers import Engine
    from timing import Runner

SAVE, PUSH, LOAD = "save", "push", "load"
TARGET = "127.0.0.1:5001"


def measure(
    kinds: tuple[type[Engine], ...],
    place: Path,
    registry: Registry,
    runners: dict[bool, Runner],
    rounds: int,
) -> list[Row]:
    """Every engine in turns."""
    taken: dict[str, dict[str, list[float]]] = {
        figure: {kind.name: [] for kind in kinds} for figure in (SAVE, PUSH, LOAD)
    }
    place.mkdir()
    for number in range(rounds):
        for kind in kinds:
            here = place / f"{kind.name[0]}{number}"
            for figure, seconds in _turn(kind, here, registry, runners):
                taken[figure][kind.name].append(seconds)
    return [row for figure, by_engine in taken.items() for row in rows(figure, "s", by_engine)]


def _turn(
    kind: type[Engine], place: Path, registry: Registry, runners: dict[bool, Runner]
) -> list[tuple[str, float]]:
    place.mkdir()
    archive, other = str(place / "archive.tar"), f"{TARGET}/large:1"
    found: list[tuple[str, float]] = []
    first, target = kind(place / "1"), Registry(place / "r", TARGET)
    run = runner_of(first, runners)
    first.start()
    target.start()
    try:
        registry.warm()
        run(first.pull(LARGE))
        run(first.tag(LARGE, other))
        for figure, words in ((SAVE, first.save(LARGE, archive)), (PUSH, first.push(other))):
            os.sync()
            found.append((figure, run(words) / 1e3))
    finally:
        target.stop()
        first.stop()
    second = kind(place / "2")
    second.start()
    try:
        os.sync()
        found.append((LOAD, run(second.load(archive)) / 1e3))
    finally:
        second.stop()
    return found
