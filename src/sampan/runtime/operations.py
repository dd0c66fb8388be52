"""The operations of a plan: one class each, with `execute` and `describe`.

An operation is data made by `plan.build` without any privilege: strings and numbers from the
configuration. `execute` runs in the child, after clone3 and before execve, and calls the kernel and
nothing else. Targets below the root are descriptors that `Root` resolved; sources are paths of the
host, opened once while the host's tree is still there.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.kernel import loopback, mounts, namespaces
from sampan.kernel import numbers as n
from sampan.kernel.paths import Root, openat2
from sampan.runtime.mountoptions import MountOptions, shape
from sampan.runtime.stage import Stage

# What may be mounted over below /proc, as runc's list has it; /proc itself only by its own type.
_BELOW_PROC = "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo"
_BELOW_PROC += " sys/kernel/ns_last_pid sys/crypto/fips_enabled"
ALLOWED_BELOW_PROC = frozenset("/proc/" + name for name in _BELOW_PROC.split())

OPERATIONS: dict[str, type[Operation]] = {}  # every kind that was imported, by its name


class Operation:
    """One step. `describe` gives a sentence for people; `execute` does it in the child."""

    __slots__ = ()
    trouble = ""  # what runc calls its failure, where callers look for that

    def __init_subclass__(cls) -> None:
        OPERATIONS[cls.__name__] = cls

    def execute(self, stage: Stage) -> None:
        """Do it. Raises OSError or ValueError, which `stage.run` makes a RuntimeFailure."""
        raise NotImplementedError

    def describe(self) -> str:
        """What it does, in words."""
        raise NotImplementedError


class JoinNamespace(Operation):
    """Enter an existing namespace that the parent opened."""

    __slots__ = ("kind", "path")

    def __init__(self, kind: str, path: str) -> None:
        self.kind, self.path = kind, path

    def execute(self, stage: Stage) -> None:
        fd = stage.namespace_fds.get(self.kind, -1)
        if fd < 0:
            return  # it was born there
        if self.kind == "mount":  # settings are written through a /proc that nobody else made
            stage.proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        namespaces.setns(fd, namespaces.KINDS[self.kind][0])

    def describe(self) -> str:
        return f"join the {self.kind} namespace {self.path}"


class JoinCgroup(Operation):
    """Enter the container's cgroup in every hierarchy, memory last, then a new cgroup namespace."""

    __slots__ = ("path", "unshare")
    trouble = "adding pid 0, itself, to cgroups"

    def __init__(self, path: str, *, unshare: bool) -> None:
        self.path, self.unshare = path, unshare

    def execute(self, stage: Stage) -> None:
        for fd in stage.cgroup_fds():
            os.write(fd, b"0")
            os.close(fd)
        if self.unshare:
            namespaces.unshare(n.CLONE_NEWCGROUP)

    def describe(self) -> str:
        also = " and unshare its namespace" if self.unshare else ""
        return f"join the cgroup {self.path}{also}"


class Propagation(Operation):
    """How mounts of the host propagate into the new mount namespace."""

    __slots__ = ("mode",)

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def execute(self, stage: Stage) -> None:
        (option,) = MountOptions([self.mode]).propagation
        mounts.set_propagation("/", option[0] | (n.MS_REC if option[1] else 0))

    def describe(self) -> str:
        return f"make every mount {self.mode}"


class Loopback(Operation):
    """Bring up `lo` of a new network namespace."""

    __slots__ = ()

    def execute(self, stage: Stage) -> None:
        if not stage.stock.has_loopback:
            loopback.bring_up()

    def describe(self) -> str:
        return "bring up the loopback interface"


class Hostname(Operation):
    """Set the host name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def execute(self, stage: Stage) -> None:
        namespaces.set_hostname(self.name)

    def describe(self) -> str:
        return f"set the host name {self.name}"


class Domainname(Operation):
    """Set the NIS domain name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def execute(self, stage: Stage) -> None:
        namespaces.set_domainname(self.name)

    def describe(self) -> str:
        return f"set the domain name {self.name}"


class Sysctl(Operation):
    """Set a kernel setting of one of the new namespaces.

    Written through the host's /proc before the container's root is attached: /proc/sys shows the
    settings of the namespaces of the writer, and nothing of the container can stand in between.
    """

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: str) -> None:
        self.key, self.value = key, value

    def execute(self, stage: Stage) -> None:
        fd = open_proc(stage, "sys/" + self.key.replace(".", "/"))
        try:
            os.write(fd, self.value.encode())
        finally:
            os.close(fd)

    def describe(self) -> str:
        return f"set {self.key} to {self.value}"


