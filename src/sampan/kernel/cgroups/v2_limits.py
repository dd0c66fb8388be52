"""OCI `linux.resources` as writes to version 2 files, values converted as runc converts them.

`plan` is pure, as its sister for version 1. What version 2 cannot do (real-time bandwidth,
swappiness, network classes) is a ValueError when it is asked for, where runc is silent.
"""

from __future__ import annotations

import math

from sampan.kernel.cgroups.fields import (
    DEVICE_THROTTLES,
    Fields,
    Write,
    device_of,
    huge_pages,
    rdma_line,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Look = Callable[[str, str], str | None]

_DEFAULT_PERIOD = 100_000
_ABSENT = (
    ("cpu", "realtimePeriod"),
    ("cpu", "realtimeRuntime"),
    ("memory", "disableOOMKiller"),
    ("network", "classID"),
    ("network", "priorities"),
)


def plan(resources: dict[str, Any], look: Look) -> list[Write]:
    """The writes for `resources`; ValueError for a value of the wrong type or range.

    `look(controller, file)` gives a file's text or None when there is no such file.
    """
    for name, key in _ABSENT:
        if (resources.get(name) or {}).get(key):
            raise ValueError(f"linux.resources.{name}.{key}: cgroup version 2 has no such limit")
    top = Fields(resources, "")
    return [
        *_memory(top.object("memory"), look),
        *_cpu(top.object("cpu"), look),
        *_cpuset(top.object("cpu")),
        *_pids(top.object("pids")),
        *_io(top.object("blockIO"), look),
        *_huge_pages(top),
        *_rdma(top.object("rdma")),
        *_unified(top.object("unified")),
    ]


def limit_text(value: int) -> str:
    """A limit as version 2 writes it."""
    return "max" if value < 0 else str(value)


def swap_limit(memory: int, swap: int) -> int | None:
    """Swap alone, from OCI's limit of memory and swap together; None leaves it as it is."""
    if memory == -1 and not swap:
        return -1  # unlimited memory means unlimited swap unless it is given
    if not swap:
        return None
    if swap == -1:
        return -1
    if memory <= 0:
        raise ValueError("linux.resources.memory.swap: cannot be set without a memory limit")
    if swap < memory:
        raise ValueError("linux.resources.memory.swap: memory and swap are less than memory")
    return swap - memory


def cpu_weight(shares: int) -> int:
    """Version 1 shares (2 to 262144, default 1024) as weight (1 to 10000, default 100).

    The quadratic curve through minimum, default and maximum that newer runc uses; the
    linear one before it made the default 39.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    power = math.log2(shares)
    return math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """Version 1 block weight (10 to 1000) as io.weight (1 to 10000)."""
    return 1 + (weight - 10) * 9999 // 990


def _memory(memory: Fields, look: Look) -> list[Write]:
    limit, swap = memory.integer("limit"), memory.integer("swap")
    if memory.flag("checkBeforeUpdate"):
        usage = int(look("memory", "memory.current") or 0)
        for field, what, asked in (
            ("swap", "memory+swap limit", swap),  # runc's words, and its order
            ("limit", "memory limit", limit),
        ):
            if 0 < asked <= usage:
                raise ValueError(
                    f"{memory.name(field)}: rejecting {what} {asked}, usage is {usage}"
                )
    writes = []
    if (alone := swap_limit(limit, swap)) is not None:
        # A kernel without swap accounting is fine with no swap and with no limit.
        write = memory.write(
            "memory", "memory.swap.max", limit_text(alone), "swap", optional=alone <= 0
        )
        writes.append(write)
    if limit:
        writes.append(memory.write("memory", "memory.max", limit_text(limit), "limit"))
    if reservation := memory.integer("reservation"):
        writes.append(memory.write("memory", "memory.low", limit_text(reservation), "reservation"))
    return writes


def _cpu(cpu: Fields, look: Look) -> list[Write]:
    writes = []
    if (idle := cpu.maybe("idle", 0, 1)) is not None:
        writes.append(cpu.write("cpu", "cpu.idle", idle, "idle"))
    if shares := cpu.maybe("shares", 0):
        writes.append(cpu.write("cpu", "cpu.weight", cpu_weight(shares), "shares"))
    burst = cpu.maybe("burst", 0)
    if burst is not None:
        writes.append(cpu.write("cpu", "cpu.max.burst", burst, "burst", again=True))
    quota, period = cpu.integer("quota"), cpu.maybe("period", 0) or 0
    if quota or period:
        # A period alone keeps the quota, a quota alone the period.
        old = (look("cpu", "cpu.max") or f"max {_DEFAULT_PERIOD}").split()
        text = f"{limit_text(quota) if quota else old[0]} {period or old[1]}"
        writes.append(cpu.write("cpu", "cpu.max", text, "quota" if quota else "period"))
    return writes


def _cpuset(cpu: Fields) -> list[Write]:
    sets = [(key, cpu.numbers(key)) for key in ("cpus", "mems")]
    return [cpu.write("cpuset", f"cpuset.{key}", value, key) for key, value in sets if value]


def _pids(pids: Fields) -> list[Write]:
    limit = pids.maybe("limit")
    if limit is None:
        return []
    # Zero means as few as possible, which is one, as under runc since 1.4.
    return [pids.write("pids", "pids.max", "max" if limit < 0 else limit or 1, "limit")]


def _io(io: Fields, look: Look) -> list[Write]:
    writes = []
    weighted = io.integer("weight") or io.objects("weightDevice")
    bfq = weighted and look("io", "io.bfq.weight") is not None
    if weight := io.maybe("weight", 0, 1000):
        # BFQ counts from 1 to 1000 as version 1 does, the cost model from 1 to 10000.
        file, value = ("io.bfq.weight", weight) if bfq else ("io.weight", io_weight(weight))
        writes.append(io.write("io", file, value, "weight"))
    for entry in io.objects("weightDevice"):
        if weight := entry.maybe("weight", 0, 1000):
            file, value = ("io.bfq.weight", weight) if bfq else ("io.weight", io_weight(weight))
            writes.append(entry.write("io", file, f"{device_of(entry)} {value}", "weight"))
    for key, (_, name) in DEVICE_THROTTLES.items():
        for entry in io.objects(key):
            rate = entry.maybe("rate", 0) or "max"
            writes.append(entry.write("io", "io.max", f"{device_of(entry)} {name}={rate}", "rate"))
    return writes


def _huge_pages(top: Fields) -> list[Write]:
    writes = []
    for entry in top.objects("hugepageLimits"):
        size, limit = huge_pages(entry)
        for file, optional in ((f"{size}.max", False), (f"{size}.rsvd.max", True)):
            writes.append(
                entry.write("hugetlb", f"hugetlb.{file}", limit, "limit", optional=optional)
            )
    return writes


def _rdma(rdma: Fields) -> list[Write]:
    return [rdma.write("rdma", "rdma.max", rdma_line(rdma, name), name) for name in rdma.members()]


def _unified(unified: Fields) -> list[Write]:
    writes = []
    for file in unified.members():
        controller, dot, rest = file.partition(".")
        if not (controller and dot and rest) or "/" in file or "\0" in file:
            raise ValueError(f"{unified.name(file)}: not the name of a cgroup file")
        if controller == "cgroup" and not rest.startswith("max."):
            # The others move processes and controllers; they are no limits.
            raise ValueError(f"{unified.name(file)}: not a limit")
        # A file of limits for devices takes one line at a time.
        lines = unified.text(file).strip("\n").split("\n")
        writes += [unified.write(controller, file, line, file) for line in lines]
    return writes
