"""A cgroup on version 2: one directory in the unified hierarchy.

Each ancestor hands its controllers down through cgroup.subtree_control; that, and nothing else, is
changed outside of the cgroup's own path. Devices are guarded by a program on the cgroup.

What this promises: a failed `create` leaves no directory of its own behind; `remove` waits at most
a second for the kernel to let go of dying processes.
"""

from __future__ import annotations

import errno
import os
import time

from sampan.kernel import bpf
from sampan.kernel.cgroups import applying, device_program, devices, hierarchy, stats, v2_limits
from sampan.kernel.cgroups.tree import (
    exists,
    kill_all,
    pids_below,
    remove_quietly,
    remove_tree,
)
from sampan.kernel.identity import is_unprivileged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups.fields import Write
    from sampan.kernel.cgroups.watch import FileWatch

_WAIT = 1.0


class Cgroup:
    """The cgroup at one path of the unified hierarchy."""

    __slots__ = ("_fresh", "_name", "_tree", "path")

    def __init__(self, path: str, own: dict[str, str] | None = None) -> None:
        self.path = path
        self._fresh = False
        self._tree = next(tree for tree in hierarchy.mounted() if tree.version == 2)
        ((_, self._name),) = hierarchy.names([self._tree], path, own)

    def create(self, resources: dict[str, Any], first: int = 0) -> None:
        """Make the directory and set the limits; see v1.Cgroup.create for what it raises."""
        rules = self.check(resources)
        self._make()
        try:
            self.limit(resources, rules)
        except BaseException:
            remove_quietly(self._tree, self._name)
            raise

    def check(self, resources: dict[str, Any]) -> devices.Policy:
        """The rules for devices. Raises ValueError for malformed resources."""
        v2_limits.plan(resources, _look_at_nothing)
        return devices.policy(resources.get("devices"))

    def limit(self, resources: dict[str, Any], rules: devices.Policy) -> None:
        """Set the limits of a cgroup that is new."""
        applying.apply(v2_limits.plan(resources, self.look), self._write)
        if not rules.allow or rules.exceptions:
            self._guard_devices(rules)
        self._fresh = True

    def _guard_devices(self, rules: devices.Policy) -> None:
        """Set the rules. In a cgroup that was delegated to an ordinary user there is no program on
        devices, and no need of one: such a user can neither make nor open what would be denied."""
        try:
            self._set_devices(rules)
        except PermissionError:
            if not is_unprivileged():
                raise

    def _make(self) -> None:
        is_taken = False
        try:
            self._delegate()
            try:
                os.mkdir(self._name, 0o755, dir_fd=self._tree.fd)
            except FileExistsError:
                if (self.look("cgroup", "cgroup.freeze") or "0").strip() == "1":
                    said = "container's cgroup unexpectedly frozen"
                    raise OSError(errno.EBUSY, said) from None
                is_taken = bool(self.pids())
                if not is_taken:
                    remove_tree(self._tree, self._name, time.monotonic() + _WAIT)
                    os.mkdir(self._name, 0o755, dir_fd=self._tree.fd)
        except OSError as error:
            hierarchy.fail(error, f"mkdir {self._tree.name(self._name)}")
        if is_taken:
            where = self._tree.name(self._name)
            raise FileExistsError(errno.EEXIST, f"container's cgroup is not empty: {where}")

    def _delegate(self) -> None:
        """Make the ancestors, and have each give all its controllers to the next."""
        names = self._name.split("/")
        for count in range(len(names)):
            parent = "/".join(names[:count])
            if parent:
                try:
                    os.mkdir(parent, 0o755, dir_fd=self._tree.fd)
                except FileExistsError:
                    pass
            self._enable(f"{parent}/" if parent else "")

    def _enable(self, parent: str) -> None:
        have = hierarchy.read(self._tree, f"{parent}cgroup.controllers").split()
        given = hierarchy.read(self._tree, f"{parent}cgroup.subtree_control").split()
        wanted = [f"+{name}" for name in have if name not in given]
        # All at once, else one by one: a controller that cannot be handed down is only missed when
        # a limit asks for it, and then the message says so.
        if wanted and not self._try_enable(parent, " ".join(wanted)):
            for text in wanted:
                self._try_enable(parent, text)

    def _try_enable(self, parent: str, text: str) -> bool:
        try:
            hierarchy.write(self._tree, f"{parent}cgroup.subtree_control", text)
        except OSError:
            return False
        return True

    def update(self, resources: dict[str, Any]) -> None:
        """Change the limits that `resources` names; the others, and devices not named, stay.

        Raises ValueError or OSError when one is malformed or refused; then none has changed.
        """
        writes = v2_limits.plan(resources, self.look)
        applying.change(writes, self._write, self.look)
        if resources.get("devices") is not None:
            self._set_devices(devices.policy(resources["devices"]))

    def procs_fds(
        self, below: dict[str, str] | None = None, *, init: int = 0, frozen: bool = False
    ) -> list[tuple[str, int]]:
        """Open descriptors for joining: write b"0" to each, in this order, and close them.

        `below` maps "" to an existing cgroup below this one to join instead. A cgroup that hands
        controllers down holds no process: then it is the cgroup of the process `init`, and also
        where this one was removed because that has left it.
        Raises BlockingIOError when the cgroup is frozen, unless the caller knows (`frozen`).
        """
        if not (frozen or self._fresh) and self.is_frozen():
            raise BlockingIOError(errno.EAGAIN, f"join cgroup {self.path}: it is frozen")
        path = self._name
        if below:
            if set(below) != {""}:
                raise ValueError("--cgroup: cgroup version 2 has one hierarchy, not controllers")
            path = hierarchy.inside(path, below[""])
        elif init and (given := self.look("cgroup", "cgroup.subtree_control")) != "":
            path = self._of_process(init, anywhere=given is None)
        name = f"{path}/cgroup.procs"
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._tree.fd)
        except OSError as error:
            hierarchy.fail(error, f"open cgroup {self._tree.name(path)}")
        return [("", fd)]

    def _of_process(self, pid: int, *, anywhere: bool) -> str:
        """Where below this cgroup a process is; this one itself if it is elsewhere, where that is
        not asked for."""
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as stream:
            lines = [line.rstrip("\n") for line in stream if line.startswith("0::")]
        path = lines[0][3:].lstrip("/") if lines else ""
        is_found = (anywhere and path) or path.startswith(f"{self._name}/")
        return path if is_found and ".." not in path.split("/") else self._name

    def doors(self) -> int:
        """How many descriptors `procs_fds` opens."""
        return 1

    def clone_fd(self) -> int | None:
        """A descriptor of the directory for CLONE_INTO_CGROUP, the fastest way to join."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._name, flags, dir_fd=self._tree.fd)

    def birthplace(self, *, make: bool) -> int:
        """As `hybrid.Cgroup.birthplace`: -1, for a child joins here when its limits are set."""
        return -1

    def leave_birthplace(self) -> None:
        """Undo `birthplace`."""

    def join(self, pid: int) -> None:
        """Move another process with all its threads."""
        hierarchy.write(self._tree, f"{self._name}/cgroup.procs", str(pid))

    def freeze(self) -> None:
        """Stop every process; returns when all are stopped, raises TimeoutError otherwise."""
        self._set_frozen(1)

    def thaw(self) -> None:
        """Let every process run again."""
        self._set_frozen(0)

    def is_frozen(self) -> bool:
        """Whether the processes are stopped, or about to be."""
        return stats.number(self.look("cgroup", "cgroup.freeze")) == 1

    def _set_frozen(self, state: int) -> None:
        hierarchy.write(self._tree, f"{self._name}/cgroup.freeze", str(state))
        deadline = time.monotonic() + _WAIT
        while stats.pairs(self.look("cgroup", "cgroup.events")).get("frozen") != state:
            if time.monotonic() > deadline:
                message = f"cgroup {self.path}: frozen did not become {state}"
                raise TimeoutError(errno.ETIMEDOUT, message)
            time.sleep(0.001)

    def pids(self) -> list[int]:
        """Every process in the cgroup and below it, as seen from our pid namespace."""
        return pids_below(self._tree, self._name)

    def kill(self) -> None:
        """End every process in the cgroup and below it; TimeoutError if they do not go."""
        deadline = time.monotonic() + _WAIT
        pause = 0.0002
        while pids := self.pids():
            if not self._kill_at_once():
                kill_all(pids)
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"processes of cgroup {self.path} do not end")
            time.sleep(pause)
            pause = min(pause * 2, 0.02)

    def _kill_at_once(self) -> bool:
        try:  # Linux 5.14
            hierarchy.write(self._tree, f"{self._name}/cgroup.kill", "1")
        except OSError:
            return False
        return True

    def oom_kills(self) -> int:
        """How many processes the kernel has killed here and below for want of memory."""
        return stats.pairs(self.look("memory", "memory.events")).get("oom_kill", 0)

    def places(self) -> list[tuple[hierarchy.Hierarchy, str]]:
        """Where the cgroup is: in the one hierarchy."""
        return [(self._tree, self._name)]

    def open_counts(self) -> int:
        """A descriptor of the file with `oom_kills`; OSError without the memory controller."""
        name = f"{self._name}/memory.events"
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._tree.fd)

    def watch_oom(self) -> FileWatch:
        """Be told when the kernel kills here for want of memory."""
        from sampan.kernel.cgroups.watch import FileWatch

        return FileWatch(self._tree, self._name)

    def stats(self) -> dict[str, Any]:
        """Raw counters, in the shape that the stats module documents."""
        return stats.from_v2(self.look)

    def exists(self) -> bool:
        """Whether the directory is there."""
        return exists(self._tree, self._name)

    def names(self) -> dict[str, str]:
        """The empty controller name to the directory, for state that is written down."""
        return {"": self._tree.name(self._name)}

    def remove(self) -> None:
        """Remove the directory with those that the container made below; absent is fine.

        Raises OSError (EBUSY) when processes are still there after a second.
        """
        remove_tree(self._tree, self._name, time.monotonic() + _WAIT)

    def remove_empty(self) -> bool:
        """Remove the directory if there is nothing in it; whether it is gone now."""
        remove_quietly(self._tree, self._name)
        return not self.exists()

    def look(self, controller: str, file: str) -> str | None:
        """The text of a file of the cgroup, or None where there is no such file."""
        return hierarchy.look(self._tree, f"{self._name}/{file}")

    def _write(self, write: Write) -> None:
        try:
            hierarchy.write(self._tree, f"{self._name}/{write.file}", write.value)
        except FileNotFoundError as error:
            if write.optional:
                raise
            have = (self.look("cgroup", "cgroup.controllers") or "").split()
            why = (
                f"this kernel has no {write.file}"
                if write.controller in have
                else f"cgroup controller {write.controller} is not available"
            )
            raise OSError(errno.ENODEV, f"set {write.field}: {why}") from error
        except OSError as error:
            raise OSError(error.errno, f"set {write.field}: {error.strerror}") from error

    def _set_devices(self, rules: devices.Policy) -> None:
        try:
            program = bpf.load_device_program(device_program.program(rules))
            try:
                directory = self.clone_fd()
                assert directory is not None
                try:
                    bpf.set_device_program(directory, program)
                finally:
                    os.close(directory)
            finally:
                os.close(program)
        except OSError as error:
            hierarchy.fail(error, f"set linux.resources.devices of cgroup {self.path}")


def _look_at_nothing(controller: str, file: str) -> str | None:
    return None
