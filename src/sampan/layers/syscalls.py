"""The seccomp filter of the process that unpacks: a short list of system calls to go on with.

The list is what CPython's allocator and threads, OpenSSL's hash, `layers.apply` and `layers.diff`
use once everything is imported. Anything else gives EPERM. It is a fixed program for one purpose;
container profiles are compiled by `kernel.seccomp`.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from sampan.kernel.libc import c_int, c_ulong, c_void_p, check, prototype

_prctl = prototype("prctl", c_int, c_int, c_ulong, c_void_p, c_ulong, c_ulong)

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_EPERM: Final = 0x00050001
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06

# x86_64 and aarch64 numbers (asm/unistd_64.h, asm-generic/unistd.h).
_CALLS: Final = {
    "brk": (12, 214),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "dup": (32, 23),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "fchmod": (91, 52),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "fcntl": (72, 25),
    "fgetxattr": (193, 10),
    "flistxattr": (196, 13),
    "fremovexattr": (199, 16),
    "fsetxattr": (190, 7),
    "fstat": (5, 80),
    "fstatfs": (138, 44),
    "ftruncate": (77, 46),
    "futex": (202, 98),
    "getdents64": (217, 61),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getrandom": (318, 278),
    "gettid": (186, 178),
    "linkat": (265, 37),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "mkdirat": (258, 34),
    "mknodat": (259, 33),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "newfstatat": (262, 79),
    "openat": (257, 56),
    "openat2": (437, 437),
    "prctl": (157, 167),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "preadv2": (327, 286),
    "read": (0, 63),
    "readlinkat": (267, 78),
    "readv": (19, 65),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "sendfile": (40, 71),
    "set_robust_list": (273, 99),
    "sigaltstack": (131, 132),
    "statx": (332, 291),
    "symlinkat": (266, 36),
    "sysinfo": (99, 179),
    "tgkill": (234, 131),
    "umask": (95, 166),
    "unlinkat": (263, 35),
    "utimensat": (280, 88),
    "write": (1, 64),
}
_MACHINES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def program(machine: str) -> bytes:
    """The filter for `machine` as BPF instructions, or b"" where its numbers are not known."""
    if machine not in _MACHINES:
        return b""
    audit, column = _MACHINES[machine]
    numbers = sorted(call[column] for call in _CALLS.values())
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    code += _search(numbers)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _search(numbers: list[int]) -> list[tuple[int, int, int, int]]:
    """A binary search: the hot calls cost seven comparisons, not sixty. x32 numbers match none."""
    if len(numbers) <= 2:
        tests = [(_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
        return [*tests, (_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
    middle = len(numbers) // 2
    low, high = _search(numbers[:middle]), _search(numbers[middle:])
    return [(_AT_LEAST, len(low), 0, numbers[middle]), *low, *high]


def load() -> None:
    """Install the filter in this process; PR_SET_NO_NEW_PRIVS is set already."""
    code = program(os.uname().machine)
    if not code:
        return
    buffer = ctypes.create_string_buffer(code, len(code))
    pointer = _Program(len(code) // 8, ctypes.addressof(buffer))
    result = _prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(pointer), 0, 0)
    check(result, "prctl PR_SET_SECCOMP")
