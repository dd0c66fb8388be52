"""What an answer of /stats comes to: the share of processors, the memory that counts, the bytes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def cpu_percent(stats: dict[str, Any]) -> float:
    """The share of one processor, in hundredths, between the two readings in an answer."""
    now, before = stats["cpu_stats"], stats["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    system = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    processors = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ())
    return used / system * processors * 100 if system > 0 and used > 0 else 0.0


def memory_used(memory: dict[str, Any]) -> int:
    """Usage without the page cache that can be dropped, on both versions of cgroups."""
    usage = int(memory.get("usage") or 0)
    details = memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        if details.get(name, usage) < usage:
            return usage - int(details[name])
    return usage


def blocks(stats: dict[str, Any], operation: str) -> int:
    """Bytes that were read from or written to block devices: `read`, `write`."""
    entries = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    return sum(entry["value"] for entry in entries if entry["op"].lower() == operation)
