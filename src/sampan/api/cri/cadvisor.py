"""The metrics that cAdvisor named: what they are, and how they come out of one reading. Pure.

A table says it all: name, help, kind, the labels that this metric has beside the common ones, and
its values. What the kernel does not count is described and not sent: pressure in version 1 of
cgroups, and huge pages where it has no controller of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sampan.engine.model import BlkioEntry
    from sampan.engine.model import Stats as Reading
    from sampan.pods.gauges import Gauges, Space
    from sampan.pods.model import Resources

    Values = Iterable[tuple[tuple[str, ...], int]]

COMMON = ("container", "id", "image", "name", "namespace", "pod")
_SECOND = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that is read of a container at once."""

    reading: Reading
    gauges: Gauges
    space: Space
    written: int
    resources: Resources
    started_at: int


@dataclass(frozen=True, slots=True)
class Kind:
    """One metric of a container."""

    name: str
    help: str
    type: int
    labels: tuple[str, ...]
    values: Callable[[Seen], Values]


def _one(value: Callable[[Seen], int]) -> Callable[[Seen], Values]:
    return lambda seen: [((), value(seen))]


def _counter(name: str, text: str, value: Callable[[Seen], int]) -> Kind:
    return Kind(name, text, pb.COUNTER, (), _one(value))


def _gauge(name: str, text: str, value: Callable[[Seen], int]) -> Kind:
    return Kind(name, text, pb.GAUGE, (), _one(value))


def _stat(seen: Seen, *names: str) -> int:
    """The first of several counters of memory.stat that is there."""
    stat = seen.reading.memory_stats
    return next((stat[name] for name in names if name in stat), 0)


def _working_set(seen: Seen) -> int:
    return max(0, seen.reading.memory_usage - _stat(seen, "total_inactive_file", "inactive_file"))


def _failures(seen: Seen) -> Values:
    for kind, plain, total in (
        ("pgfault", "pgfault", "total_pgfault"),
        ("pgmajfault", "pgmajfault", "total_pgmajfault"),
    ):
        yield (kind, "container"), _stat(seen, plain)
        yield (kind, "hierarchy"), _stat(seen, total, plain)


def _devices(entries: Iterable[BlkioEntry], op: str) -> Values:
    for entry in entries:
        if entry.op == op:
            yield (f"/dev/block/{entry.major}:{entry.minor}",), entry.value


def _usage(seen: Seen) -> Values:
    for entry in seen.reading.blkio_bytes:
        if entry.op in ("read", "write"):
            device = f"/dev/block/{entry.major}:{entry.minor}"
            yield (device, str(entry.major), str(entry.minor), entry.op.capitalize()), entry.value


