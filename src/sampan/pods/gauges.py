"""What metrics of a container need besides the engine's statistics: counts from /proc. Blocking."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.engine.model import NetworkStats
from sampan.kernel import namespaces as kernel
from sampan.kernel import numbers as n
from sampan.pods import pressure
from sampan.pods.namespaces import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_PROCESSES = 4096
"""Processes of one container that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Counts over the processes of a container. `limits` are the soft limits of the first one; the
    last two are as `pressure.py` has them."""

    processes: int = 0
    descriptors: int = 0
    sockets: int = 0
    limits: Mapping[str, int] | None = None
    pressure: Mapping[tuple[str, str], int] = field(default_factory=dict)
    huge_pages: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes and inodes of a file system."""

    size: int
    inodes: int
    inodes_free: int


def count(pids: Iterable[int], first: int) -> Gauges:
    """Look at every process; those that end meanwhile do not count."""
    processes = descriptors = sockets = 0
    for pid in sorted(pids)[:MAX_PROCESSES]:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                links = [os.readlink(entry.path) for entry in entries]
        except OSError:
            continue
        processes += 1
        descriptors += len(links)
        sockets += sum(link.startswith("socket:") for link in links)
    return Gauges(
        processes=processes,
        descriptors=descriptors,
        sockets=sockets,
        limits=_limits(first),
        pressure=pressure.pressure(first),
        huge_pages=pressure.huge_pages(first),
    )


def space(path: str) -> Space:
    """The file system that `path` lies in."""
    found = os.statvfs(path)
    return Space(found.f_blocks * found.f_frsize, found.f_files, found.f_ffree)


def interfaces(path: str) -> dict[str, NetworkStats]:
    """Counters of every interface but loopback in the network namespace pinned at `path`.

    Raises:
        OSError: it is gone.
    """
    texts: list[str] = []

    def work() -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(fd, n.CLONE_NEWNET)
        finally:
            os.close(fd)
        with open("/proc/thread-self/net/dev", encoding="ascii") as file:
            texts.append(file.read(1 << 20))

    in_thread(work)
    return parse_interfaces(texts[0])


def parse_interfaces(text: str) -> dict[str, NetworkStats]:
    """The lines of /proc/net/dev, without loopback."""
    found = {}
    for line in text.split("\n")[2:]:
        name, colon, rest = line.partition(":")
        values = [int(word) for word in rest.split()]
        if colon and name.strip() != "lo" and len(values) >= 12:
            received, sent = values[:4], values[8:12]
            found[name.strip()] = NetworkStats(
                rx_bytes=received[0],
                rx_packets=received[1],
                rx_errors=received[2],
                rx_dropped=received[3],
                tx_bytes=sent[0],
                tx_packets=sent[1],
                tx_errors=sent[2],
                tx_dropped=sent[3],
            )
    return found


def _limits(pid: int) -> dict[str, int]:
    """Soft limits as `/proc/PID/limits` names them, in cAdvisor's words."""
    words = {"Max open files": "max_open_files"}
    found = {}
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            lines = file.read(1 << 14).split("\n")
    except OSError:
        return {}
    for line in lines:
        for start, name in words.items():
            if line.startswith(start):
                text = line[len(start) :].split()[0]
                found[name] = (1 << 63) - 1 if text == "unlimited" else int(text)
    return found
