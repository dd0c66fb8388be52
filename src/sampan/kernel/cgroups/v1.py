"""A cgroup on version 1: one directory in each mounted hierarchy.

Processes join by writing "0" to `tasks`, not to `cgroup.procs`. The child that joins has a single
thread, so both mean the same, but the second one waits for a read-copy-update grace period of the
whole machine: 5 to 7 ms were measured against 0.1 ms. For the same reason the version 2 tree of a
hybrid host is not joined: it has no controllers, and nothing here needs it. (`hybrid` does.)

What this promises: a failed `create` leaves no directory of its own behind; `remove` waits at most
a second for the kernel to let go of dying processes; both touch only the cgroup's own path.
"""

from __future__ import annotations

import errno
import os
import time

from sampan.kernel.cgroups import applying, devices, hierarchy, stats, v1_limits
from sampan.kernel.cgroups.hierarchy import Hierarchy
from sampan.kernel.cgroups.tree import (
    below,
    exists,
    kill_all,
    pids_below,
    remove_quietly,
    remove_tree,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups.fields import Write
    from sampan.kernel.cgroups.watch import EventWatch

_WAIT = 1.0  # seconds the kernel gets for its part: freezing, killing, letting go
# The freezer nearly last, because a frozen cgroup stops whoever joins it; memory last of all, so
# that what the joining child still does is not charged to the container.
_JOIN_LAST = {"freezer": 1, "memory": 2}
_FROZEN = "container's cgroup unexpectedly frozen"  # runc's words


class Cgroup:
    """The cgroup at one path in all version 1 hierarchies."""

    __slots__ = ("_by_controller", "_dirs", "_fresh", "path")

    def __init__(self, path: str, own: dict[str, str] | None = None) -> None:
        self.path = path
        self._fresh = False
        trees = [tree for tree in hierarchy.mounted() if tree.version == 1]
        self._dirs = hierarchy.names(trees, path, own)
        self._dirs.sort(key=lambda pair: max(_JOIN_LAST.get(c, 0) for c in pair[0].controllers))
        self._by_controller = {
            controller: pair for pair in self._dirs for controller in pair[0].controllers
        }

    def create(self, resources: dict[str, Any], first: int = 0) -> None:
        """Make the directories and set the limits; `first`, who will join, only systemd wants.

        A directory left behind by an earlier container is made anew. Raises FileExistsError when
        there are processes in it, ValueError for malformed resources, OSError for what the kernel
        or a missing controller refuses.
        """
        rules = self.check(resources)
        made: list[tuple[Hierarchy, str]] = []
        try:
            for tree, path in self._dirs:
                _make(tree, path)
                made.append((tree, path))
            self.limit(resources, rules)
        except BaseException:
            for tree, path in made:
                remove_quietly(tree, path)
            raise

    def check(self, resources: dict[str, Any]) -> devices.Policy:
        """The rules for devices. Raises as `create`, for what needs no cgroup to be known."""
        self._refuse_missing(v1_limits.plan(resources, _look_at_nothing))
        return devices.policy(resources.get("devices"))

    def limit(self, resources: dict[str, Any], rules: devices.Policy) -> None:
        """Set the limits of a cgroup that is new."""
        if "cpuset" in self._by_controller:
            _fill_cpuset(*self._by_controller["cpuset"])
        self._set_devices(rules, fresh=True)
        if len(resources) > ("devices" in resources):
            applying.apply(v1_limits.plan(resources, self.look), self._write)
        self._fresh = True

    def update(self, resources: dict[str, Any]) -> None:
        """Change the limits that `resources` names; the others, and devices not named, stay.

        Raises ValueError or OSError when one is malformed or refused; then none has changed.
        """
        writes = v1_limits.plan(resources, self.look)
        self._refuse_missing(writes)
        applying.change(writes, self._write, self.look)
        if resources.get("devices") is not None:
            self._set_devices(devices.policy(resources["devices"]), fresh=False)

    def procs_fds(
        self, below: dict[str, str] | None = None, *, init: int = 0, frozen: bool = False
    ) -> list[tuple[str, int]]:
        """Open descriptors for joining: write b"0" to each, in this order, and close them.

        `below` maps a controller to an existing cgroup below this one to join instead. The writer
        must have one thread. Raises BlockingIOError when the cgroup is frozen, unless the caller
        knows (`frozen`): whoever joins a frozen cgroup stops and cannot even be killed.
        """
        if not (frozen or self._fresh) and self.is_frozen():
            raise BlockingIOError(errno.EAGAIN, f"join cgroup {self.path}: it is frozen")
        places = dict(self._by_controller)
        for controller, sub in (below or {}).items():
            for name in [controller] if controller else list(places):  # without one: in each
                if name not in places:
                    raise ValueError(f"unknown controller {name} in --cgroup {name}:{sub}")
                tree, path = self._by_controller[name]
                places[name] = tree, hierarchy.inside(path, sub)
        opened: list[tuple[str, int]] = []
        try:
            for tree, _ in self._dirs:
                name = f"{places[tree.controllers[0]][1]}/tasks"
                fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=tree.fd)
                opened.append((",".join(tree.controllers), fd))
        except OSError as error:
            for _, fd in opened:
                os.close(fd)
            hierarchy.fail(error, f"adding pid to cgroup {self.path}: open its tasks")
        return opened

    def doors(self) -> int:
        """How many descriptors `procs_fds` opens."""
        return len(self._dirs)

    def clone_fd(self) -> int | None:
        """A descriptor for CLONE_INTO_CGROUP; version 1 has no such thing."""
        return None

    def birthplace(self, *, make: bool) -> int:
        """A descriptor of where a child can be born into: -1, for that is of version 2."""
        return -1

    def leave_birthplace(self) -> None:
        """Undo `birthplace`."""

    def join(self, pid: int) -> None:
        """Move another process with all its threads; slow, see procs_fds for the fast way."""
        for tree, path in self._dirs:
            hierarchy.write(tree, f"{path}/cgroup.procs", str(pid))

    def freeze(self) -> None:
        """Stop every process; returns when all are stopped, raises TimeoutError otherwise."""
        self._set_frozen("FROZEN", _WAIT)

    def thaw(self) -> None:
        """Let every process run again."""
        self._set_frozen("THAWED", _WAIT)

    def is_frozen(self) -> bool:
        """Whether the processes are stopped, or about to be."""
        return (self.look("freezer", "freezer.state") or "THAWED").strip() != "THAWED"

    def _set_frozen(self, state: str, wait: float) -> None:
        tree, path = self._directory("freezer", f"change state to {state}")
        deadline = time.monotonic() + wait
        while True:
            # Written each time: a process that forks while it is being frozen can make the first
            # attempt stick in FREEZING.
            hierarchy.write(tree, f"{path}/freezer.state", state)
            if hierarchy.read(tree, f"{path}/freezer.state").strip() == state:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"cgroup {self.path} did not become {state}")
            time.sleep(0.001)

    def pids(self) -> list[int]:
        """Every process in the cgroup and below it, as seen from our pid namespace."""
        tree, path = self._by_controller.get("devices", self._dirs[0])
        return pids_below(tree, path)

    def kill(self) -> None:
        """End every process in the cgroup and below it; TimeoutError if they do not go."""
        deadline = time.monotonic() + _WAIT
        pause = 0.0002
        while pids := self.pids():
            # Frozen, none of them can fork away from us and no number can be reused.
            frozen = len(pids) > 1 and self._try_freeze()
            try:
                kill_all(self.pids() if frozen else pids)
            finally:
                if self.is_frozen():
                    self.thaw()
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"processes of cgroup {self.path} do not end")
            time.sleep(pause)
            pause = min(pause * 2, 0.02)

    def _try_freeze(self) -> bool:
        try:
            self._set_frozen("FROZEN", _WAIT / 4)
        except OSError:  # no freezer, or a process in uninterruptible sleep: kill without
            return False
        return True

    def oom_kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        if "memory" not in self._by_controller:
            return 0
        tree, path = self._by_controller["memory"]
        # Version 1 counts per cgroup; the container may have made its own below.
        texts = (
            hierarchy.look(tree, f"{name}/memory.oom_control")
            for name in [path, *below(tree, path)]
        )
        return sum(stats.pairs(text).get("oom_kill", 0) for text in texts)

    def places(self) -> list[tuple[Hierarchy, str]]:
        """Where the cgroup is in each hierarchy, that of memory last."""
        return self._dirs

    def open_counts(self) -> int:
        """A descriptor of the file with `oom_kills`; OSError without the memory controller."""
        tree, path = self._directory("memory", "count kills for want of memory")
        name = f"{path}/memory.oom_control"
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=tree.fd)

    def watch_oom(self) -> EventWatch:
        """Be told when the cgroup runs out of memory; OSError without the memory controller."""
        from sampan.kernel.cgroups.watch import EventWatch

        return EventWatch(*self._directory("memory", "watch for want of memory"))

    def stats(self) -> dict[str, Any]:
        """Raw counters, in the shape that the stats module documents."""
        return stats.from_v1(self.look)

    def exists(self) -> bool:
        """Whether any of the directories is there."""
        return any(exists(tree, path) for tree, path in self._dirs)

    def names(self) -> dict[str, str]:
        """Controller to absolute directory, for state that is written down."""
        return {key: tree.name(path) for key, (tree, path) in self._by_controller.items()}

    def remove(self) -> None:
        """Remove the directories with those that the container made below; absent ones are fine.

        Raises OSError (EBUSY) when processes are still there after a second.
        """
        deadline = time.monotonic() + _WAIT
        for tree, path in self._dirs:
            remove_tree(tree, path, deadline)

    def remove_empty(self) -> bool:
        """Remove the directories that have nothing in them; whether all are gone now."""
        for tree, path in self._dirs:
            remove_quietly(tree, path)
        return not self.exists()

    def look(self, controller: str, file: str) -> str | None:
        """The text of a file of the cgroup, or None where there is no such file."""
        if controller not in self._by_controller:
            return None
        tree, path = self._by_controller[controller]
        return hierarchy.look(tree, f"{path}/{file}")

    def _directory(self, controller: str, what: str) -> tuple[Hierarchy, str]:
        try:
            return self._by_controller[controller]
        except KeyError:
            message = f"{what}: cgroup controller {controller} is not available"
            raise OSError(errno.ENODEV, message) from None

    def _refuse_missing(self, writes: list[Write]) -> None:
        for write in writes:
            self._directory(write.controller, f"set {write.field}")

    def _write(self, write: Write) -> None:
        tree, path = self._by_controller[write.controller]
        try:
            hierarchy.write(tree, f"{path}/{write.file}", write.value)
        except OSError as error:
            what = f"set {write.field}: {error.strerror}"
            if error.errno == errno.EBUSY and write.controller == "memory":
                usage = (self.look("memory", "memory.usage_in_bytes") or "").strip()
                what += f", {usage} bytes are in use"
            raise OSError(error.errno, what) from error

    def _set_devices(self, rules: devices.Policy, *, fresh: bool) -> None:
        tree, path = self._directory("devices", "set linux.resources.devices")
        current = devices.Policy()
        if not fresh:
            current = devices.parse_list(hierarchy.read(tree, f"{path}/devices.list"))
        if fresh or current.allow or rules.allow:
            # The default can only be set as a whole, and forgets the exceptions.
            hierarchy.write(tree, f"{path}/devices.{'allow' if rules.allow else 'deny'}", "a")
            current = devices.Policy()
        more, less = devices.difference(current, rules)
        # What is allowed anew comes first: a running container must not miss what it keeps.
        allowed, denied = (less, more) if rules.allow else (more, less)
        _write_lines(tree, f"{path}/devices.allow", allowed)
        _write_lines(tree, f"{path}/devices.deny", denied)


