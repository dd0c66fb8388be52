"""What passes through networks: iperf3 and wrk over every path to a container, engines in turns.

Each engine runs one container with Debian's iperf3 and nginx and two published ports. Paths:

    own address          the host to the container's address, over the bridge
    published, 127.0.0.1 the host to a published port by loopback
    published, neighbour another host to a published port, by a cable of its own
    container            a second container of the network to the first, over the bridge

The clients run in the network namespace of where they are said to be, whichever engine it is,
so no engine's exec takes part. The figures of a path are taken in turns, one engine after the
other, because a machine's speed changes from second to second. Without iperf3, wrk and nginx
there are no rows.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import lab
from peers import TOOLS
from timing import Failed, Row, interleave, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peers import Engine
    from timing import Runner

THROUGHPUT = "throughput"
REVERSE = "throughput, from the container"
REQUESTS = "requests on open connections"
CONNECTIONS = "new connections"
PATHS = ("own address", "published, 127.0.0.1", "published, neighbour", "container")
FIGURES = tuple(
    f"{figure}, {path}" for path in PATHS for figure in (THROUGHPUT, REVERSE, REQUESTS, CONNECTIONS)
)

PORTS = {"sampan": 18110, "docker": 18120, "podman": 18130}
SECONDS = 1
CLIENTS = 32
_TRIES = 10
_HOST, _NEIGHBOUR = "192.0.2.1", "192.0.2.2"
_SERVE = ["sh", "-c", "nginx -c /etc/nginx.conf && exec iperf3 -s -p 5201"]


@dataclass(frozen=True, slots=True)
class Place:
    """One engine's server: its container's address, and the namespaces of the clients."""

    engine: Engine
    address: str
    port: int
    container: str
    neighbour: str

    def way(self, path: str) -> tuple[list[str], str, int, int]:
        """How a client of a path is started, and where it goes: address, iperf3's port, nginx's."""
        if path == "own address":
            return [], self.address, 5201, 80
        if path == "container":
            return ["nsenter", f"--net={self.container}"], self.address, 5201, 80
        if path == "published, 127.0.0.1":
            return [], "127.0.0.1", self.port, self.port + 1
        return ["nsenter", f"--net={self.neighbour}"], _HOST, self.port, self.port + 1


def is_possible() -> bool:
    """Whether the programs are here."""
    return all(shutil.which(name) for name in ("iperf3", "wrk", "nginx"))


def measure(engines: dict[str, Engine], runners: dict[bool, Runner], rounds: int) -> list[Row]:
    """Every path of every engine."""
    with _cable() as neighbour:
        places = {}
        try:
            for name, engine in engines.items():
                places[name] = _serve(name, engine, runners[engine.hide_v2], neighbour)
            return [row for path in PATHS for row in _path(path, places, rounds)]
        finally:
            for name, engine in engines.items():
                runners[engine.hide_v2](engine.remove(*_names(name)), check=False)


def _path(path: str, places: dict[str, Place], rounds: int) -> list[Row]:
    measures: dict[tuple[str, str], Callable[[Place], float]] = {
        (THROUGHPUT, "Gbit/s"): lambda place: _iperf(*place.way(path)),
        (REVERSE, "Gbit/s"): lambda place: _iperf(*place.way(path), "-R"),
        (REQUESTS, "1/s"): lambda place: _wrk(*place.way(path)),
        (CONNECTIONS, "1/s"): lambda place: _wrk(*place.way(path), "-H", "Connection: close"),
    }
    found: list[Row] = []
    for (figure, unit), take in measures.items():
        cases = {name: partial(take, place) for name, place in places.items()}
        taken = interleave(cases, rounds)
        found += rows(f"{figure}, {path}", unit, taken)
    return found


def _names(name: str) -> tuple[str, str]:
    return f"traffic-{name}", f"visitor-{name}"


def _serve(name: str, engine: Engine, run: Runner, neighbour: str) -> Place:
    """Start an engine's containers, and wait until the servers answer."""
    port, (server, visitor) = PORTS[name], _names(name)
    parts = ["--cgroup-parent", f"{lab.CGROUP}/podman"] if name == "podman" else []
    run(engine.pull(TOOLS))
    published = ["-p", f"{port}:5201", "-p", f"{port + 1}:80"]
    run(engine.command("run", "-d", *parts, "--name", server, *published, TOOLS, *_SERVE))
    run(engine.command("run", "-d", *parts, "--name", visitor, TOOLS, "sleep", "100000"))
    inside = [f"/proc/{_pid(engine, one)}/ns/net" for one in (server, visitor)]
    place = Place(engine, _address(inside[0]), port, inside[1], neighbour)
    for path in PATHS:
        _await(partial(_wrk, *place.way(path)))
        _await(partial(_iperf, *place.way(path)))
    return place


def _pid(engine: Engine, name: str) -> int:
    words = engine.command("inspect", name)
    done = subprocess.run(words, env=engine.environ, check=True, capture_output=True)
    return int(json.loads(done.stdout)[0]["State"]["Pid"])


def _address(namespace: str) -> str:
    """A container's own address, as it sees it."""
    words = ["nsenter", f"--net={namespace}", "ip", "-4", "-j", "address", "show", "dev", "eth0"]
    return str(json.loads(_output(words))[0]["addr_info"][0]["local"])


def _await(take: Callable[[], float], patience: float = 30.0) -> None:
    """Try until it works: servers need a moment."""
    deadline = time.monotonic() + patience
    while True:
        try:
            take()
        except Failed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _iperf(prefix: list[str], address: str, port: int, _: int, *words: str) -> float:
    """Gigabits a second that arrive."""
    command = [*prefix, "iperf3", "-c", address, "-p", str(port), "-t", str(SECONDS), "-J", *words]
    for _ in range(_TRIES):
        report = json.loads(_output(command))
        if "sum_received" in report["end"]:
            return float(report["end"]["sum_received"]["bits_per_second"] / 1e9)
        time.sleep(0.2)  # the server has not yet finished with the last client
    raise Failed(f"{' '.join(command)}: {report.get('error')}")


def _wrk(prefix: list[str], address: str, _: int, port: int, *words: str) -> float:
    """Requests a second that are answered well."""
    url = f"http://{address}:{port}/"
    command = [*prefix, "wrk", "-t", "1", "-c", str(CLIENTS), "-d", f"{SECONDS}s", *words, url]
    text = _output(command)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if rate is None or float(rate[1]) == 0 or "Non-2xx" in text:
        raise Failed(f"{' '.join(command)}: {text}")
    return float(rate[1])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


@contextmanager
def _cable() -> Iterator[str]:
    """Another host, by a cable of its own; the path of its namespace."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up; echo up; exec sleep 100000"],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        for command in (
            f"ip link add cable0 type veth peer name far0 netns {holder.pid}",
            f"ip address add {_HOST}/24 dev cable0",
            "ip link set cable0 up",
        ):
            _output(command.split())
        for command in (f"ip address add {_NEIGHBOUR}/24 dev far0", "ip link set far0 up"):
            _output([*inside, *command.split()])
        yield f"/proc/{holder.pid}/ns/net"
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