def open_proc(stage: Stage, name: str) -> int:
    """A file of the host's /proc, opened for writing."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    if stage.proc >= 0:
        return os.open(name, flags, dir_fd=stage.proc)
    return os.open(f"/proc/{name}", flags)


class AttachRoot(Operation):
    """Attach the detached mount of the root file system in the new mount namespace.

    At the given directory, which programs of the host may look for it at; or on top of `/`, where
    the root of a user namespace may not walk to that.
    """

    __slots__ = ("at", "propagation")

    def __init__(self, at: str, propagation: str) -> None:
        self.at, self.propagation = at, propagation

    @property
    def own_propagation(self) -> int:
        """Of the root's mount: a slave of the host's where that is asked for, else private."""
        return n.MS_SLAVE if self.propagation in ("slave", "rslave") else n.MS_PRIVATE

    def execute(self, stage: Stage) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            target = os.open(self.at, flags)
        except PermissionError:
            target = os.open("/", flags)
        try:
            mounts.move_mount(stage.rootfs, target)
        finally:
            os.close(target)
        # pivot_root(2) refuses a root below a shared parent: the parent mounts are slaves by now.
        mounts.set_attributes(stage.rootfs, propagation=self.own_propagation)

    def describe(self) -> str:
        return f"attach the root file system at {self.at}"


class Mount(Operation):
    """Mount a new file system: proc, sysfs, tmpfs, devpts, mqueue, overlay ..."""

    __slots__ = ("destination", "kind", "options", "source")
    trouble = "error mounting"

    def __init__(self, kind: str, source: str, destination: str, options: list[str]) -> None:
        self.kind, self.source, self.destination, self.options = kind, source, destination, options

    def execute(self, stage: Stage) -> None:
        options = self.options_on(stage)
        target = self.open_target(stage)
        mount = stage.stock.take(self.kind, self.source, options)
        if self.kind == "proc":
            stage.proc_device = os.fstat(mount).st_dev
        stage.place(mount, target)
        self.propagate(stage)

    def options_on(self, stage: Stage) -> list[str]:
        """The options; a tmpfs has the mode of what it covers, unless they name one (as runc)."""
        if self.kind != "tmpfs" or has_mode(self.options):
            return self.options
        return [*mode_of(stage.root, self.destination), *self.options]

    def open_target(self, stage: Stage) -> int:
        """The directory that is mounted over, made if missing."""
        if self.kind in ("proc", "sysfs", "cgroup", "cgroup2"):
            return plain_directory(stage, self.destination)
        return writable_target(stage, self.destination, directory=True)

    def propagate(self, stage: Stage) -> None:
        """How the mount propagates, where the options say so."""
        _propagate(stage, self.destination, MountOptions(self.options))

    def describe(self) -> str:
        words = ",".join(self.options) or "defaults"
        return f"mount {self.kind} on {self.destination} ({words})"


def has_mode(options: list[str]) -> bool:
    """Whether the options of a tmpfs name its mode."""
    return any(word.startswith("mode=") for word in options)


def mode_of(root: Root, path: str) -> list[str]:
    """The option for the mode of the directory `path`; none where there is no such directory."""
    try:
        fd = root.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError:  # it is made, or refused, by who needs it
        return []
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    os.close(fd)
    return [f"mode={mode:04o}"]


class BindMount(Operation):
    """Bind a file or directory of the host.

    The parent has cloned it, number `index` of its list, in the host's own mount namespace: ours
    may have been made before the source was mounted. With -1 we must do it. `is_locked`: in a user
    namespace the flags of the source hold.
    """

    __slots__ = ("destination", "index", "is_locked", "options", "source")
    trouble = "error mounting"

    def __init__(
        self,
        source: str,
        destination: str,
        options: list[str],
        index: int,
        *,
        is_locked: bool = False,
    ) -> None:
        self.source, self.destination, self.options = source, destination, options
        self.index, self.is_locked = index, is_locked

    def execute(self, stage: Stage) -> None:
        options = MountOptions(self.options)
        mount = stage.source(self.index) if self.index >= 0 else self._clone(options)
        directory = stat.S_ISDIR(os.fstat(mount).st_mode)
        on, off = options.of_bind()
        if self.is_locked:
            on, off = options.of_locked(os.fstatvfs(mount).f_flag)
        shape(mount, options, on, off)
        stage.place(mount, writable_target(stage, self.destination, directory=directory))

    def _clone(self, options: MountOptions) -> int:
        """Our own clone, where the parent has no right to make one."""
        source = os.open(self.source, os.O_PATH | os.O_CLOEXEC)
        try:
            return mounts.clone_tree(source, recursive=options.bind == "rbind")
        finally:
            os.close(source)

    def describe(self) -> str:
        return f"bind mount of {self.source} on {self.destination} ({','.join(self.options)})"


class CgroupMount(Operation):
    """Show the container its own cgroup of each hierarchy below /sys/fs/cgroup (cgroups v1).

    `hierarchies` are (name, directory of the host); `links` are (name, name it points to), for
    controllers that share a hierarchy. The content of each directory is the container's cgroup
    itself, as under runc.
    """

    __slots__ = ("destination", "hierarchies", "links", "options")

    def __init__(
        self,
        destination: str,
        options: list[str],
        hierarchies: list[tuple[str, str]],
        links: list[tuple[str, str]],
    ) -> None:
        self.destination, self.options = destination, options
        self.hierarchies, self.links = hierarchies, links

    def execute(self, stage: Stage) -> None:
        stage.cgroup_fds()  # its directories are there from now on
        options = MountOptions(self.options)
        attributes = options.on & ~n.MOUNT_ATTR_RDONLY
        top = mounts.new_mount("tmpfs", [("mode", "755")], source="cgroup", attributes=attributes)
        stage.place(os.dup(top), plain_directory(stage, self.destination))
        try:
            for name, source in self.hierarchies:
                self._bind(top, name, source, options)
            for name, target in self.links:
                os.symlink(target, name, dir_fd=top)
            mounts.set_attributes(top, on=options.on & n.MOUNT_ATTR_RDONLY)
        finally:
            os.close(top)

    def _bind(self, top: int, name: str, source: str, options: MountOptions) -> None:
        os.mkdir(name, 0o755, dir_fd=top)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(name, flags, dir_fd=top)
        try:
            fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:  # an ordinary user's container may have no cgroup
            os.close(target)
            return
        try:
            mount = mounts.clone_tree(fd, recursive=False)
        finally:
            os.close(fd)
        shape(mount, options, options.on, options.off)
        try:
            mounts.move_mount(mount, target)
        finally:
            os.close(mount)
            os.close(target)

    def describe(self) -> str:
        names = ",".join(name for name, _ in self.hierarchies)
        return f"mount the cgroups {names} on {self.destination} ({','.join(self.options)})"


class MaskPath(Operation):
    """Hide a file behind /dev/null, or a directory behind an empty read-only one."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def execute(self, stage: Stage) -> None:
        try:
            target = stage.root.open_path(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(os.fstat(target).st_mode):
            mount = stage.empty_directory()
        else:
            mount = _null_device()
        stage.place(mount, target)

    def describe(self) -> str:
        return f"mask {self.path}"


class ReadonlyPath(Operation):
    """Make a path read-only by a bind mount of it on itself."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def execute(self, stage: Stage) -> None:
        try:
            target = stage.root.open_path(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        mount = mounts.clone_tree(target, recursive=True)
        mounts.set_attributes(mount, on=n.MOUNT_ATTR_RDONLY, recursive=True)
        stage.place(mount, target)

    def describe(self) -> str:
        return f"make {self.path} read-only"


class ReadonlyRoot(Operation):
    """Make the root mount read-only, the working directory before; mounts keep their own mode."""

    __slots__ = ("directory",)

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def execute(self, stage: Stage) -> None:
        stage.try_to_make(self.directory)
        mounts.set_attributes(stage.rootfs, on=n.MOUNT_ATTR_RDONLY)

    def describe(self) -> str:
        return "make the root read-only"


class Pivot(Operation):
    """Make the root `/` and detach the host's tree."""

    __slots__ = ("propagation",)

    def __init__(self, propagation: str) -> None:
        self.propagation = propagation

    def execute(self, stage: Stage) -> None:
        mounts.pivot_into(stage.rootfs)
        if self.propagation:
            (option,) = MountOptions([self.propagation]).propagation
            mounts.set_propagation("/", option[0] | (n.MS_REC if option[1] else 0))

    def describe(self) -> str:
        return "pivot into the root file system"


def writable_target(stage: Stage, destination: str, *, directory: bool) -> int:
    """A descriptor of the mount point `destination`, made if missing, that is not inside /proc."""
    if directory:
        target = stage.root.make_directories(destination)
    else:
        target = stage.root.make_file(destination)
    inside = os.fstat(target).st_dev == stage.proc_device
    if inside and os.path.normpath(destination) not in ALLOWED_BELOW_PROC:
        os.close(target)
        raise PermissionError(errno.EPERM, f"{destination} lies in /proc and may not be covered")
    return target


def plain_directory(stage: Stage, destination: str) -> int:
    """The directory `destination` with no link on the way: where proc, sysfs and cgroups may go."""
    os.close(stage.root.make_directories(destination))
    resolve = n.RESOLVE_IN_ROOT | n.RESOLVE_NO_SYMLINKS
    try:
        return openat2(stage.root.fd, destination, os.O_PATH | os.O_DIRECTORY, 0, resolve)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        said = f"{destination} must be mounted on ordinary directory, and it is a symbolic link"
        raise OSError(errno.ELOOP, said) from error


def _propagate(stage: Stage, destination: str, options: MountOptions) -> None:
    for kind, recursive in options.propagation:
        fd = stage.root.open_path(destination)
        try:
            mounts.set_attributes(fd, propagation=kind, recursive=recursive)
        finally:
            os.close(fd)


def _null_device() -> int:
    """A detached read-only mount of the host's /dev/null, checked to be it.

    Read-only keeps a container from changing mode or owner of the host's inode; writing to the
    device stays possible.
    """
    fd = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
            raise OSError(errno.ENODEV, "/dev/null of the host is not the null device")
        mount = mounts.clone_tree(fd, recursive=False)
    finally:
        os.close(fd)
    mounts.set_attributes(mount, on=n.MOUNT_ATTR_RDONLY)
    return mount
