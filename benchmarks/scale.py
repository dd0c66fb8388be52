"""What many do at once: lives by several clients, hundreds of running containers, streams, probes.

Clients are processes with a connection each, so that none waits for another's interpreter. Lives
are create, start, wait and remove of `true` without a network through the Docker API; whoever has
no such API is not in that table. Idle CPU is that of everything in the lab, over QUIET seconds;
memory is what the lab's cgroup is charged for without the cache of files.
"""

from __future__ import annotations

import os
import subprocess
import time
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

import lab
from calm import in_calm
from commands import runner_of
from lifecycle import BODY
from memory import charged
from peers import BUSYBOX
from timing import Api, Row, interleave, rows

if TYPE_CHECKING:
    from calm import Gauge
    from peers import Engine
    from timing import Runner

LIVES = "lives a second"
LIVES_CALM = f"{LIVES}, 8 clients, in calm turns"
START, LIST, ASK, MEMORY, IDLE, REMOVE = (
    f"many running containers: {what}"
    for what in (
        "start all",
        "ps",
        "the list over the API",
        "memory of each",
        "idle CPU",
        "remove all",
    )
)
ATTACHED = "lines of 4 KiB attached, without a log"
LOGGED = "lines of 4 KiB into the log"
PROBES = "exec probes of 100 containers each second"
PROBES_CALM = f"{PROBES}, in calm turns"
QUIET = 10.0
CLIENTS = (1, 4, 8)
_SECONDS, _TURN = 8.0, 2.0
_TURNS = 5
_BLOCK, _BLOCKS = 4 << 20, 48
_STREAM = _BLOCK * _BLOCKS
_PROBES = 100


def lives(engines: dict[str, Engine], gauge: Gauge) -> list[Row]:
    """Whole lives a second, by the number of clients; Sampan's of 8 in calm turns as well."""
    found: list[Row] = []
    for count in CLIENTS:
        rates = {
            name: [_rate(engine.socket, count, _SECONDS)]
            for name, engine in engines.items()
            if engine.socket
        }
        found += rows(f"{LIVES}, {count} clients", "/s", rates)
    cases = {
        name: partial(_rate, engine.socket, CLIENTS[-1], _TURN) for name, engine in engines.items()
    }
    return found + in_calm(LIVES_CALM, "/s", gauge, cases, _TURNS, 1)


def _rate(socket: str, count: int, seconds: float) -> float:
    context = get_context("fork")
    results = context.Queue()
    clients = [
        context.Process(target=_client, args=(socket, seconds, results)) for _ in range(count)
    ]
    begin = time.perf_counter()
    for client in clients:
        client.start()
    total = sum(results.get() for _ in clients)
    for client in clients:
        client.join()
    return float(total / (time.perf_counter() - begin))


def _client(socket: str, seconds: float, results: object) -> None:
    api, done = Api(socket), 0
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        made = api.call("POST", "/containers/create", BODY)["Id"]
        api.call("POST", f"/containers/{made}/start")
        assert api.call("POST", f"/containers/{made}/wait")["StatusCode"] == 0
        api.call("DELETE", f"/containers/{made}")
        done += 1
    results.put(done)  # type: ignore[attr-defined]


def density(engine: Engine, runner: Runner, count: int) -> list[Row]:
    """Start `count` sleeping containers; the time of that, of the list, memory and idle CPU."""
    before = charged() / 1024
    start = engine.detach("dense{}", "sleep", "1000000")
    started = runner(["sh", "-c", f'seq {count} | xargs -P 8 -I "{{}}" "$@"', "sh", *start]) / 1e3
    time.sleep(QUIET)
    used = (charged() / 1024 - before) / count
    listed = [runner(engine.command("ps", "-q")) for _ in range(5)]
    idle = _used(QUIET)
    asked = _asked(engine.socket) if engine.socket else []
    names = [f"dense{number}" for number in range(1, count + 1)]
    groups = [names[first : first + 50] for first in range(0, count, 50)]
    ended = sum(runner(engine.remove(*group)) for group in groups) / 1e3
    figures = {
        START: ("s", [started]),
        LIST: ("ms", listed),
        ASK: ("ms", asked),
        MEMORY: ("MiB", [used]),
        IDLE: ("% of a core", [idle]),
        REMOVE: ("s", [ended]),
    }
    found: list[Row] = []
    for name, (unit, values) in figures.items():
        if values:
            found += rows(name, unit, {engine.name: values})
    return found


def _asked(socket: str) -> list[float]:
    """Milliseconds of the list over the API."""
    api, taken = Api(socket), []
    for _ in range(5):
        begin = time.perf_counter()
        api.call("GET", "/containers/json")
        taken.append((time.perf_counter() - begin) * 1e3)
    api.close()
    return taken


def streams(engines: dict[str, Engine], runners: dict[bool, Runner], rounds: int = 7) -> list[Row]:
    """MB a second of lines of 4 KiB: attached without a log, and into the log."""
    # Cheap to make: whoever writes must not be the slowest.
    make = f"yes {'x' * 4095} | head -c {_BLOCK} > /dev/shm/lines"
    write = f"i=0; while [ $i -lt {_BLOCKS} ]; do cat /dev/shm/lines; i=$((i+1)); done"
    script = ["sh", "-c", f"{make}; {write}"]
    attached = {
        name: partial(_piped, _without_log(engine, script))
        for name, engine in engines.items()
        if name == "ctr" or not engine.hide_v2
    }
    logged = {
        name: partial(_logged, engine, runner_of(engine, runners), script)
        for name, engine in engines.items()
        if name != "ctr"
    }
    found = rows(ATTACHED, "MB/s", interleave(attached, rounds, 0))
    return found + rows(LOGGED, "MB/s", interleave(logged, rounds, 0))


def _without_log(engine: Engine, script: list[str]) -> list[str]:
    if engine.name == "ctr":
        return engine.run(*script)
    quiet = ("run", "--rm", "--network", "none", "--log-driver", "none")
    return engine.command(*quiet, BUSYBOX, *script)


def _logged(engine: Engine, run: Runner, script: list[str]) -> float:
    taken = run(engine.detach("loud", *script)) + run(engine.command("wait", "loud"))
    run(engine.remove("loud"))
    return _STREAM / 1e3 / taken


def _piped(command: list[str]) -> float:
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        total = 0
        while data := os.read(process.stdout.fileno(), 1 << 20):
            total += len(data)
    assert total >= _STREAM, f"{command[0]}: {total} bytes came"
    return total / 1e6 / (time.perf_counter() - begin)


def probes(engine: Engine, runners: dict[bool, Runner], gauge: Gauge) -> list[Row]:
    """CPU of a health check each second in each of a hundred containers; in calm turns as well."""
    names = [f"probe{number}" for number in range(_PROBES)]
    flags = ["--health-cmd", "true", "--health-interval", "1s"]
    run = engine.command("run", "-d", "--network", "none", *flags)
    for name in names:
        _quietly([*run, "--name", name, BUSYBOX, "sleep", "1000000"])
    time.sleep(QUIET / 2)
    found = rows(PROBES, "% of a core", {engine.name: [_used(QUIET)]})
    cases = {engine.name: partial(_used, _TURN)}
    found += in_calm(PROBES_CALM, "% of a core", gauge, cases, _TURNS, 1)
    runner_of(engine, runners)(engine.remove(*names), check=False)
    return found


def _used(seconds: float) -> float:
    """Percent of a processor that everything took in the next `seconds`."""
    cpu = lab.cpu_ms()
    time.sleep(seconds)
    return (lab.cpu_ms() - cpu) / seconds / 10


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