def _look_at_nothing(controller: str, file: str) -> str | None:
    return None


def _make(tree: Hierarchy, path: str) -> None:
    is_taken = False
    try:
        try:
            os.mkdir(path, 0o755, dir_fd=tree.fd)
        except FileNotFoundError:
            _make_parents(tree, path)
            os.mkdir(path, 0o755, dir_fd=tree.fd)
        except FileExistsError:
            if (hierarchy.look(tree, f"{path}/freezer.state") or "THAWED").strip() != "THAWED":
                raise OSError(errno.EBUSY, _FROZEN) from None
            is_taken = bool(pids_below(tree, path))
            if not is_taken:
                remove_tree(tree, path, time.monotonic() + _WAIT)
                os.mkdir(path, 0o755, dir_fd=tree.fd)
    except OSError as error:
        if error.strerror == _FROZEN:
            raise
        hierarchy.fail(error, f"mkdir {tree.name(path)}")
    if is_taken:
        raise FileExistsError(errno.EEXIST, f"container's cgroup is not empty: {tree.name(path)}")


def adopt(tree: Hierarchy, path: str, first: int) -> None:
    """Make the directory, or take one in which nobody but the process `first` is.

    Raises as `Cgroup.create`.
    """
    if not exists(tree, path) or not set(pids_below(tree, path)) <= {first}:
        _make(tree, path)


