"""The statistics of a container in the words of `runc events`, which monitoring tools read.

Counters that are zero are left out where runc leaves them out. `look(controller, file)` reads what
`kernel.cgroups.stats` has no place for.
"""

from __future__ import annotations

import os

from sampan.kernel.cgroups.stats import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Look = Callable[[str, str], str | None]

_PAGES = "/sys/kernel/mm/hugepages"
_V1_EXTRAS = {"swap": "memory.memsw", "kernel": "memory.kmem", "kernelTCP": "memory.kmem.tcp"}
_CPUSET_FLAGS = {
    "cpu_exclusive": "cpu_exclusive",
    "mem_hardwall": "mem_hardwall",
    "mem_exclusive": "mem_exclusive",
    "memory_migrate": "memory_migrate",
    "memory_spread_page": "memory_spread_page",
    "memory_spread_slab": "memory_spread_slab",
    "memory_pressure": "memory_pressure",
    "sched_load_balance": "sched_load_balance",
    "sched_relax_domain_level": "sched_relax_domain_level",
}


def document(counters: dict[str, Any], look: Look) -> dict[str, Any]:
    """The object `data` of an event of type stats."""
    return {
        "cpu": _cpu(counters["cpu"]),
        "cpuset": _cpuset(look),
        "memory": _memory(counters["memory"], look),
        "pids": _pids(counters["pids"], look),
        "blkio": _block_io(counters["blkio"]),
        "hugetlb": _huge_pages(look),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _without_zero(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _cpu(cpu: dict[str, Any]) -> dict[str, Any]:
    throttling = cpu["throttling"]
    usage = _without_zero({"total": cpu["usage_ns"], "percpu": cpu["per_cpu_ns"]})
    return {
        "usage": {**usage, "kernel": cpu["system_ns"], "user": cpu["user_ns"]},
        "throttling": _without_zero(
            {
                "periods": throttling["periods"],
                "throttledPeriods": throttling["throttled_periods"],
                "throttledTime": throttling["throttled_ns"],
            }
        ),
    }


def _cpuset(look: Look) -> dict[str, Any]:
    sets: dict[str, Any] = {}
    for key in ("cpus", "mems"):
        text = look("cpuset", f"cpuset.{key}") or look("cpuset", f"cpuset.{key}.effective") or ""
        if numbers := expand(text.strip()):
            sets[key] = numbers
    for key, file in _CPUSET_FLAGS.items():
        sets[key] = int((look("cpuset", f"cpuset.{file}") or "0").strip() or 0)
    return sets


def expand(text: str) -> list[int]:
    """The numbers of a list such as 0-2,7."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += range(int(first), int(last or first) + 1)
    return found


def _memory(memory: dict[str, Any], look: Look) -> dict[str, Any]:
    document: dict[str, Any] = {
        "usage": _usage(memory["limit"], memory["usage"], memory["max"], memory["failcnt"])
    }
    if memory["cache"]:
        document["cache"] = memory["cache"]
    for key, prefix in _V1_EXTRAS.items():
        if (limit := look("memory", f"{prefix}.limit_in_bytes")) is not None:
            files = ("usage_in_bytes", "max_usage_in_bytes", "failcnt")
            numbers = [number(look("memory", f"{prefix}.{file}")) for file in files]
            document[key] = _usage(number(limit), *numbers)
    if (swap := look("memory", "memory.swap.max")) is not None:
        # As runc: memory and swap together, as version 1 counts them.
        usage = memory["usage"] + memory["swap_usage"]
        limit_of_swap = number(swap)
        both = min(limit_of_swap + memory["limit"], (1 << 64) - 1)
        document["swap"] = _usage(both, usage, 0, 0)
    document["raw"] = memory["stat"]
    return document


def _usage(limit: int, usage: int, most: int, failures: int) -> dict[str, int]:
    used = _without_zero({"usage": usage, "max": most})
    return {"limit": limit, **used, "failcnt": failures}


def _pids(pids: dict[str, int], look: Look) -> dict[str, int]:
    unlimited = (look("pids", "pids.max") or "max").strip() == "max"
    return _without_zero({"current": pids["current"], "limit": 0 if unlimited else pids["limit"]})


def _block_io(io: dict[str, Any]) -> dict[str, Any]:
    lists = {"ioServiceBytesRecursive": io["bytes"], "ioServicedRecursive": io["ops"]}
    return {
        name: [{**entry, "op": entry["op"].capitalize()} for entry in entries]
        for name, entries in lists.items()
        if entries
    }


def _huge_pages(look: Look) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for size in page_sizes():
        usage = look("hugetlb", f"hugetlb.{size}.usage_in_bytes")
        if usage is not None:
            most = number(look("hugetlb", f"hugetlb.{size}.max_usage_in_bytes"))
            failures = number(look("hugetlb", f"hugetlb.{size}.failcnt"))
        else:
            usage, most = look("hugetlb", f"hugetlb.{size}.current"), 0
            events = (look("hugetlb", f"hugetlb.{size}.events") or "").split()
            failures = int(events[1]) if len(events) > 1 else 0
        if usage is not None:
            used = _without_zero({"usage": number(usage), "max": most})
            found[size] = {**used, "failcnt": failures}
    return found


def page_sizes() -> list[str]:
    """The sizes of huge pages on this machine, as they stand in the names of cgroup files."""
    try:
        names = os.listdir(_PAGES)
    except FileNotFoundError:
        return []
    sizes = []
    for name in sorted(names):
        kibibytes = int(name.removeprefix("hugepages-").removesuffix("kB"))
        for unit, factor in (("GB", 1 << 20), ("MB", 1 << 10), ("KB", 1)):
            if kibibytes % factor == 0:
                sizes.append(f"{kibibytes // factor}{unit}")
                break
    return sizes
