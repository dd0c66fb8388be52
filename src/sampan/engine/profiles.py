"""What a container may do by default: capabilities, paths hidden from it, system calls.

The system call profile is OCI `linux.seccomp`, made for the capabilities a container has: every
call that the kernel has, without those that reach past a container (`_NEVER`) and those that its
capabilities do not unlock (`_GATED`). It follows Docker's, and is stricter in three places:

* `socket` and `socketpair` have a list of families that are allowed, compared in the 32 bits that
  the kernel looks at. Docker forbids two families by comparing 64 bits, so that a set upper half
  brings them back.
* `socketcall`, the way into every socket family of 32 bit x86, hides the family behind a pointer.
  It is allowed in 32 bit images only.
* The x32 numbers of x86_64 are not allowed.
"""

from __future__ import annotations

import errno
import glob
from functools import cache
from typing import TYPE_CHECKING

from sampan.kernel import syscall_table

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW "
        "SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

READONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

# Keys and keyrings have no namespace; io_uring goes past every filter; the rest manages the
# machine (kexec, swap, memory of others), or is long gone from the kernel.
_NEVER = frozenset(
    """
    _sysctl add_key afs_syscall bdflush break create_module file_setattr ftime get_kernel_syms
    getpmsg gtty idle io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load
    keyctl lock migrate_pages move_pages mpx nfsservctl oldfstat oldlstat oldolduname oldstat
    olduname pciconfig_iobase pciconfig_read pciconfig_write pivot_root prof profil putpmsg
    query_module request_key security sgetmask socketcall ssetmask stty swapoff swapon sysfs
    tuxcall ulimit uprobe uselib userfaultfd usr26 usr32 ustat vm86 vm86old vserver
    """.split()
)

_GATED = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": """
        bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie listns lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr
        perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2
        unshare""",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

# Have conditions, written below.
_CONDITIONAL = frozenset(("clone", "clone3", "personality", "socket", "socketpair"))

_AF_UNIX = 1
_FAMILIES = (_AF_UNIX, 2, 10, 16)  # unix, inet, inet6, netlink
_GATED_FAMILIES = {"CAP_NET_RAW": (17,), "CAP_NET_ADMIN": (15, 29, 44)}  # packet; key, can, xdp

# Linux and SVr4 with UNAME26 or without, and the question what it is now. Nothing that turns off
# address space randomisation or makes pages readable for execution.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
_CLONE_NAMESPACES = 0x7E020000

_ARCHITECTURES = {
    "amd64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "386": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "arm64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "arm": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}


@cache
def masked_paths() -> tuple[str, ...]:
    """The paths hidden from containers on this machine.

    Beside the fixed ones these are the throttle counters of each processor that has them: they
    tell what the neighbours are computing.
    """
    return (*MASKED_PATHS, *sorted(glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle")))


def seccomp_profile(capabilities: Collection[str], architecture: str = "amd64") -> dict[str, Any]:
    """The default OCI `linux.seccomp` for a container with these capabilities.

    `architecture` is the image's, as OCI spells it; one we have no profile for is a ValueError.
    """
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"no default seccomp profile for architecture {architecture}")
    held = frozenset(capabilities)
    allowed = set(_ungated())
    for capability, names in _GATED.items():
        if capability in held:
            allowed.update(names.split())
    if architecture == "386":
        allowed.add("socketcall")
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": list(_ARCHITECTURES[architecture]),
        "syscalls": [_allow(*sorted(allowed)), *_sockets(held), *_personality(), *_clone(held)],
    }


@cache
def _ungated() -> frozenset[str]:
    tables = (
        syscall_table.X86_64,
        syscall_table.I386,
        syscall_table.AARCH64,
        syscall_table.ARM,
    )
    gated = {name for names in _GATED.values() for name in names.split()}
    return frozenset().union(*tables) - _NEVER - gated - _CONDITIONAL


def _allow(*names: str, args: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": list(names), "action": "SCMP_ACT_ALLOW"}
    return {**rule, "args": args} if args else rule


def _int_is(index: int, value: int, mask: int = 0xFFFFFFFF) -> dict[str, Any]:
    """The argument is an int of the kernel's: only those bits of the register count."""
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _sockets(held: frozenset[str]) -> list[dict[str, Any]]:
    families = list(_FAMILIES)
    for capability, more in _GATED_FAMILIES.items():
        if capability in held:
            families.extend(more)
    rules = [_allow("socket", args=[_int_is(0, family)]) for family in families]
    return [*rules, _allow("socketpair", args=[_int_is(0, _AF_UNIX)])]


def _personality() -> list[dict[str, Any]]:
    return [_allow("personality", args=[_int_is(0, value)]) for value in _PERSONALITIES]


def _clone(held: frozenset[str]) -> list[dict[str, Any]]:
    if "CAP_SYS_ADMIN" in held:
        return [_allow("clone", "clone3")]
    # The flags of clone3 are behind a pointer. A C library that is told that there is no clone3
    # uses clone, where they can be seen.
    no_such_call = {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
    return [_allow("clone", args=[_int_is(0, 0, _CLONE_NAMESPACES)]), no_such_call]
