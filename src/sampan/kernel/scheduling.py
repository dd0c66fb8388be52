"""How the kernel serves a process: its scheduler, I/O priority, memory nodes, execution domain.

Imported only where a configuration asks for one of them.
"""

from __future__ import annotations

import ctypes

from sampan.kernel import numbers as n
from sampan.kernel.libc import c_int, c_uint, c_ulong, c_void_p, check, prototype, syscall

# name -> (x86-64, arm64)
_NUMBERS = {
    "ioprio_set": (251, 30),
    "sched_setattr": (314, 274),
    "set_mempolicy": (238, 237),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(n.MACHINE, -1)


def _number(name: str) -> int:
    return _NUMBERS[name][_COLUMN] if _COLUMN >= 0 else -1


_ioprio_set = syscall(_number("ioprio_set"), c_int, c_int, c_int)
_sched_setattr = syscall(_number("sched_setattr"), c_int, c_void_p, c_uint)
_set_mempolicy = syscall(_number("set_mempolicy"), c_int, c_void_p, c_ulong)
_personality = prototype("personality", c_int, c_ulong)

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
MAX_NODES = 1024  # MAX_NUMNODES of the largest kernels
DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}
_IO_CLASS_SHIFT = 13
_THIS_PROCESS = 1  # IOPRIO_WHO_PROCESS


class _SchedAttr(ctypes.Structure):
    """struct sched_attr of linux/sched/types.h, its first version (48 bytes)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def set_scheduler(
    policy: int, flags: int, nice: int, priority: int, times: tuple[int, int, int]
) -> None:
    """sched_setattr(2) of this thread; `times` are runtime, deadline, period in nanoseconds."""
    size = ctypes.sizeof(_SchedAttr)
    attr = _SchedAttr(size, policy, flags, nice, priority, *times)
    check(_sched_setattr(0, ctypes.addressof(attr), 0), "sched_setattr")


def set_io_priority(kind: int, priority: int) -> None:
    """ioprio_set(2) of this thread: 0 is the highest priority of a class, 7 the lowest."""
    check(_ioprio_set(_THIS_PROCESS, 0, kind << _IO_CLASS_SHIFT | priority), "ioprio_set")


def set_memory_policy(mode: int, nodes: list[int]) -> None:
    """set_mempolicy(2) of this thread; `mode` with its flags."""
    if not nodes:
        check(_set_mempolicy(mode, None, 0), "set_mempolicy")
        return
    mask = bytearray(MAX_NODES // 8)
    for node in nodes:
        mask[node // 8] |= 1 << node % 8
    raw = ctypes.create_string_buffer(bytes(mask), len(mask))
    check(_set_mempolicy(mode, ctypes.addressof(raw), MAX_NODES), "set_mempolicy")


def set_personality(domain: int) -> None:
    """personality(2): what uname(2) says of the machine."""
    check(_personality(domain), "personality")
