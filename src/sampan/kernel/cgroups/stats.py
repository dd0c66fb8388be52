"""Raw counters of a cgroup in one shape, whatever the version.

{"cpu": {usage_ns, user_ns, system_ns, per_cpu_ns: [..], throttling: {periods,
throttled_periods, throttled_ns}}, "memory": {usage, limit, max, cache, rss, inactive_file,
failcnt, swap_usage, stat: {..}}, "pids": {current, limit}, "blkio": {read_bytes, write_bytes,
read_ops, write_ops, bytes: [{major, minor, op, value}], ops: [..]}, "oom_kills": n}

Bytes and nanoseconds. A counter that this kernel or this cgroup does not have is 0; a limit that
is not set is UNLIMITED.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Look = Callable[[str, str], str | None]

UNLIMITED = (1 << 64) - 1
# Version 1 shows "no limit" as the largest multiple of the page size in 63 bits.
_V1_UNLIMITED = (1 << 63) - (1 << 16)
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def number(text: str | None) -> int:
    """A counter's text as a number: 0 without one, UNLIMITED for "max"."""
    text = (text or "").strip()
    if text == "max":
        return UNLIMITED
    return int(text) if text.isascii() and text.lstrip("-").isdigit() else 0


def pairs(text: str | None) -> dict[str, int]:
    """The lines "key value" of a file."""
    result = {}
    for line in (text or "").split("\n"):
        key, _, value = line.partition(" ")
        if value:
            result[key] = number(value)
    return result


def from_v1(look: Look) -> dict[str, Any]:
    """The counters of a version 1 cgroup; look(controller, file) gives text or None."""
    return {
        "cpu": _v1_cpu(look),
        "memory": _v1_memory(look),
        "pids": _pids(look),
        "blkio": _v1_block_io(look),
        "oom_kills": pairs(look("memory", "memory.oom_control")).get("oom_kill", 0),
    }


def _v1_cpu(look: Look) -> dict[str, Any]:
    user, system = look("cpuacct", "cpuacct.usage_user"), look("cpuacct", "cpuacct.usage_sys")
    if user is None or system is None:
        ticks = pairs(look("cpuacct", "cpuacct.stat"))
        user_ns, system_ns = (ticks.get(key, 0) * _TICK_NS for key in ("user", "system"))
    else:
        user_ns, system_ns = number(user), number(system)
    throttling = pairs(look("cpu", "cpu.stat"))
    return {
        "usage_ns": number(look("cpuacct", "cpuacct.usage")),
        "user_ns": user_ns,
        "system_ns": system_ns,
        "per_cpu_ns": [int(x) for x in (look("cpuacct", "cpuacct.usage_percpu") or "").split()],
        "throttling": {
            "periods": throttling.get("nr_periods", 0),
            "throttled_periods": throttling.get("nr_throttled", 0),
            "throttled_ns": throttling.get("throttled_time", 0),
        },
    }


def _v1_memory(look: Look) -> dict[str, Any]:
    stat = pairs(look("memory", "memory.stat"))
    limit = number(look("memory", "memory.limit_in_bytes"))
    usage = number(look("memory", "memory.usage_in_bytes"))
    both = number(look("memory", "memory.memsw.usage_in_bytes"))
    return {
        "usage": usage,
        "limit": UNLIMITED if limit >= _V1_UNLIMITED else limit,
        "max": number(look("memory", "memory.max_usage_in_bytes")),
        "cache": stat.get("total_cache", stat.get("cache", 0)),
        "rss": stat.get("total_rss", stat.get("rss", 0)),
        "inactive_file": stat.get("total_inactive_file", 0),
        "failcnt": number(look("memory", "memory.failcnt")),
        "swap_usage": max(0, both - usage),
        "stat": stat,
    }


def _pids(look: Look) -> dict[str, int]:
    return {
        "current": number(look("pids", "pids.current")),
        "limit": number(look("pids", "pids.max")),
    }


def _v1_block_io(look: Look) -> dict[str, Any]:
    lists = []
    for suffix in ("io_service_bytes_recursive", "io_serviced_recursive"):
        bfq = _v1_entries(look("blkio", f"blkio.bfq.{suffix}"))
        # Only devices under the BFQ scheduler count there; throttling counts all of them.
        lists.append(bfq or _v1_entries(look("blkio", f"blkio.throttle.{suffix}")))
    return _block_io(*lists)


def _v1_entries(text: str | None) -> list[dict[str, Any]]:
    entries = []
    for line in (text or "").split("\n"):
        words = line.split(" ")
        if len(words) == 3:
            entries.append(_entry(words[0], words[1].lower(), int(words[2])))
    return entries


def _entry(device: str, op: str, value: int) -> dict[str, Any]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": op, "value": value}


def _block_io(sizes: list[dict[str, Any]], counts: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {"bytes": sizes, "ops": counts}
    for name, entries in (("bytes", sizes), ("ops", counts)):
        for op in ("read", "write"):
            result[f"{op}_{name}"] = sum(x["value"] for x in entries if x["op"] == op)
    return result


def from_v2(look: Look) -> dict[str, Any]:
    """The counters of a version 2 cgroup; look(controller, file) gives text or None."""
    return {
        "cpu": _v2_cpu(look),
        "memory": _v2_memory(look),
        "pids": _pids(look),
        "blkio": _v2_block_io(look("io", "io.stat")),
        "oom_kills": pairs(look("memory", "memory.events")).get("oom_kill", 0),
    }


def _v2_cpu(look: Look) -> dict[str, Any]:
    stat = pairs(look("cpu", "cpu.stat"))
    return {
        "usage_ns": stat.get("usage_usec", 0) * 1000,
        "user_ns": stat.get("user_usec", 0) * 1000,
        "system_ns": stat.get("system_usec", 0) * 1000,
        "per_cpu_ns": [],
        "throttling": {
            "periods": stat.get("nr_periods", 0),
            "throttled_periods": stat.get("nr_throttled", 0),
            "throttled_ns": stat.get("throttled_usec", 0) * 1000,
        },
    }


def _v2_memory(look: Look) -> dict[str, Any]:
    stat = pairs(look("memory", "memory.stat"))
    return {
        "usage": number(look("memory", "memory.current")),
        "limit": number(look("memory", "memory.max")),
        "max": number(look("memory", "memory.peak")),
        "cache": stat.get("file", 0),
        "rss": stat.get("anon", 0),
        "inactive_file": stat.get("inactive_file", 0),
        "failcnt": pairs(look("memory", "memory.events")).get("max", 0),
        "swap_usage": number(look("memory", "memory.swap.current")),
        "stat": stat,
    }


def _v2_block_io(text: str | None) -> dict[str, Any]:
    sizes: list[dict[str, Any]] = []
    counts: list[dict[str, Any]] = []
    for line in (text or "").split("\n"):
        device, *words = line.split(" ")
        for word in words:
            key, _, value = word.partition("=")
            if key in {"rbytes", "wbytes", "rios", "wios"}:
                entry = _entry(device, "read" if key[0] == "r" else "write", int(value))
                (sizes if key.endswith("bytes") else counts).append(entry)
    return _block_io(sizes, counts)
