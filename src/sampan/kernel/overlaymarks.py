"""overlayfs' own words in a directory: a name that is gone, a directory that hides those below.

The first is a character device 0:0 of that name, the second an attribute of the directory
(Documentation/filesystems/overlayfs.rst). Where such a device cannot be made there is a form of
ours, which only `snapshots.native` reads.
"""

from __future__ import annotations

import errno
import os
import stat

TRUSTED_OPAQUE = "trusted.overlay.opaque"
USER_OPAQUE = "user.overlay.opaque"
_MARK_XATTR = "user.overlay.whiteout"
_MARK_MODE = 0o1000  # nobody else makes such files, so few are looked at twice
_DEVICE = 0  # makedev(0, 0)
_attribute: list[str] = []  # found out once, before a worker locks itself up


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file is a whiteout in overlayfs's form."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _DEVICE


def is_gone(parent: int, name: bytes, status: os.stat_result) -> bool:
    """Whether `name` is a whiteout in overlayfs's form or as a marked file."""
    if is_whiteout(status):
        return True
    if status.st_mode != stat.S_IFREG | _MARK_MODE or status.st_size:
        return False
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        return _has(fd, _MARK_XATTR)
    finally:
        os.close(fd)


def make(parent: int, name: bytes) -> None:
    """Put a whiteout called `name` into the directory `parent`.

    Where the device cannot be made, because the file system is an overlay itself, it is a file with
    a mark, which the snapshotter of such places understands.

    Raises:
        FileExistsError: the name is there.
    """
    try:
        os.mknod(name, stat.S_IFCHR, _DEVICE, dir_fd=parent)
    except PermissionError:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0, dir_fd=parent)
        try:
            os.setxattr(fd, _MARK_XATTR, b"y")
            os.fchmod(fd, _MARK_MODE)
        finally:
            os.close(fd)


def opaque_attribute() -> str:
    """The attribute of opaque directories: `trusted` ones need rights over the whole machine, so
    in a user namespace it is a user's, which overlayfs reads when it is mounted with userxattr."""
    if not _attribute:
        with open("/proc/self/uid_map", encoding="utf-8") as file:
            first, _, rest = file.readline().strip().partition(" ")
        whole = first == "0" and rest.split() == ["0", "4294967295"]
        _attribute.append(TRUSTED_OPAQUE if whole else USER_OPAQUE)
    return _attribute[0]


def make_opaque(directory: int) -> None:
    """Hide what lower layers have in the directory behind `directory`, a readable descriptor."""
    try:
        os.setxattr(directory, opaque_attribute(), b"y")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        os.setxattr(directory, USER_OPAQUE, b"y")


def is_opaque(directory: int) -> bool:
    """Whether the directory behind `directory` hides the layers below it."""
    return _has(directory, opaque_attribute())


def clear_opaque(directory: int) -> bool:
    """Take the mark of an opaque directory away, whichever it has; whether it had one."""
    had = False
    for name in (TRUSTED_OPAQUE, USER_OPAQUE):
        if _has(directory, name):
            os.removexattr(directory, name)
            had = True
    return had


def _has(fd: int, name: str) -> bool:
    try:
        return os.getxattr(fd, name) == b"y"
    except OSError:
        return False
