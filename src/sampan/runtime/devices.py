"""The operations that fill /dev: nodes, links, console and standard streams."""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel import mounts
from sampan.kernel import numbers as n
from sampan.runtime.operations import Operation, writable_target
from sampan.runtime.stage import Stage
from sampan.runtime.stock import DEVICES, LINKS

KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class DefaultDevices(Operation):
    """The devices and links that every container has, but for those that are configured."""

    __slots__ = ("configured",)

    def __init__(self, configured: list[str]) -> None:
        self.configured = configured

    def execute(self, stage: Stage) -> None:
        if stage.stock.has_dev:  # they came with the mount
            for path in self.configured:
                _remove(stage, path)
            return
        for name, major, minor in DEVICES:
            if f"/dev/{name}" not in self.configured:
                Device(f"/dev/{name}", "c", major, minor, 0o666, 0, 0).execute(stage)
        for name, target in LINKS:
            Link(f"/dev/{name}", target).execute(stage)

    def describe(self) -> str:
        names = [name for name, _, _ in DEVICES if f"/dev/{name}" not in self.configured]
        return f"make the devices {', '.join(names)} and the links of /dev"


class Device(Operation):
    """Make a device node."""

    __slots__ = ("gid", "kind", "major", "minor", "mode", "path", "uid")

    def __init__(
        self, path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int
    ) -> None:
        self.path, self.kind, self.major, self.minor = path, kind, major, minor
        self.mode, self.uid, self.gid = mode, uid, gid

    def execute(self, stage: Stage) -> None:
        parent, name = stage.root.parent(self.path)
        number = os.makedev(self.major, self.minor)
        mode = KINDS[self.kind] | self.mode
        try:
            os.mknod(name, mode, number, dir_fd=parent)
            if self.uid or self.gid:
                os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(mode) or found.st_rdev != number:
                raise
        except PermissionError:  # in a user namespace
            if self.kind == "p":
                raise
            self._bind(stage, stat.S_IFMT(mode), number)
        finally:
            os.close(parent)

    def _bind(self, stage: Stage, kind: int, number: int) -> None:
        """The host's device of the same name, where a new one cannot be made."""
        source = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(source)
            if stat.S_IFMT(found.st_mode) != kind or found.st_rdev != number:
                raise OSError(errno.ENODEV, f"{self.path} of the host is another device")
            mount = mounts.clone_tree(source, recursive=False)
        finally:
            os.close(source)
        mounts.set_attributes(mount, on=n.MOUNT_ATTR_NOSUID | n.MOUNT_ATTR_NOEXEC)
        stage.place(mount, writable_target(stage, self.path, directory=False))

    def describe(self) -> str:
        return f"make device {self.path} ({self.kind} {self.major}:{self.minor})"


class Link(Operation):
    """Make a symbolic link in /dev; what is there stays, but for ptmx, which must be ours."""

    __slots__ = ("path", "target")

    def __init__(self, path: str, target: str) -> None:
        self.path, self.target = path, target

    def execute(self, stage: Stage) -> None:
        parent, name = stage.root.parent(self.path)
        try:
            if name == "ptmx":
                _unlink_if_there(name, parent)
            os.symlink(self.target, name, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)

    def describe(self) -> str:
        return f"link {self.path} to {self.target}"


class ReadonlyMount(Operation):
    """Make a tmpfs read-only, such as a /dev that is filled now."""

    __slots__ = ("destination",)

    def __init__(self, destination: str) -> None:
        self.destination = destination

    def execute(self, stage: Stage) -> None:
        fd = stage.root.open_path(self.destination)
        try:
            mounts.set_attributes(fd, on=n.MOUNT_ATTR_RDONLY)
        finally:
            os.close(fd)

    def describe(self) -> str:
        return f"make the mount on {self.destination} read-only"


class Console(Operation):
    """Open a terminal of the container's own devpts; its peer is stdio and /dev/console."""

    __slots__ = ("relayed", "size")

    def __init__(self, size: tuple[int, int] | None, *, relayed: bool) -> None:
        self.size, self.relayed = size, relayed

    def execute(self, stage: Stage) -> None:
        stage.master, peer = open_terminal(stage, self.size, relayed=self.relayed)
        target = writable_target(stage, "/dev/console", directory=False)
        stage.place(mounts.clone_tree(peer, recursive=False), target)
        stage.stdio = (peer, peer, peer)

    def describe(self) -> str:
        return "open a terminal and bind it on /dev/console"


def open_terminal(stage: Stage, size: tuple[int, int] | None, *, relayed: bool) -> tuple[int, int]:
    """(master, peer) of a new terminal from the container's /dev/pts/ptmx, checked to be one.

    Where `sampan-oci` itself relays it to the caller's, newlines stay as they are, from the first
    on; behind a console socket they are CR LF, as under runc.
    """
    ptmx = stage.root.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    found = os.fstat(ptmx)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(5, 2):
        os.close(ptmx)
        raise OSError(errno.ENODEV, "/dev/pts/ptmx is not the terminal multiplexer")
    from sampan.kernel import terminal  # `init` has it loaded

    master, peer = terminal.open_pair(ptmx)
    if size:
        terminal.set_size(master, *size)
    if relayed:
        terminal.clear_newline_translation(master)
    return master, peer


def _remove(stage: Stage, path: str) -> None:
    parent, name = stage.root.parent(path)
    try:
        _unlink_if_there(name, parent)
    finally:
        os.close(parent)


def _unlink_if_there(name: str, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
