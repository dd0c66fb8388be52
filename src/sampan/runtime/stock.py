"""What a spare blank makes ready while it waits: mounts that most containers want.

A mount that is made detached belongs to the namespaces of its maker, and the maker is the
container-to-be. So proc, sysfs, a filled /dev and the others can wait as descriptors; the
operations take what is in stock, word for word the same, and make anew what is not. What nobody
took is closed by the execve.
"""

from __future__ import annotations

import os
import stat

from sampan.kernel import loopback, mounts
from sampan.kernel import numbers as n
from sampan.runtime.mountoptions import MountOptions

# type, source, options: as the engine writes them (engine/specgen.py).
_HARDENED = ["nosuid", "noexec", "nodev"]
DEV = ("tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"])
USUAL: tuple[tuple[str, str, list[str]], ...] = (
    ("proc", "proc", _HARDENED),
    DEV,
    (
        "devpts",
        "devpts",
        ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("sysfs", "sysfs", [*_HARDENED, "ro"]),
    ("mqueue", "mqueue", _HARDENED),
    ("tmpfs", "shm", [*_HARDENED, "mode=1777", "size=67108864"]),
)

# name, major, minor of the character devices of every container (runtime-spec, "Default Devices")
DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)


class Stock:
    """Mounts that are ready, by type, source and options."""

    __slots__ = ("_mounts", "has_dev", "has_loopback")

    def __init__(self, kinds: list[str]) -> None:
        """Make the usual ones in the new namespaces `kinds`; none when that is empty."""
        self._mounts: dict[tuple[str, str, str], int] = {}
        self.has_dev = False
        self.has_loopback = "network" in kinds
        if self.has_loopback:
            loopback.bring_up()
        if {"ipc", "mount", "network", "pid"}.issubset(kinds):
            for kind, source, options in USUAL:
                self._mounts[_key(kind, source, options)] = make(kind, source, options)
            self._fill()

    def _fill(self) -> None:
        """The devices; without the right to make any, an empty directory is not worth keeping."""
        try:
            fill_dev(self._mounts[_key(*DEV)])
        except PermissionError:
            os.close(self._mounts.pop(_key(*DEV)))

    def take(self, kind: str, source: str, options: list[str]) -> int:
        """The descriptor of such a mount, which is the caller's now; or a new one."""
        key = _key(kind, source, options)
        found = self._mounts.pop(key, -1)
        if found < 0:
            return make(kind, source, options)
        self.has_dev = self.has_dev or key == _key(*DEV)
        return found


def make(kind: str, source: str, options: list[str]) -> int:
    """A detached mount of a new file system."""
    parsed = MountOptions(options)
    data = list(parsed.data)
    if parsed.on & n.MOUNT_ATTR_RDONLY and kind != "tmpfs":
        data.append(("ro", None))
    return mounts.new_mount(kind, data, source=source, attributes=parsed.on)


def fill_dev(directory: int) -> None:
    """The default devices and links, in a directory that nobody else can see yet."""
    for name, major, minor in DEVICES:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=directory)
    for name, target in LINKS:
        os.symlink(target, name, dir_fd=directory)


def _key(kind: str, source: str, options: list[str]) -> tuple[str, str, str]:
    return kind, source, ",".join(options)
