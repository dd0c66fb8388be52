"""Statistics on the wire: GET /containers/{id}/stats, one object per sample.

The counters are raw, in nanoseconds and bytes; a client takes two samples (`cpu_stats` and
`precpu_stats`) and divides. The member names are those of cgroup v1, which dockerd keeps.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

from sampan.wire.docker import NO_TIME


class CpuUsage(Struct, kw_only=True):
    """CPU time used, in nanoseconds."""

    total_usage: int = 0
    percpu_usage: list[int] | UnsetType = UNSET
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0


class Throttling(Struct, kw_only=True):
    """How often and how long the quota stopped the container."""

    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class Cpu(Struct, kw_only=True):
    """CPU use beside that of the whole machine."""

    cpu_usage: CpuUsage = field(default_factory=CpuUsage)
    system_cpu_usage: int | UnsetType = UNSET
    online_cpus: int | UnsetType = UNSET
    throttling_data: Throttling = field(default_factory=Throttling)


class Pids(Struct, kw_only=True):
    """Number of tasks and its limit."""

    current: int | UnsetType = UNSET
    limit: int | UnsetType = UNSET


class BlockEntry(Struct, kw_only=True):
    """One counter of one block device."""

    major: int
    minor: int
    op: str
    value: int


class Block(Struct, kw_only=True):
    """Block device traffic."""

    io_service_bytes_recursive: list[BlockEntry] = field(default_factory=list)
    io_serviced_recursive: list[BlockEntry] = field(default_factory=list)
    io_queue_recursive: list[BlockEntry] = field(default_factory=list)
    io_service_time_recursive: list[BlockEntry] = field(default_factory=list)
    io_wait_time_recursive: list[BlockEntry] = field(default_factory=list)
    io_merged_recursive: list[BlockEntry] = field(default_factory=list)
    io_time_recursive: list[BlockEntry] = field(default_factory=list)
    sectors_recursive: list[BlockEntry] = field(default_factory=list)


class Memory(Struct, kw_only=True):
    """Memory in bytes; `stats` is the controller's own table."""

    usage: int | UnsetType = UNSET
    max_usage: int | UnsetType = UNSET
    stats: dict[str, int] | UnsetType = UNSET
    failcnt: int | UnsetType = UNSET
    limit: int | UnsetType = UNSET


class Interface(Struct, kw_only=True):
    """Traffic of one network interface."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class Stats(Struct, kw_only=True):
    """One sample, and the one before it."""

    name: str
    id: str
    os_type: str | UnsetType = UNSET
    read: str = NO_TIME
    preread: str = NO_TIME
    pids_stats: Pids = field(default_factory=Pids)
    blkio_stats: Block = field(default_factory=Block)
    num_procs: int = 0
    storage_stats: dict[str, int] = field(default_factory=dict)
    cpu_stats: Cpu = field(default_factory=Cpu)
    precpu_stats: Cpu = field(default_factory=Cpu)
    memory_stats: Memory = field(default_factory=Memory)
    networks: dict[str, Interface] | UnsetType = UNSET
