"""Create, start, wait and remove of busybox `true` without a network, through the Docker API.

One client, one open connection, the same requests to Sampan and to dockerd in turns. The times of
the single requests are rows of their own, so that it shows where they go. So is the CPU time of a
life, of all processes together: a busy machine changes it far less than it changes the time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import lab
from calm import in_calm
from peers import BUSYBOX
from timing import BURST, Api, Row, interleave, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from calm import Gauge
    from peers import Engine

FIGURE = "life over the API"
CALM = f"{FIGURE}, in calm turns"
CPU = "CPU time of a life"
_WARM = 2  # turns that are not kept
_QUIET = 0.5  # seconds, for what goes on behind the last life
BODY = {"Image": BUSYBOX, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}


class Life:
    """One engine's lives, and the times of their requests."""

    def __init__(self, engine: Engine, body: dict[str, object] = BODY) -> None:
        self._api = Api(engine.socket)
        self._body = body
        self.verbs: dict[str, list[float]] = {"create": [], "start": [], "wait": [], "remove": []}

    def __call__(self) -> float:
        """One whole life; milliseconds."""
        begin = time.perf_counter()
        made = self._call("create", "POST", "/containers/create", self._body)["Id"]
        self._call("start", "POST", f"/containers/{made}/start")
        code = self._call("wait", "POST", f"/containers/{made}/wait")["StatusCode"]
        self._call("remove", "DELETE", f"/containers/{made}")
        assert code == 0, code
        return (time.perf_counter() - begin) * 1e3

    def _call(self, verb: str, method: str, target: str, body: object = None):
        begin = time.perf_counter()
        answer = self._api.call(method, target, body)
        self.verbs[verb].append((time.perf_counter() - begin) * 1e3)
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._api.close()


def measure(engines: dict[str, Engine], gauge: Gauge, rounds: int) -> list[Row]:
    """The lives of every engine that serves the API; Sampan's in calm turns as well."""
    lives = {name: Life(engine) for name, engine in engines.items() if engine.socket}
    cases: dict[str, Callable[[], float]] = dict(lives)
    try:
        found = rows(FIGURE, "ms", interleave(cases, rounds, _WARM, BURST))
        used = {name: [_cpu(life, rounds)] for name, life in lives.items()}
        found += in_calm(CALM, "ms", gauge, cases, rounds * BURST)
    finally:
        for life in lives.values():
            life.close()
    for name, life in lives.items():
        verbs = {f"{name}: {verb}": _kept(values, rounds) for verb, values in life.verbs.items()}
        found += rows(f"{FIGURE}, by request", "ms", verbs)
    return found + rows(CPU, "ms", used)


def _kept(values: list[float], rounds: int) -> list[float]:
    """The values of the lives that were kept: of each turn all but the first."""
    turn = BURST + 1
    return [
        one
        for number, one in enumerate(values[: turn * (rounds + _WARM)])
        if number >= turn * _WARM and number % turn
    ]


def _cpu(life: Life, rounds: int) -> float:
    """Of one life, as the mean of `rounds` lives."""
    time.sleep(_QUIET)
    begin = lab.cpu_ms()
    for _ in range(rounds):
        life()
    time.sleep(_QUIET)
    return (lab.cpu_ms() - begin) / rounds
