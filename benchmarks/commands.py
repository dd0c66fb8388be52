"""`run --rm --network none busybox true` as a command, from its start to its end.

The daemons of those that have one are running. ctr's container gets a network namespace of its own
with nothing in it, which is the same; ctr applies no seccomp filter by default, the others do.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from timing import Row, interleave, rows

if TYPE_CHECKING:
    from peers import Engine
    from timing import Runner

FIGURE = "run as a command"


def runner_of(engine: Engine, runners: dict[bool, Runner]):
    """The runner whose view of the cgroups suits the engine's runtime."""
    return runners[engine.hide_v2]


def measure(engines: dict[str, Engine], runners: dict[bool, Runner], rounds: int) -> list[Row]:
    """Every engine in turns, and the bare start of the clients."""

    def once(engine: Engine) -> float:
        return runner_of(engine, runners)(engine.run("true"))

    cases = {name: partial(once, engine) for name, engine in engines.items()}
    found = rows(FIGURE, "ms", interleave(cases, rounds))
    starts = {
        name: partial(runner_of(engine, runners), engine.command("version"))
        for name, engine in engines.items()
    }
    return found + rows("version as a command", "ms", interleave(starts, max(3, rounds // 2)))
