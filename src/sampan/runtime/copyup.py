"""`tmpcopyup`: a tmpfs that begins with what the root file system has at its place.

The copy is made into the detached mount, below descriptors, so neither a link of the root nor a
change meanwhile leads out of it. Nothing is imported while it runs. Imported only where a mount has
the option.
"""

from __future__ import annotations

import os
import stat

from sampan.kernel import mounts
from sampan.kernel import numbers as n
from sampan.runtime import stock
from sampan.runtime.operations import Mount, Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.stage import Stage

_CHUNK = 1 << 30
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class CopiedUpTmpfs(Operation):
    """Mount a tmpfs with a copy of what it covers."""

    __slots__ = ("destination", "options", "source")

    def __init__(self, source: str, destination: str, options: list[str]) -> None:
        self.source, self.destination, self.options = source, destination, options

    def execute(self, stage: Stage) -> None:
        plain = Mount("tmpfs", self.source, self.destination, self.options)
        options = [word for word in plain.options_on(stage) if word != "ro"]
        target = plain.open_target(stage)
        mount = stock.make("tmpfs", self.source, options)
        source = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
        copy = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        try:
            _copy_directory(source, copy)
        finally:
            os.close(source)
            os.close(copy)
        if "ro" in self.options:
            mounts.set_attributes(mount, on=n.MOUNT_ATTR_RDONLY)
        stage.place(mount, target)
        plain.propagate(stage)

    def describe(self) -> str:
        words = ",".join(self.options)
        return f"mount tmpfs on {self.destination} ({words}), filled with what it covers"


def _copy_directory(source: int, target: int) -> None:
    """Copy what the directory `source` holds to `target`: both are descriptors."""
    for name in os.listdir(source):
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            _copy_below(source, target, name)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISREG(found.st_mode):
            _copy_file(source, target, name)
        else:
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
        _take_over(target, name, found)


def _copy_below(source: int, target: int, name: str) -> None:
    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _OPEN, dir_fd=source)
    copy = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _OPEN, dir_fd=target)
    try:
        _copy_directory(below, copy)
        _copy_attributes(below, copy)
    finally:
        os.close(below)
        os.close(copy)


def _copy_file(source: int, target: int, name: str) -> None:
    file = os.open(name, os.O_RDONLY | _OPEN, dir_fd=source)
    copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=target)
    try:
        if stat.S_ISREG(os.fstat(file).st_mode):
            while os.sendfile(copy, file, None, _CHUNK):
                pass
        _copy_attributes(file, copy)
    finally:
        os.close(file)
        os.close(copy)


def _copy_attributes(source: int, target: int) -> None:
    for key in os.listxattr(source):
        try:
            os.setxattr(target, key, os.getxattr(source, key))
        except OSError:  # tmpfs takes few of them: what it refuses is left out
            pass


def _take_over(target: int, name: str, found: os.stat_result) -> None:
    """Owner, mode and times, in the order in which none undoes another."""
    os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
    times = (found.st_atime_ns, found.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
