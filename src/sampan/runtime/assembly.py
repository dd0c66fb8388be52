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

from sampan.kernel import capabilities
from sampan.kernel import numbers as n
from sampan.kernel.machine import ORDER_BASE, SYS, Value
from sampan.runtime import assembly_mounts, assembly_process, readiness
from sampan.runtime import credentials as c
from sampan.runtime import operations as o
from sampan.runtime.calls import PLAIN, Calls
from sampan.runtime.failure import NeedsInterpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.runtime.calls import Passed
    from sampan.runtime.plan import Plan
    from sampan.runtime.readiness import Ready

    Writers = dict[type[o.Operation], Callable[[Any, Any], None]]

READY = b"R"
_JOINABLE = frozenset(("cgroup", "ipc", "network", "pid", "uts"))
_MAX_SOURCES = 240
_NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER


class Assembly:
    """A plan that becomes a script.

    `passed` descriptors, in the order of the message: the script, the root, 0, 1, 2, the namespaces
    that are joined, the sources of bind mounts. `prepare` holds (path below the root, whether it is
    a directory). `is_of_this_root` says whether a look into the root decided anything.
    """

    __slots__ = (
        "_cgroup_fds",
        "_ready",
        "_root_fd",
        "_taken",
        "calls",
        "fresh",
        "is_of_this_root",
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
        self.is_of_this_root = False
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
        return mount, is_directory(fd)

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
        self.is_of_this_root = True
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


def is_directory(fd: int) -> bool:
    """Whether the source of a bind mount is one."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


WRITERS: Writers = {**assembly_mounts.WRITERS, **assembly_process.WRITERS}
Assembly.writers = WRITERS