def _pressure(kind: str, extent: str) -> Callable[[Seen], Values]:
    def values(seen: Seen) -> Values:
        found = seen.gauges.pressure.get((kind, extent))
        return [] if found is None else [((), found // 10**6)]

    return values


def _pressure_kinds() -> Iterable[Kind]:
    for kind in ("cpu", "memory", "io"):
        for extent, word, text in (
            ("full", "stalled", "Seconds in which no process went on for want of"),
            ("some", "waiting", "Seconds in which a process waited for want of"),
        ):
            name = f"container_pressure_{kind}_{word}_seconds_total"
            yield Kind(name, f"{text} {kind}.", pb.COUNTER, (), _pressure(kind, extent))


def _huge_pages(place: int) -> Callable[[Seen], Values]:
    return lambda seen: [((size,), both[place]) for size, both in seen.gauges.huge_pages.items()]


CONTAINER = (
    *_pressure_kinds(),
    Kind(
        "container_hugetlb_usage_bytes",
        "Bytes of huge pages.",
        pb.GAUGE,
        ("pagesize",),
        _huge_pages(0),
    ),
    Kind(
        "container_hugetlb_max_usage_bytes",
        "The most bytes of huge pages that there were.",
        pb.GAUGE,
        ("pagesize",),
        _huge_pages(1),
    ),
    _counter(
        "container_cpu_usage_seconds_total",
        "Seconds of processor time.",
        lambda s: s.reading.cpu_total_ns // _SECOND,
    ),
    _counter(
        "container_cpu_user_seconds_total",
        "Seconds of processor time as a user.",
        lambda s: s.reading.cpu_user_ns // _SECOND,
    ),
    _counter(
        "container_cpu_system_seconds_total",
        "Seconds of processor time in the kernel.",
        lambda s: s.reading.cpu_system_ns // _SECOND,
    ),
    _counter(
        "container_cpu_cfs_periods_total",
        "Periods of the processor's bandwidth limit.",
        lambda s: s.reading.cpu_periods,
    ),
    _counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the limit was reached.",
        lambda s: s.reading.cpu_throttled_periods,
    ),
    _counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Seconds of waiting because of the limit.",
        lambda s: s.reading.cpu_throttled_ns // _SECOND,
    ),
    _gauge(
        "container_memory_usage_bytes",
        "Bytes of memory, caches included.",
        lambda s: s.reading.memory_usage,
    ),
    _gauge(
        "container_memory_working_set_bytes",
        "Bytes of memory without inactive file pages.",
        _working_set,
    ),
    _gauge(
        "container_memory_max_usage_bytes",
        "The most bytes of memory so far.",
        lambda s: s.reading.memory_max_usage,
    ),
    _gauge(
        "container_memory_rss",
        "Bytes of anonymous memory.",
        lambda s: _stat(s, "total_rss", "anon"),
    ),
    _gauge(
        "container_memory_cache",
        "Bytes of page cache.",
        lambda s: _stat(s, "total_cache", "file"),
    ),
    _gauge(
        "container_memory_mapped_file",
        "Bytes of mapped files.",
        lambda s: _stat(s, "total_mapped_file", "file_mapped"),
    ),
    _gauge("container_memory_swap", "Bytes in swap.", lambda s: _stat(s, "total_swap", "swap")),
    _gauge(
        "container_memory_kernel_usage",
        "Bytes of kernel memory.",
        lambda s: _stat(s, "kernel", "slab"),
    ),
    _counter(
        "container_memory_failcnt",
        "How often the memory limit was hit.",
        lambda s: s.reading.memory_failcnt,
    ),
    Kind(
        "container_memory_failures_total",
        "Page faults.",
        pb.COUNTER,
        ("failure_type", "scope"),
        _failures,
    ),
    _counter(
        "container_oom_events_total",
        "Processes killed for want of memory.",
        lambda s: s.reading.oom_kills,
    ),
    _gauge("container_processes", "Processes.", lambda s: s.gauges.processes),
    _gauge("container_threads", "Threads.", lambda s: s.reading.pids_current),
    _gauge(
        "container_threads_max",
        "The most threads allowed, 0 without a limit.",
        lambda s: s.reading.pids_limit,
    ),
    _gauge("container_file_descriptors", "Open descriptors.", lambda s: s.gauges.descriptors),
    _gauge("container_sockets", "Open sockets.", lambda s: s.gauges.sockets),
    Kind(
        "container_ulimits_soft",
        "Soft limits of the first process.",
        pb.GAUGE,
        ("ulimit",),
        lambda s: [((name,), value) for name, value in (s.gauges.limits or {}).items()],
    ),
    _gauge(
        "container_last_seen",
        "When it was seen, in seconds since the epoch.",
        lambda s: s.reading.time_ns // _SECOND,
    ),
    _gauge(
        "container_start_time_seconds",
        "When it was started, in seconds since the epoch.",
        lambda s: s.started_at // _SECOND,
    ),
    _gauge(
        "container_spec_cpu_period",
        "The period of the processor's limit, in microseconds.",
        lambda s: s.resources.cpu_period,
    ),
    _gauge(
        "container_spec_cpu_quota",
        "Microseconds of processor time in a period, 0 without a limit.",
        lambda s: s.resources.cpu_quota,
    ),
    _gauge(
        "container_spec_cpu_shares", "The processor's weight.", lambda s: s.resources.cpu_shares
    ),
    _gauge(
        "container_spec_memory_limit_bytes",
        "The memory limit, 0 without one.",
        lambda s: s.resources.memory,
    ),
    _gauge(
        "container_spec_memory_reservation_limit_bytes",
        "The memory reservation, 0 without one.",
        lambda _: 0,
    ),
    _gauge(
        "container_spec_memory_swap_limit_bytes",
        "The limit of memory and swap, 0 without one.",
        lambda s: s.resources.memory_swap,
    ),
    Kind(
        "container_fs_usage_bytes",
        "Bytes that the container has written.",
        pb.GAUGE,
        ("device",),
        lambda s: [(("overlay",), s.written)],
    ),
    Kind(
        "container_fs_limit_bytes",
        "Bytes of the file system that it writes to.",
        pb.GAUGE,
        ("device",),
        lambda s: [(("overlay",), s.space.size)],
    ),
    Kind(
        "container_fs_inodes_total",
        "Inodes of that file system.",
        pb.GAUGE,
        ("device",),
        lambda s: [(("overlay",), s.space.inodes)],
    ),
    Kind(
        "container_fs_inodes_free",
        "Free inodes of it.",
        pb.GAUGE,
        ("device",),
        lambda s: [(("overlay",), s.space.inodes_free)],
    ),
    Kind(
        "container_fs_reads_bytes_total",
        "Bytes read from devices.",
        pb.COUNTER,
        ("device",),
        lambda s: _devices(s.reading.blkio_bytes, "read"),
    ),
    Kind(
        "container_fs_writes_bytes_total",
        "Bytes written to devices.",
        pb.COUNTER,
        ("device",),
        lambda s: _devices(s.reading.blkio_bytes, "write"),
    ),
    Kind(
        "container_fs_reads_total",
        "Reads from devices.",
        pb.COUNTER,
        ("device",),
        lambda s: _devices(s.reading.blkio_ops, "read"),
    ),
    Kind(
        "container_fs_writes_total",
        "Writes to devices.",
        pb.COUNTER,
        ("device",),
        lambda s: _devices(s.reading.blkio_ops, "write"),
    ),
    Kind(
        "container_blkio_device_usage_total",
        "Bytes by device and operation.",
        pb.COUNTER,
        ("device", "major", "minor", "operation"),
        _usage,
    ),
)
"""Every metric of a container."""

NETWORK = {
    "container_network_receive_bytes_total": ("Bytes received.", "rx_bytes"),
    "container_network_receive_packets_total": ("Packets received.", "rx_packets"),
    "container_network_receive_errors_total": ("Errors of receiving.", "rx_errors"),
    "container_network_receive_packets_dropped_total": (
        "Packets dropped on arrival.",
        "rx_dropped",
    ),
    "container_network_transmit_bytes_total": ("Bytes sent.", "tx_bytes"),
    "container_network_transmit_packets_total": ("Packets sent.", "tx_packets"),
    "container_network_transmit_errors_total": ("Errors of sending.", "tx_errors"),
    "container_network_transmit_packets_dropped_total": (
        "Packets dropped on sending.",
        "tx_dropped",
    ),
}
"""Every metric of a pod's interface: help, and the field of its counters."""
