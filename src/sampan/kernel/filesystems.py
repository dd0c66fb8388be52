"""Kinds of file systems, by the magic number that statfs(2) gives."""

from __future__ import annotations

import struct

from sampan.kernel.libc import buffer, c_int, c_void_p, check, prototype

_fstatfs = prototype("fstatfs", c_int, c_int, c_void_p)

# linux/magic.h: those whose files are the kernel's own state and not somebody's data.
_OF_KERNEL = frozenset(
    (
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
        0x19800202,  # mqueue
        0x958458F6,  # hugetlbfs
        0x6E736673,  # nsfs
    )
)


_STATFS_BYTES = 256  # struct statfs of asm/statfs.h, and more; only its first member is read


def magic(fd: int) -> int:
    """The magic number of the file system that `fd` is on."""
    facts = buffer(bytes(_STATFS_BYTES))
    check(_fstatfs(fd, facts), "fstatfs")
    (kind,) = struct.unpack_from("@l", facts)
    return int(kind) & 0xFFFFFFFF


def is_of_kernel(fd: int) -> bool:
    """Whether `fd` is on proc, sysfs, a cgroup tree or another view of the kernel's state."""
    return magic(fd) in _OF_KERNEL