def _make_parents(tree: Hierarchy, path: str) -> None:
    names = path.split("/")[:-1]
    for count in range(1, len(names) + 1):
        parent = "/".join(names[:count])
        try:
            os.mkdir(parent, 0o755, dir_fd=tree.fd)
        except FileExistsError:
            continue
        if "cpuset" in tree.controllers:
            _fill_cpuset(tree, parent)
            # The kernel then copies the sets to each child itself, which saves four calls a start.
            hierarchy.write(tree, f"{parent}/cgroup.clone_children", "1")


def _fill_cpuset(tree: Hierarchy, path: str) -> None:
    """Copy what is empty from the nearest ancestor: nobody can join an empty cpuset."""
    for file in ("cpuset.mems", "cpuset.cpus"):
        _inherit(tree, path, file)


def _inherit(tree: Hierarchy, path: str, file: str) -> str:
    own = hierarchy.read(tree, f"{path}/{file}" if path else file).strip()
    if own or not path:
        return own
    value = _inherit(tree, path.rpartition("/")[0], file)
    hierarchy.write(tree, f"{path}/{file}", value)
    return value


def _write_lines(tree: Hierarchy, path: str, lines: list[str]) -> None:
    if not lines:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=tree.fd)
    try:
        for line in lines:
            try:
                os.write(fd, line.encode())
            except OSError as error:
                hierarchy.fail(
                    error, f"set linux.resources.devices: write {line!r} to {tree.name(path)}"
                )
    finally:
        os.close(fd)
