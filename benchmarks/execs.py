"""exec of busybox `true` in a running container: through the API, and as a command.

Over the API an exec is three requests: create, start (its stream ends with the process) and
inspect for the exit code. Start takes a connection of its own, because its stream ends by closing.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from calm import in_calm
from commands import runner_of
from timing import BURST, Api, Row, interleave, rows

if TYPE_CHECKING:
    from calm import Gauge
    from peers import Engine
    from timing import Runner

FIGURE = "exec over the API"
CALM = f"{FIGURE}, in calm turns"
COMMANDS = "exec as a command"
_BODY = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}
_NAME = "execs"


def measure(
    engines: dict[str, Engine], runners: dict[bool, Runner], gauge: Gauge, rounds: int
) -> list[Row]:
    """One sleeping container per engine, exec in turns."""
    for engine in engines.values():
        runner_of(engine, runners)(engine.detach(_NAME, "sleep", "1000000"))
    clients = {name: Api(engine.socket) for name, engine in engines.items() if engine.socket}
    calls = {name: partial(_once, api) for name, api in clients.items()}

    def command(engine: Engine) -> float:
        return runner_of(engine, runners)(engine.exec(_NAME, "true"))

    words = {name: partial(command, engine) for name, engine in engines.items()}
    try:
        found = rows(FIGURE, "ms", interleave(calls, rounds, warm=2, burst=BURST))
        found += in_calm(CALM, "ms", gauge, calls, rounds * BURST)
        found += rows(COMMANDS, "ms", interleave(words, rounds))
    finally:
        for api in clients.values():
            api.close()
        for engine in engines.values():
            runner_of(engine, runners)(engine.remove(_NAME), check=False)
    return found


def _once(api: Api) -> float:
    begin = time.perf_counter()
    made = api.call("POST", f"/containers/{_NAME}/exec", _BODY)["Id"]
    api.stream("POST", f"/exec/{made}/start", {"Detach": False, "Tty": False})
    state = api.call("GET", f"/exec/{made}/json")
    taken = (time.perf_counter() - begin) * 1e3
    assert state["ExitCode"] == 0, state
    assert not state["Running"], state
    return taken
