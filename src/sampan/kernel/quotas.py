"""Project quotas: a limit of the bytes below a directory, kept by the file system.

A directory is given a project's number, which everything that is made below it inherits, and the
project a limit. xfs and ext4 can do that when they are mounted with `prjquota`; who exceeds the
limit gets ENOSPC or EDQUOT, and statfs(2) below an xfs directory shows the limit as the size.
quotactl_fd(2), since Linux 5.14, needs no path of a device.
"""

from __future__ import annotations

import fcntl
import os
import struct

from sampan.kernel.libc import buffer, c_int, c_uint, c_void_p, check, syscall

_QUOTACTL_FD = 443  # on every architecture
_GET, _SET = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_ATTRIBUTES = struct.Struct("=5I8x")  # struct fsxattr: flags, ..., the fourth is the project
_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT
_SET_LIMITS = (0x5804 << 8) | 2  # QCMD(Q_XSETQLIM, PRJQUOTA)
# struct fs_disk_quota: version, flags, which fields, number, hard and soft limit in 512 bytes
_LIMITS = struct.Struct("=bbHIQQ88x")
_OF_PROJECTS, _BYTES = 2, 0x0C  # FS_PROJ_QUOTA, FS_DQ_BSOFT | FS_DQ_BHARD
_BLOCK = 512
_quotactl_fd = syscall(_QUOTACTL_FD, c_uint, c_int, c_uint, c_void_p)


def join(directory: int, project: int) -> None:
    """Let what is made below an open directory belong to `project`.

    Raises:
        OSError: the file system has no projects.
    """
    given = bytearray(_ATTRIBUTES.size)
    fcntl.ioctl(directory, _GET, given)
    flags, extent, count, _, copied = _ATTRIBUTES.unpack(given)
    wanted = _ATTRIBUTES.pack(flags | _INHERIT, extent, count, project, copied)
    fcntl.ioctl(directory, _SET, wanted)


def limit(directory: int, project: int, size: int) -> None:
    """Let a project of the directory's file system have so many bytes, 0 for no limit.

    Raises:
        OSError: quotas of projects are not kept there.
    """
    blocks = -(-size // _BLOCK)
    wish = buffer(_LIMITS.pack(1, _OF_PROJECTS, _BYTES, project, blocks, blocks))
    name = os.readlink(f"/proc/self/fd/{directory}")
    check(_quotactl_fd(directory, _SET_LIMITS, project, wish), "quotactl_fd", name)
