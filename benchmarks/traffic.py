"""What passes through networks: iperf3 and wrk over every path to a container, engines in turns.

Each engine has a host of its own, a network namespace with a cable to another host, as it has on a
machine where it is the only one: no packet of one passes the rules of another. There it runs one
container with Debian's iperf3 and nginx and two published ports. Paths:

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import lab
from peers import TOOLS
from timing import Failed, Row, interleave, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

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
    host: str
    container: str
    neighbour: str

    def way(self, path: str) -> tuple[list[str], str, int, int]:
        """How a client of a path is started, and where it goes: address, iperf3's port, nginx's."""
        if path == "own address":
            return _at(self.host), self.address, 5201, 80
        if path == "container":
            return _at(self.container), self.address, 5201, 80
        if path == "published, 127.0.0.1":
            return _at(self.host), "127.0.0.1", self.port, self.port + 1
        return _at(self.neighbour), _HOST, self.port, self.port + 1


def _at(namespace: str) -> list[str]:
    return ["nsenter", f"--net={namespace}"]


def is_possible() -> bool:
    """Whether the programs are here."""
    return all(shutil.which(name) for name in ("iperf3", "wrk", "nginx"))


def measure(
    kinds: Sequence[type[Engine]],
    place: Path,
    archive: Path,
    runners: dict[bool, Runner],
    rounds: int,
    paths: Sequence[str] = PATHS,
) -> list[Row]:
    """Every path of every engine. `archive` has the image `TOOLS`."""
    place.mkdir()
    with ExitStack() as stack:
        places = {}
        for kind in kinds:
            engine, host = kind(place / kind.name), stack.enter_context(_namespace())
            neighbour = stack.enter_context(_namespace())
            _lay_cable(host, neighbour)
            engine.enter(f"/proc/{host}/ns/net")
            stack.callback(engine.stop)
            engine.start()
            run = runners[engine.hide_v2]
            run(engine.load(str(archive)))
            stack.callback(run, engine.remove(*_names(kind.name)), check=False)
            places[kind.name] = _serve(kind.name, engine, run, host, neighbour)
        return [row for path in paths for row in _path(path, places, rounds)]


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


def _serve(name: str, engine: Engine, run: Runner, host: int, neighbour: int) -> Place:
    """Start an engine's containers, and wait until the servers answer."""
    port, (server, visitor) = PORTS[name], _names(name)
    parts = ["--cgroup-parent", f"{lab.CGROUP}/podman"] if name == "podman" else []
    published = ["-p", f"{port}:5201", "-p", f"{port + 1}:80"]
    run(engine.command("run", "-d", *parts, "--name", server, *published, TOOLS, *_SERVE))
    run(engine.command("run", "-d", *parts, "--name", visitor, TOOLS, "sleep", "100000"))
    inside = [f"/proc/{_pid(engine, one)}/ns/net" for one in (server, visitor)]
    hosts = [f"/proc/{pid}/ns/net" for pid in (host, neighbour)]
    place = Place(engine, _address(inside[0]), port, hosts[0], inside[1], hosts[1])
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
def _namespace() -> Iterator[int]:
    """A host: the process that holds its network namespace."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up; echo up; exec sleep 100000"],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def _lay_cable(host: int, neighbour: int) -> None:
    """Between two hosts, both ends with an address."""
    ends = ((host, _HOST, "cable0"), (neighbour, _NEIGHBOUR, "far0"))
    pair = f"ip link add cable0 type veth peer name far0 netns {neighbour}"
    _output([*_at(f"/proc/{host}/ns/net"), *pair.split()])
    for pid, address, name in ends:
        for command in (f"address add {address}/24 dev {name}", f"link set {name} up"):
            _output([*_at(f"/proc/{pid}/ns/net"), "ip", *command.split()])
