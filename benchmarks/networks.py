"""Containers in a bridge: the way to their start, and what passes through a published port.

`run --rm busybox true` in the engine's default bridge, without and with a published port. Then a
container sends a gigabyte of zeros to whoever connects, and a small web server answers
one request for each connection: by 127.0.0.1 and the published port, and by the container's own
address. The client is this process. ctr has no networks of its own and is left out.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

import lab
from peers import BUSYBOX
from timing import Row, interleave, rows

if TYPE_CHECKING:
    from peers import Engine
    from timing import Runner

FIGURE = "run in a bridge"
PORTS = {"sampan": 18110, "docker": 18120, "podman": 18130}
GIGABYTE = 1 << 30
CONNECTIONS = 300
ZEROS = [
    "sh",
    "-c",
    "while :; do busybox nc -l -p 5001 -e dd if=/dev/zero bs=1M count=1025 2>/dev/null; done",
]
WEB = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"]


def measure(engines: dict[str, Engine], runners: dict[bool, Runner], rounds: int) -> list[Row]:
    """Every engine with a bridge, in turns."""
    able = {name: engine for name, engine in engines.items() if name in PORTS}

    def once(engine: Engine, *words: str) -> float:
        return runners[engine.hide_v2](bridged(engine, "--rm", *words, BUSYBOX, "true"))

    cases = {name: partial(once, engine) for name, engine in able.items()}
    found = rows(FIGURE, "ms", interleave(cases, rounds))
    cases = {name: partial(once, engine, "-p", "80") for name, engine in able.items()}
    found += rows("run with a published port", "ms", interleave(cases, rounds))
    for name, engine in able.items():
        found += _traffic(name, engine, runners[engine.hide_v2], max(3, rounds // 5))
    return found


def bridged(engine: Engine, *words: str) -> list[str]:
    """A run in the engine's default network; podman's below the lab's cgroup."""
    parts = ["--cgroup-parent", f"{lab.CGROUP}/podman"] if engine.name == "podman" else []
    return engine.command("run", *parts, *words)


def _traffic(name: str, engine: Engine, run: Runner, rounds: int) -> list[Row]:
    """Gigabits and connections a second of one engine."""
    port = PORTS[name]
    zeros, web = f"zeros-{name}", f"web-{name}"
    ports = ["-p", f"{port}:5001"], ["-p", f"{port + 1}:80"]
    run(bridged(engine, "-d", "--name", zeros, *ports[0], BUSYBOX, *ZEROS))
    run(bridged(engine, "-d", "--name", web, *ports[1], BUSYBOX, *WEB))
    try:
        ways = {
            f"{name}, published": ("127.0.0.1", port, "127.0.0.1", port + 1),
            f"{name}, own address": (_address(engine, zeros), 5001, _address(engine, web), 80),
        }
        found = []
        for way, (first, zeros_port, second, web_port) in ways.items():
            _dial(second, web_port).close()
            rates = [_rate(first, zeros_port) for _ in range(rounds)]
            found += rows("throughput", "Gbit/s", {way: rates})
            speeds = [_connections(second, web_port) for _ in range(rounds)]
            found += rows("new connections", "1/s", {way: speeds})
        return found
    finally:
        run(engine.remove(zeros, web))


def _address(engine: Engine, name: str) -> str:
    done = subprocess.run(
        engine.command("inspect", name), env=engine.environ, check=True, capture_output=True
    )
    networks = json.loads(done.stdout)[0]["NetworkSettings"]
    return networks["IPAddress"] or next(iter(networks["Networks"].values()))["IPAddress"]


def _dial(address: str, port: int) -> socket.socket:
    """A connection; the servers need a moment before the first, and between two."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((address, port), 30)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _rate(address: str, port: int) -> float:
    """Gigabits a second of a gigabyte that is there to be read."""
    buffer, left = bytearray(1 << 20), GIGABYTE
    with _dial(address, port) as sock:
        began = time.perf_counter()
        while left > 0:
            count = sock.recv_into(buffer)
            if not count:
                raise ConnectionResetError("it ended too early")
            left -= count
        return GIGABYTE * 8 / (time.perf_counter() - began) / 1e9


def _ask(address: str, port: int) -> None:
    with socket.create_connection((address, port), 30) as sock:
        sock.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
        while sock.recv(4096):
            pass


def _connections(address: str, port: int) -> float:
    began = time.perf_counter()
    for _ in range(CONNECTIONS):
        _ask(address, port)
    return CONNECTIONS / (time.perf_counter() - began)
