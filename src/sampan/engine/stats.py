"""One reading of a container's counters, and its processes as `ps` shows them."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from sampan.engine.lifecycle import cgroup_of
from sampan.engine.model import BlkioEntry, NetworkStats, Stats, Status, Top
from sampan.errors import Conflict, InvalidArgument
from sampan.kernel.cgroups.stats import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.containers import Entry
    from sampan.engine.model import Container
    from sampan.engine.services import Services

    Counters = Callable[[], dict[str, Any]]
    """What reads raw counters, in the shape of `kernel.cgroups.stats`."""

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
MEMORY_TOTAL = _PAGE * os.sysconf("SC_PHYS_PAGES")
_PS_PATIENCE = 10


async def read(services: Services, entry: Entry, counters: Counters | None = None) -> Stats:
    """See Engine.stats."""
    container = entry.container
    if not container.status.is_running:
        return Stats(id=container.id, name=container.name, time_ns=time.time_ns())
    cgroup = cgroup_of(services, entry)
    try:
        raw, host, networks = await services.on_disk(
            lambda: ((counters or cgroup.stats)(), host_cpu_ns(), _networks(container))
        )
    except OSError:
        if entry.container.status.is_running:
            raise
        return Stats(id=container.id, name=container.name, time_ns=time.time_ns())
    return _stats(container, raw, host, networks)


async def pids(services: Services, entry: Entry) -> list[int]:
    """See Engine.pids."""
    try:
        found: list[int] = await services.on_disk(cgroup_of(services, entry).pids)
    except OSError:
        return []
    return found


def host_cpu_ns() -> int:
    """What all processors of the host have spent, idle included, since boot."""
    with open("/proc/stat", "rb") as file:
        words = file.readline().split()[1:9]
    return sum(int(word) for word in words) * _TICK


def _stats(
    container: Container, raw: dict[str, Any], host: int, networks: dict[str, NetworkStats]
) -> Stats:
    cpu, memory, pids, blkio = raw["cpu"], raw["memory"], raw["pids"], raw["blkio"]
    throttling = cpu["throttling"]
    return Stats(
        id=container.id,
        name=container.name,
        time_ns=time.time_ns(),
        cpu_total_ns=cpu["usage_ns"],
        cpu_user_ns=cpu["user_ns"],
        cpu_system_ns=cpu["system_ns"],
        cpu_percpu_ns=tuple(cpu["per_cpu_ns"]),
        cpu_periods=throttling["periods"],
        cpu_throttled_periods=throttling["throttled_periods"],
        cpu_throttled_ns=throttling["throttled_ns"],
        host_cpu_ns=host,
        online_cpus=os.cpu_count() or 1,
        memory_usage=memory["usage"],
        memory_max_usage=memory["max"],
        memory_limit=min(memory["limit"] or UNLIMITED, MEMORY_TOTAL),
        memory_failcnt=memory["failcnt"],
        memory_stats=memory["stat"],
        pids_current=pids["current"],
        pids_limit=0 if pids["limit"] == UNLIMITED else pids["limit"],
        oom_kills=raw["oom_kills"],
        blkio_bytes=_entries(blkio["bytes"]),
        blkio_ops=_entries(blkio["ops"]),
        networks=networks,
    )


def _entries(raw: list[dict[str, Any]]) -> tuple[BlkioEntry, ...]:
    return tuple(
        BlkioEntry(major=entry["major"], minor=entry["minor"], op=entry["op"], value=entry["value"])
        for entry in raw
    )


def _networks(container: Container) -> dict[str, NetworkStats]:
    """Counters of the interfaces in a network of its own; there is only loopback so far."""
    if container.host.network_mode == "host":
        return {}
    found: dict[str, NetworkStats] = {}
    try:
        with open(f"/proc/{container.state.pid}/net/dev", encoding="ascii") as file:
            lines = file.read(1 << 20).split("\n")[2:]
    except OSError:
        return {}
    for line in lines:
        name, colon, rest = line.partition(":")
        values = [int(word) for word in rest.split()]
        if colon and name.strip() != "lo" and len(values) >= 12:
            found[name.strip()] = NetworkStats(
                rx_bytes=values[0],
                rx_packets=values[1],
                rx_errors=values[2],
                rx_dropped=values[3],
                tx_bytes=values[8],
                tx_packets=values[9],
                tx_errors=values[10],
                tx_dropped=values[11],
            )
    return found


async def top(services: Services, entry: Entry, ps_args: str) -> Top:
    """See Engine.top: the host's own `ps`, cut down to the container's processes."""
    container = entry.container
    if container.status is Status.RESTARTING:
        raise Conflict(
            f"container {container.id} is restarting, wait until the container is running"
        )
    if not container.status.is_running:
        raise Conflict(f"container {container.id} is not running")
    words = ps_args.split() or ["-ef"]
    cgroup = cgroup_of(services, entry)
    result = await services.on_disk(lambda: _top(words, set(cgroup.pids())))
    services.containers.emit(entry, "top")
    assert isinstance(result, Top)
    return result


def _top(words: list[str], pids: set[int]) -> Top:
    try:
        done = subprocess.run(
            ["ps", *words], capture_output=True, timeout=_PS_PATIENCE, check=False
        )
    except FileNotFoundError:
        return own_top(pids)
    except subprocess.TimeoutExpired as error:
        raise Conflict("ps did not end in time") from error
    if done.returncode:
        raise InvalidArgument(f"ps: {done.stderr.decode(errors='replace').strip()[:500]}")
    return parse_ps(done.stdout.decode(errors="replace"), pids)


def parse_ps(text: str, pids: set[int]) -> Top:
    """The lines of `ps` whose PID column is one of `pids`.

    Raises:
        InvalidArgument: there is no such column.
    """
    lines = text.split("\n")
    titles = tuple(lines[0].split())
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        words = line.split(None, len(titles) - 1)
        if len(words) > column and words[column].isdecimal() and int(words[column]) in pids:
            rows.append(tuple(words))
    return Top(titles=titles, processes=tuple(rows))


def own_top(pids: set[int]) -> Top:
    """For hosts without `ps`: what /proc says, in fewer columns."""
    rows = []
    for pid in sorted(pids):
        try:
            status = os.stat(f"/proc/{pid}")
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                parent = file.read().rpartition(")")[2].split()[1]
            with open(f"/proc/{pid}/cmdline", "rb") as raw:
                command = raw.read(4096).replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it has ended
        rows.append((str(status.st_uid), str(pid), parent, command))
    return Top(titles=("UID", "PID", "PPID", "CMD"), processes=tuple(rows))
