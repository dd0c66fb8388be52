"""A plan as a script for the machine, where a script can say it.

The operations mean the same here as in their `execute`, which stays the measure: where a case needs
a decision that a list of calls cannot take (a link in the path of a mount point, a terminal, a
missing program), the script fails or is not made, and the interpreter does the work and finds the
words. So nothing here explains an error.

What the parent can do beforehand is collected in `Assembly.prepare`: directories and files that the
root lacks.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from sampan.kernel import capabilities, namespaces, process
from sampan.kernel import numbers as n
from sampan.kernel.machine import ORDER_BASE, SYS, Label, Value
from sampan.kernel.rlimits import KINDS as LIMITS
from sampan.runtime import credentials as c
from sampan.runtime import devices as d
from sampan.runtime import operations as o
from sampan.runtime import readiness
from sampan.runtime.calls import BENEATH, MISSING, PLAIN, Calls
from sampan.runtime.failure import NeedsInterpreter
from sampan.runtime.mountoptions import MountOptions
from sampan.runtime.unified import OwnCgroupMount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.runtime.calls import Passed
    from sampan.runtime.plan import Plan
    from sampan.runtime.readiness import Ready

    Writers = dict[type[o.Operation], Callable[[Any, Any], None]]

READY = b"R"
_UNLIMITED = 0xFFFFFFFFFFFFFFFF
_JOINABLE = frozenset(("cgroup", "ipc", "network", "pid", "uts"))
_MAX_SOURCES = 240
_NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER


class Assembly:
    """A plan that becomes a script.

    `passed` descriptors, in the order of the message: the script, the root, 0, 1, 2, the namespaces
    that are joined, the sources of bind mounts. `prepare` holds (path below the root, whether it is
    a directory).
    """

    __slots__ = (
        "_cgroup_fds",
        "_ready",
        "_root_fd",
        "_taken",
        "calls",
        "fresh",
        "joins",
        "mounted",
        "prepare",
        "program",
        "root",
        "sources",
        "stdio",
    )
    joins: dict[str, Value | int]
    sources: list[tuple[Value, int]]
    stdio: list[Value]
    writers: Writers

    def __init__(self, ready: Ready, joins: list[str], root: int, sources: list[int]) -> None:
        """`joins` are the kinds of namespaces joined; `sources` the bind mounts' descriptors."""
        if len(sources) > _MAX_SOURCES or not _JOINABLE.issuperset(joins):
            raise NeedsInterpreter("namespaces that are joined, or too many bind mounts")
        passed = ready.passed
        self._ready, self._root_fd = ready, root
        self.begin(Calls(ORDER_BASE))
        self.root, self.stdio = passed[1], [passed[2], passed[3], passed[4]]
        self.joins = {kind: passed[index] for index, kind in enumerate(joins, 5)}
        first = 5 + len(joins)
        self.sources = [(passed[index], fd) for index, fd in enumerate(sources, first)]

    def begin(self, calls: Calls) -> None:
        """Nothing is written yet."""
        self._cgroup_fds: Passed | None = None
        self._taken: list[Value] = []
        self.calls = calls
        self.stdio = []
        self.joins = {}
        self.sources = []
        self.fresh: dict[str, Value] = {}
        self.mounted: list[str] = []
        self.prepare: list[tuple[str, bool]] = []
        self.program: list[bytes] = []

    def pack(self, plan: Plan, cgroup_fds: int, filter_program: tuple[bytes, int] | None) -> bytes:
        """The script of `plan`.

        `cgroup_fds` is the number of descriptors that join the cgroup.

        Raises:
            NeedsInterpreter: an interpreter must do it.
        """
        for operation in plan.before_gate:
            self.write_one(operation, cgroup_fds, filter_program)
        self.calls.say(READY)
        for operation in plan.after_gate:
            self.write_one(operation, cgroup_fds, filter_program)
        try:
            return self.calls.pack()
        except ValueError as error:
            raise NeedsInterpreter(str(error)) from error

    def write_one(
        self, operation: o.Operation, cgroup_fds: int, filter_program: tuple[bytes, int] | None
    ) -> None:
        """Write down one operation. Raises NeedsInterpreter."""
        if isinstance(operation, o.JoinCgroup):
            self._join_cgroup(operation, cgroup_fds)
        elif isinstance(operation, c.Seccomp):
            self._filter(filter_program)
        else:
            write = self.writers.get(type(operation))
            if write is None:
                raise NeedsInterpreter(operation.describe())
            write(self, operation)

    def usual(self, one: o.Mount, options: list[str]) -> Value | None:
        """The mount that the blank has ready, once; the one that is filled only for /dev."""
        mount = self._ready.mounts.get((one.kind, one.source, tuple(options)))
        is_dev = os.path.normpath(one.destination) == "/dev"
        if mount is None or mount in self._taken or (mount is self._ready.dev and not is_dev):
            return None
        self._taken.append(mount)
        return mount

    def has_dev(self) -> bool:
        """Whether /dev is the mount that the blank has filled."""
        return self._ready.dev is not None and self.fresh.get("/dev") is self._ready.dev

    def masks(self) -> tuple[Value, Value | None]:
        """As `readiness.masks`."""
        if self._ready.nulls is None:
            raise NeedsInterpreter("masked paths in a mount namespace that is joined")
        readiness.check_null()
        return self._ready.nulls, self._ready.empty

    def cgroup_tree(self, one: o.CgroupMount) -> Value:
        """The tmpfs with a directory for each hierarchy."""
        if not readiness.is_usual_cgroup(one.options) or self._ready.cgroups is None:
            raise NeedsInterpreter("cgroup mounts with unusual options")
        return self._ready.cgroups

    def source(self, one: o.BindMount) -> tuple[Value, bool]:
        """(a detached clone of a bind mount's source, whether it is a directory)."""
        mount, fd = self.sources[one.index]
        return mount, stat.S_ISDIR(os.fstat(fd).st_mode)

    def permitted(self) -> tuple[int, int]:
        """The permitted and the inheritable capabilities that the script starts with."""
        _, permitted, inheritable = capabilities.get()
        return permitted, inheritable

    def await_cgroup(self) -> None:
        """Wait until the parent has made the cgroup; a parent that gave up makes it fail."""
        if self._cgroup_fds is None:
            self._cgroup_fds = self.calls.receive()

    def place(self, mount: Value, destination: str, *, directory: bool, fresh: bool) -> None:
        """Attach `mount` at `destination` of the container."""
        path = os.path.normpath(destination)
        if path.startswith("/proc/") or not path.startswith("/") or path == "/":
            raise NeedsInterpreter(f"mount on {destination}")
        above = [one for one in self.mounted if path.startswith(one + "/")]
        below = max(above, default="", key=len)
        if below in self.fresh:
            self._place_in(self.fresh[below], mount, path[len(below) + 1 :], directory=directory)
        else:
            if not below:
                self.prepare.append((path, directory))
            flags = os.O_PATH | (os.O_DIRECTORY if directory else 0)
            self.calls.move_mount(mount, self.calls.open(self.root, path, flags, PLAIN))
        self.mounted.append(path)
        if fresh:
            self.fresh[path] = mount

    def open_root(self) -> int:
        """A descriptor of the root file system, the caller's."""
        return os.dup(self._root_fd)

    def _place_in(self, parent: Value, mount: Value, name: str, *, directory: bool) -> None:
        """In a file system that this script has made: nothing but what it made is there."""
        head = name.rpartition("/")[0]
        if directory or head:
            self.calls.make_directories(parent, name if directory else head)
        if not directory:
            raw, mode = name.encode(), stat.S_IFREG | 0o644
            self.calls.call(SYS["mknodat"], parent, raw, mode, 0, tolerate=(errno.EEXIST,))
        target = self.calls.open(parent, name, os.O_PATH, PLAIN)
        self.calls.move_mount(mount, target)

    def _join_cgroup(self, operation: o.JoinCgroup, count: int) -> None:
        self.await_cgroup()
        assert self._cgroup_fds is not None
        for index in range(count):
            self.calls.call(SYS["write"], self._cgroup_fds[index], b"0", 1)
        if operation.unshare:
            self.calls.call(SYS["unshare"], n.CLONE_NEWCGROUP)

    def _filter(self, given: tuple[bytes, int] | None) -> None:
        assert given is not None
        program, flags = given
        if flags & _NEW_LISTENER:
            raise NeedsInterpreter("a seccomp listener")
        header = struct.pack("<H6xQ", len(program) // 8, self.calls.data(program))
        self.calls.call(SYS["seccomp"], 1, flags, self.calls.data(header))


def _join(a: Assembly, one: o.JoinNamespace) -> None:
    a.calls.call(SYS["setns"], a.joins[one.kind], namespaces.KINDS[one.kind][0])


def _hostname(a: Assembly, one: o.Hostname) -> None:
    raw = os.fsencode(one.name)
    a.calls.call(SYS["sethostname"], raw, len(raw))


def _domainname(a: Assembly, one: o.Domainname) -> None:
    raw = os.fsencode(one.name)
    a.calls.call(SYS["setdomainname"], raw, len(raw))


def _sysctl(a: Assembly, one: o.Sysctl) -> None:
    fd = a.calls.open_host("/proc/sys/" + one.key.replace(".", "/"), os.O_WRONLY)
    raw = one.value.encode()
    a.calls.call(SYS["write"], fd, raw, len(raw))


def _oom_score(a: Assembly, one: c.OomScore) -> None:
    fd = a.calls.open_host("/proc/self/oom_score_adj", os.O_WRONLY)
    raw = str(one.value).encode()
    a.calls.call(SYS["write"], fd, raw, len(raw), tolerate=(errno.EACCES, errno.EPERM))


def _propagation(a: Assembly, one: o.Propagation) -> None:
    (option,) = MountOptions([one.mode]).propagation
    if one.mode != "rslave":  # the blank has done that
        flags = option[0] | (n.MS_REC if option[1] else 0)
        a.calls.call(SYS["mount"], 0, b"/", 0, flags, 0)


def _attach_root(a: Assembly, one: o.AttachRoot) -> None:
    target = a.calls.open_host(one.at, os.O_PATH | os.O_DIRECTORY)
    a.calls.move_mount(a.root, target)
    a.calls.call(SYS["close"], target)  # a way to the host
    a.calls.set_attributes(a.root, propagation=n.MS_PRIVATE)


def _mount(a: Assembly, one: o.Mount) -> None:
    if MountOptions(one.options).propagation:
        raise NeedsInterpreter("propagation of a new file system")
    options = one.options
    if one.kind == "tmpfs" and not o.has_mode(options):
        mode = readiness.tmpfs_mode(a.open_root(), one.destination, a.mounted, a.fresh)
        options = [*mode, *options]
    mount = a.usual(one, options)
    if mount is None:
        mount = readiness.make(a.calls, one.kind, one.source, options)
    a.place(mount, one.destination, directory=True, fresh=one.kind == "tmpfs")


def _bind(a: Assembly, one: o.BindMount) -> None:
    mount, directory = a.source(one)
    options = MountOptions(one.options)
    private, *others = options.propagation or [(n.MS_PRIVATE, options.bind == "rbind")]
    if others or private[0] != n.MS_PRIVATE or options.recursive_on | options.recursive_off:
        raise NeedsInterpreter("a bind mount with recursive options or propagation")
    recursive = private[1]
    if recursive and options.changes_attributes:
        a.calls.set_attributes(mount, on=options.on, off=options.off)
        a.calls.set_attributes(mount, propagation=n.MS_PRIVATE, recursive=True)
    else:
        on, off = options.on, options.off
        a.calls.set_attributes(mount, on=on, off=off, propagation=n.MS_PRIVATE, recursive=recursive)
    a.place(mount, one.destination, directory=directory, fresh=False)


def _cgroup_mount(a: Assembly, one: o.CgroupMount) -> None:
    a.await_cgroup()
    top = a.cgroup_tree(one)
    a.place(top, one.destination, directory=True, fresh=False)
    for name, source in one.hierarchies:
        mount = a.calls.clone_tree(n.AT_FDCWD, source)
        a.calls.move_mount(mount, top, name)
    on = MountOptions(one.options).on
    a.calls.set_attributes(top, on=on, propagation=n.MS_PRIVATE, recursive=True)


def _own_cgroup(a: Assembly, one: OwnCgroupMount) -> None:
    a.await_cgroup()
    options = MountOptions(one.options)
    mount = a.calls.clone_tree(n.AT_FDCWD, one.directory)
    a.calls.set_attributes(mount, on=options.on, off=options.off, propagation=n.MS_PRIVATE)
    a.place(mount, one.destination, directory=True, fresh=False)


def _mask(a: Assembly, one: o.MaskPath) -> None:
    null, empty = a.masks()
    file, end = Label(), Label()
    flags = os.O_PATH | os.O_DIRECTORY
    target = a.calls.open(a.root, one.path, flags, BENEATH, tolerate=MISSING, at=file)
    a.calls.move_mount(readiness.mask_directory(a.calls, empty), target, then=end)
    a.calls.place(file)
    target = a.calls.open(a.root, one.path, os.O_PATH, BENEATH, tolerate=MISSING, at=end)
    a.calls.move_mount(readiness.mask_file(a.calls, null), target)
    a.calls.place(end)


def _read_only_path(a: Assembly, one: o.ReadonlyPath) -> None:
    end = Label()
    target = a.calls.open(a.root, one.path, os.O_PATH, BENEATH, tolerate=MISSING, at=end)
    mount = a.calls.clone_tree(target, recursive=True)
    a.calls.set_attributes(mount, on=n.MOUNT_ATTR_RDONLY, recursive=True)
    a.calls.move_mount(mount, target)
    a.calls.place(end)


def _read_only_root(a: Assembly, _one: o.ReadonlyRoot) -> None:
    a.calls.set_attributes(a.root, on=n.MOUNT_ATTR_RDONLY)


def _default_devices(a: Assembly, one: d.DefaultDevices) -> None:
    dev = a.fresh.get("/dev")
    if dev is None:
        raise NeedsInterpreter("a /dev that is not new")
    if not a.has_dev():
        readiness.fill_dev(a.calls, dev, one.configured)
        return
    for path in one.configured:
        a.calls.call(SYS["unlinkat"], dev, _name_in_dev(path).encode(), 0, tolerate=(errno.ENOENT,))


def _device(a: Assembly, one: d.Device) -> None:
    dev = a.fresh.get("/dev")
    if dev is None:
        raise NeedsInterpreter("a /dev that is not new")
    name = _name_in_dev(one.path)
    mode = d.KINDS[one.kind] | one.mode
    a.calls.make_node(dev, name, mode, os.makedev(one.major, one.minor))
    if one.uid or one.gid:
        flags = n.AT_SYMLINK_NOFOLLOW
        a.calls.call(SYS["fchownat"], dev, name.encode(), one.uid, one.gid, flags)


def _name_in_dev(path: str) -> str:
    head, _, name = path.rpartition("/")
    if head != "/dev" or name in ("", ".", ".."):
        raise NeedsInterpreter(f"a device at {path}")
    return name


def _pivot(a: Assembly, one: o.Pivot) -> None:
    a.calls.call(SYS["fchdir"], a.root)
    a.calls.call(SYS["pivot_root"], b".", b".")
    a.calls.call(SYS["umount2"], b".", n.MNT_DETACH)
    a.calls.call(SYS["fchdir"], a.root)
    if one.propagation:
        (option,) = MountOptions([one.propagation]).propagation
        flags = option[0] | (n.MS_REC if option[1] else 0)
        a.calls.call(SYS["mount"], 0, b"/", 0, flags, 0)


def _session(a: Assembly, one: c.Session) -> None:
    if one.terminal:
        raise NeedsInterpreter("a terminal")
    a.calls.call(SYS["setsid"])
    for number, fd in enumerate(a.stdio):
        a.calls.call(SYS["dup2"], fd, number)


def _directory(a: Assembly, one: c.Directory) -> None:
    path = os.path.normpath(one.path)
    if one.create and path != "/" and not any(path.startswith(m) for m in a.mounted):
        a.prepare.append((path, True))
    # No link of /proc may lead out of the container, as getcwd(2) is asked to confirm elsewhere.
    resolve = n.RESOLVE_NO_MAGICLINKS
    how = a.calls.data(struct.pack("<QQQ", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, resolve))
    fd = a.calls.call(n.SYS_openat2, n.AT_FDCWD, os.fsencode(one.path), how, 24)
    a.calls.call(SYS["fchdir"], fd)


def _find_program(a: Assembly, one: c.FindProgram) -> None:
    names = [one.name]
    if "/" not in one.name:
        names = [f"{directory or '.'}/{one.name}" for directory in one.search]
    a.program = [os.fsencode(name) for name in names]


def _limit(a: Assembly, one: c.Limit) -> None:
    wanted = struct.pack("<QQ", one.soft & _UNLIMITED, one.hard & _UNLIMITED)
    a.calls.call(SYS["prlimit64"], 0, LIMITS[one.kind], a.calls.data(wanted), 0)


def _bounding(a: Assembly, one: c.Bounding) -> None:
    keep = capabilities.mask(one.names)
    for bit in range(len(capabilities.NAMES)):
        if not keep >> bit & 1:
            a.calls.prctl(n.PR_CAPBSET_DROP, bit)


def _user(a: Assembly, one: c.User) -> None:
    groups = a.calls.data(struct.pack(f"<{len(one.groups)}I", *one.groups))
    a.calls.prctl(n.PR_SET_KEEPCAPS, 1)
    a.calls.call(SYS["setgroups"], len(one.groups), groups)
    a.calls.call(SYS["setresgid"], one.gid, one.gid, one.gid)
    a.calls.call(SYS["setresuid"], one.uid, one.uid, one.uid)
    a.calls.prctl(n.PR_SET_KEEPCAPS, 0)
    a.calls.call(SYS["umask"], one.umask)


def _keep_capabilities(a: Assembly, _one: c.KeepCapabilities) -> None:
    permitted, inheritable = a.permitted()
    _set_capabilities(a, permitted, permitted, inheritable)


def _capabilities(a: Assembly, one: c.Capabilities) -> None:
    available, _ = a.permitted()
    permitted = capabilities.mask(one.permitted) & available
    effective = capabilities.mask(one.effective) & permitted
    inheritable = capabilities.mask(one.inheritable)
    ambient = capabilities.mask(one.ambient) & permitted & inheritable
    _set_capabilities(a, effective, permitted, inheritable)
    a.calls.prctl(n.PR_CAP_AMBIENT, n.PR_CAP_AMBIENT_CLEAR_ALL)
    for bit in range(len(capabilities.NAMES)):
        if ambient >> bit & 1:
            a.calls.prctl(n.PR_CAP_AMBIENT, n.PR_CAP_AMBIENT_RAISE, bit)


def _set_capabilities(a: Assembly, *sets: int) -> None:
    header, words = capabilities.structures(*sets)
    a.calls.call(SYS["capset"], a.calls.data(header), a.calls.data(words))


def _no_new_privileges(a: Assembly, _one: c.NoNewPrivileges) -> None:
    a.calls.prctl(n.PR_SET_NO_NEW_PRIVS, 1)


def _die_with_parent(a: Assembly, _one: c.DieWithParent) -> None:
    a.calls.prctl(n.PR_SET_PDEATHSIG, process.SIGKILL)


def vectors(calls: Calls, one: c.Execute) -> tuple[int, int]:
    """The addresses of argv and the environment. Of a name that comes twice the last one counts."""
    environment: dict[bytes, bytes] = {}
    for entry in one.environment:
        name, _, value = os.fsencode(entry).partition(b"=")
        environment[name] = value
    arguments = calls.strings([os.fsencode(word) for word in one.arguments])
    return arguments, calls.strings([b"=".join(item) for item in environment.items()])


def _execute(a: Assembly, one: c.Execute) -> None:
    if one.preserve:
        raise NeedsInterpreter("descriptors to preserve")
    arguments, variables = vectors(a.calls, one)
    *others, last = a.program
    for path in others:
        a.calls.call(SYS["execve"], path, arguments, variables, tolerate=MISSING)
    a.calls.call(SYS["execve"], last, arguments, variables)


def _nothing(_a: Assembly, _one: o.Operation) -> None:
    """The blank has done it, or the machine needs it not."""


WRITERS: Writers = {
    OwnCgroupMount: _own_cgroup,
    c.Bounding: _bounding,
    c.Capabilities: _capabilities,
    c.DieWithParent: _die_with_parent,
    c.Directory: _directory,
    c.Execute: _execute,
    c.FindProgram: _find_program,
    c.KeepCapabilities: _keep_capabilities,
    c.LetGo: lambda a, _one: a.calls.close_at_execve(),
    c.Limit: _limit,
    c.NoNewPrivileges: _no_new_privileges,
    c.OomScore: _oom_score,
    c.Session: _session,
    c.Trampoline: _nothing,
    c.User: _user,
    d.DefaultDevices: _default_devices,
    d.Device: _device,
    d.ReadonlyMount: lambda a, one: a.calls.make_read_only(a.root, one.destination),
    o.AttachRoot: _attach_root,
    o.BindMount: _bind,
    o.CgroupMount: _cgroup_mount,
    o.Domainname: _domainname,
    o.Hostname: _hostname,
    o.JoinNamespace: _join,
    o.Loopback: _nothing,
    o.MaskPath: _mask,
    o.Mount: _mount,
    o.Pivot: _pivot,
    o.Propagation: _propagation,
    o.ReadonlyPath: _read_only_path,
    o.ReadonlyRoot: _read_only_root,
    o.Sysctl: _sysctl,
}
Assembly.writers = WRITERS
