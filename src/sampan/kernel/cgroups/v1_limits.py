"""OCI `linux.resources` as writes to version 1 files, in the order in which they may be done.

`plan` is pure: it is given the resources and a way to look at a file, and answers with writes as
data, so every rule here is testable without a kernel. As in the specification's Go types, zero
stands for "not given" where a limit of zero has no meaning; -1 is unlimited.
"""

from __future__ import annotations

from sampan.kernel.cgroups.fields import (
    DEVICE_THROTTLES,
    Fields,
    Write,
    device_of,
    huge_pages,
    rdma_line,
    word,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Look = Callable[[str, str], str | None]


_UNIFIED = (
    "linux.resources.unified: invalid configuration: it is for cgroup version 2, and this host "
    "has version 1"
)


def plan(resources: dict[str, Any], look: Look) -> list[Write]:
    """The writes for `resources`; ValueError for a value of the wrong type or range.

    `look(controller, file)` gives a file's text or None when there is no such file.
    """
    top = Fields(resources, "")
    if resources.get("unified"):
        raise ValueError(_UNIFIED)
    return [
        *_memory(top.object("memory"), look),
        *_cpu(top.object("cpu")),
        *_cpuset(top.object("cpu")),
        *_pids(top.object("pids")),
        *_block_io(top.object("blockIO"), look),
        *_huge_pages(top),
        *_network(top.object("network")),
        *_rdma(top.object("rdma")),
    ]


def _memory(memory: Fields, look: Look) -> list[Write]:
    limit, swap = memory.integer("limit"), memory.integer("swap")
    if limit == -1 and not swap and look("memory", "memory.memsw.limit_in_bytes") is not None:
        swap = -1  # unlimited memory with the old limit of memory and swap would be a lie
    if 0 < swap < limit:
        raise ValueError("linux.resources.memory.swap: memory and swap are less than memory")
    writes = []
    if limit:
        writes.append(memory.write("memory", "memory.limit_in_bytes", limit, "limit"))
    if swap:
        write = memory.write("memory", "memory.memsw.limit_in_bytes", swap, "swap")
        # The kernel keeps limit <= limit + swap at each moment: grow the outer one first.
        first = bool(limit) and (swap == -1 or _current(look) < swap)
        writes.insert(0 if first else len(writes), write)
    if reservation := memory.integer("reservation"):
        writes.append(
            memory.write("memory", "memory.soft_limit_in_bytes", reservation, "reservation")
        )
    # kernel and kernelTCP have no meaning any more: runc ignores them too.
    if memory.flag("disableOOMKiller"):
        writes.append(memory.write("memory", "memory.oom_control", 1, "disableOOMKiller"))
    if (swappiness := memory.maybe("swappiness", 0, 200)) is not None:
        writes.append(memory.write("memory", "memory.swappiness", swappiness, "swappiness"))
    return writes


def _current(look: Look) -> int:
    return int(look("memory", "memory.limit_in_bytes") or 0)


def _cpu(cpu: Fields) -> list[Write]:
    writes = []
    # Real time first, and period before runtime: a runtime must fit into its period. Where the old
    # runtime does not fit into the new period, that is tried again after the new one.
    for key, file in (
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        if value := cpu.integer(key):
            writes.append(cpu.write("cpu", file, value, key, again=key == "realtimePeriod"))
    if shares := cpu.integer("shares"):
        if not 2 <= shares <= 262144:
            raise ValueError(f"linux.resources.cpu.shares: {shares} is not within 2 and 262144")
        writes.append(cpu.write("cpu", "cpu.shares", shares, "shares"))
    # Each may be refused while the others are old, so EINVAL is tried again after the quota.
    if period := cpu.integer("period"):
        writes.append(cpu.write("cpu", "cpu.cfs_period_us", period, "period", again=True))
    if (burst := cpu.maybe("burst")) is not None:
        writes.append(cpu.write("cpu", "cpu.cfs_burst_us", burst, "burst", again=True))
    if quota := cpu.integer("quota"):
        writes.append(cpu.write("cpu", "cpu.cfs_quota_us", quota, "quota"))
    if (idle := cpu.maybe("idle", 0, 1)) is not None:
        writes.append(cpu.write("cpu", "cpu.idle", idle, "idle"))
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


def _block_io(io: Fields, look: Look) -> list[Write]:
    writes = []
    weighted = io.integer("weight") or io.objects("weightDevice")
    bfq = weighted and look("blkio", "blkio.bfq.weight") is not None
    prefix = "blkio.bfq." if bfq else "blkio."
    if weight := io.integer("weight"):
        writes.append(io.write("blkio", f"{prefix}weight", weight, "weight"))
    if leaf := io.integer("leafWeight"):
        writes.append(io.write("blkio", f"{prefix}leaf_weight", leaf, "leafWeight"))
    for entry in io.objects("weightDevice"):
        for key, file in (("weight", "weight_device"), ("leafWeight", "leaf_weight_device")):
            if value := entry.integer(key):
                writes.append(
                    entry.write("blkio", prefix + file, f"{device_of(entry)} {value}", key)
                )
    for key, (file, _) in DEVICE_THROTTLES.items():
        for entry in io.objects(key):
            line = f"{device_of(entry)} {entry.integer('rate')}"
            writes.append(entry.write("blkio", f"blkio.throttle.{file}", line, "rate"))
    return writes


def _huge_pages(top: Fields) -> list[Write]:
    writes = []
    for entry in top.objects("hugepageLimits"):
        size, limit = huge_pages(entry)
        # Reservations count too where the kernel can do so (5.7); older ones have no such file.
        for file, optional in (
            (f"{size}.limit_in_bytes", False),
            (f"{size}.rsvd.limit_in_bytes", True),
        ):
            writes.append(
                entry.write("hugetlb", f"hugetlb.{file}", limit, "limit", optional=optional)
            )
    return writes


def _network(network: Fields) -> list[Write]:
    writes = []
    if class_id := network.integer("classID"):
        writes.append(network.write("net_cls", "net_cls.classid", class_id, "classID"))
    for entry in network.objects("priorities"):
        line = f"{word(entry, 'name')} {entry.integer('priority')}"
        writes.append(entry.write("net_prio", "net_prio.ifpriomap", line, "priority"))
    return writes


def _rdma(rdma: Fields) -> list[Write]:
    return [rdma.write("rdma", "rdma.max", rdma_line(rdma, name), name) for name in rdma.members()]
