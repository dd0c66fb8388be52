"""Containers in a bridge: the way to their start, alone and many, and what passes through.

`run --rm busybox true` in the engine's default bridge, without and with a published port; the same
life over the API; a hundred containers with one published port each, started by the command
one after the other. What passes through networks is in `traffic`. ctr has no networks of its own
and is left out.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import lab
import lifecycle
import traffic
from calm import in_calm
from peers import BUSYBOX
from timing import BURST, Row, interleave, rows

if TYPE_CHECKING:
    from calm import Gauge
    from peers import Engine
    from timing import Runner

FIGURE = "run in a bridge"
PORT = "run with a published port"
LIFE = "life over the API, in a bridge"
CALM = f"{LIFE}, in calm turns"
MANY = "100 containers with a port each"
COUNT = 100


def measure(
    engines: dict[str, Engine], runners: dict[bool, Runner], gauge: Gauge, rounds: int
) -> list[Row]:
    """The ways to a start of every engine with a bridge, in turns."""
    able = able_of(engines)

    def once(engine: Engine, *words: str) -> float:
        return runners[engine.hide_v2](bridged(engine, "--rm", *words, BUSYBOX, "true"))

    cases = {name: partial(once, engine) for name, engine in able.items()}
    found = rows(FIGURE, "ms", interleave(cases, rounds))
    cases = {name: partial(once, engine, "-p", "80") for name, engine in able.items()}
    found += rows(PORT, "ms", interleave(cases, rounds))
    return found + _lives(able, gauge, rounds)


def able_of(engines: dict[str, Engine]) -> dict[str, Engine]:
    """Those that have networks."""
    return {name: engine for name, engine in engines.items() if name in traffic.PORTS}


def bridged(engine: Engine, *words: str) -> list[str]:
    """A run in the engine's default network; podman's below the lab's cgroup."""
    parts = ["--cgroup-parent", f"{lab.CGROUP}/podman"] if engine.name == "podman" else []
    return engine.command("run", *parts, *words)


def _lives(engines: dict[str, Engine], gauge: Gauge, rounds: int) -> list[Row]:
    """Create, start, wait and remove over the API."""
    body = {**lifecycle.BODY, "HostConfig": {"NetworkMode": "bridge"}}
    lives = {
        name: lifecycle.Life(engine, body) for name, engine in engines.items() if engine.socket
    }
    try:
        found = rows(LIFE, "ms", interleave(dict(lives), rounds, 2, BURST))
        return found + in_calm(CALM, "ms", gauge, dict(lives), rounds * BURST)
    finally:
        for life in lives.values():
            life.close()


def many(engines: dict[str, Engine], runners: dict[bool, Runner]) -> list[Row]:
    """A hundred containers with one published port each: seconds until the last one has started."""
    taken = {}
    for name, engine in able_of(engines).items():
        run = runners[engine.hide_v2]
        names = [f"many{number}" for number in range(COUNT)]
        begin = time.perf_counter()
        for one in names:
            run(bridged(engine, "-d", "--name", one, "-p", "80", BUSYBOX, "sleep", "100000"))
        taken[name] = [time.perf_counter() - begin]
        run(engine.remove(*names))
    return rows(MANY, "s", taken)
