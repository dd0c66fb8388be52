"""`sampan-oci restore`: a container again, of what `checkpoint` has written, by CRIU.

CRIU joins the container's cgroup before it is asked, so that what it restores is born in there, and
works in a mount namespace of this process alone, so that the mount of the root file system that it
wants is gone with us. Network namespaces come back empty, as under runc: their loopback is set up,
and the hooks that fill others run when the namespaces are there.
"""

from __future__ import annotations

import os

from sampan.jsontext import decode
from sampan.kernel import cgroups, fds, loopback, mounts, namespaces
from sampan.kernel import numbers as n
from sampan.kernel.paths import Root
from sampan.runtime import (
    bundle,
    checkpointing,
    console,
    criu,
    criu_words,
    facts,
    hooks,
    launch,
    passing,
    shapes,
    shortcut,
    verbs,
)
from sampan.runtime.arguments import Parsed
from sampan.runtime.calling import forward_signals, wait, write_pid
from sampan.runtime.failure import InvalidConfig
from sampan.runtime.plan import is_bind, shares_mounts
from sampan.runtime.state import StateDirectory
from sampan.runtime.validate import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.criu_words import Value

_CGROUPS = ("cgroup", "cgroup2")


def restore(root: str, container_id: str, options: Parsed) -> int:
    """Make the container of a bundle from the images; as `run`, the exit code or 0 if detached.

    Raises:
        InvalidConfig: the bundle is refused.
        UsageError: there is a terminal and nobody to give it to.
        RuntimeFailure: CRIU cannot; everything was undone.
    """
    where = bundle.directory(options.text("bundle"))
    spec = bundle.load(where)
    shapes.check(spec, shapes.CONFIG)
    check(spec)
    if shares_mounts(spec.get("linux") or {}):
        raise InvalidConfig("linux.namespaces: a mount namespace is needed to restore")
    launch.settle_mounts(spec, where)
    launch.check_terminal(spec, options, detached=options.on("detach"))
    record = launch.first_record(spec, container_id, where, options)
    directory = StateDirectory(root, container_id)
    directory.make()
    group = cgroups.recorded(record)
    restoring = _Restoring(spec, record, group, options)
    try:
        directory.save(record)
        restoring.run()
    except BaseException:
        restoring.undo()
        directory.remove()
        raise
    pidfd = os.pidfd_open(restoring.pid)
    _record(directory, record, spec, restoring.pid, group)
    _hand_out(options, restoring.pid, pidfd)
    if options.on("detach"):
        return 0
    forward_signals(pidfd)
    if restoring.master >= 0:
        console.relay(restoring.master, pidfd)
    code = wait(pidfd)
    verbs.delete(root, container_id, force=True)
    return code


def _hand_out(options: Parsed, pid: int, pidfd: int) -> None:
    """The pid to its file, the pidfd to its socket."""
    if options.text("pid-file"):
        write_pid(options.text("pid-file"), pid)
    if options.text("pidfd-socket"):
        passing.hand_pidfd(options.text("pidfd-socket"), pidfd)


def _record(
    directory: StateDirectory,
    record: dict[str, Any],
    spec: dict[str, Any],
    pid: int,
    group: cgroups.Cgroup,
) -> None:
    state: dict[str, Any] = {
        **record,
        **facts.record(record["id"], pid, record["bundle"], record["cgroup"], spec),
        "cgroup_paths": group.names(),
        "rootfs": os.path.join(record["bundle"], spec["root"]["path"]),
        "config": spec,
    }
    if "time" not in state["namespaces"] and _differs(pid, "time"):
        state["namespaces"].append("time")  # CRIU makes one, so that clocks go on where they were
    directory.save(state)
    shortcut.write(directory, state)


def _differs(pid: int, kind: str) -> bool:
    try:
        ours, theirs = (os.readlink(f"/proc/{who}/ns/{kind}") for who in ("self", pid))
    except FileNotFoundError:  # it has ended
        return False
    return ours != theirs


class _Restoring:
    """One container on its way back. `pid` is its first process and `master` its terminal's other
    end, -1 when there is none or somebody else has it."""

    def __init__(
        self, spec: dict[str, Any], record: dict[str, Any], group: cgroups.Cgroup, options: Parsed
    ) -> None:
        self.pid = 0
        self.master = -1
        self._spec = spec
        self._record = record
        self._group = group
        self._options = options
        self._is_made = False

    def run(self) -> None:
        """Have CRIU restore it. Raises RuntimeFailure."""
        options = self._options
        places = criu.Places(options)
        log = f"{places.work}/restore.log"
        try:
            asked = criu.shared(places, self._spec, options, log)
            asked |= {"rst_sibling": True, "evasive_devices": True}
            for flag in ("lsm-profile", "lsm-mount-context"):
                if options.text(flag):
                    asked[flag.replace("-", "_")] = options.text(flag)
            kind = criu_words.RESTORE
            asked |= self._prepared(places.images)
            self.pid = criu.call(kind, asked, self._notified, options, log, self._joined)
        finally:
            places.close()

    def undo(self) -> None:
        """Remove the cgroup, if it is ours: it may have been that of a container which runs."""
        if self._is_made:
            self._group.kill()
            self._group.remove()

    def _prepared(self, images: str) -> dict[str, Value]:
        """The root file system as CRIU wants it, and what it takes from us."""
        spec = self._spec
        rootfs = os.path.join(self._record["bundle"], spec["root"]["path"])
        namespaces.unshare(n.CLONE_NEWNS)
        mounts.set_propagation("/", n.MS_REC | n.MS_SLAVE)
        fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        tree = mounts.clone_tree(fd, recursive=True)
        mounts.move_mount(tree, fd)
        _make_mount_points(spec, Root(tree))
        sources = checkpointing.external_mounts(spec, tree) | self._cgroup_mounts()
        fds.close_all([fd, tree])
        taken = _streams(images)
        for path in checkpointing.network_paths(spec):
            space = os.open(path, os.O_RDONLY)  # inheritable, and gone with us
            os.set_inheritable(space, True)
            taken.append(criu_words.inherited(checkpointing.NETWORK, space))
        external = [f"mnt[{point}]:{source}" for point, source in sources.items()]
        return {"root": os.path.realpath(rootfs), "inherit_fd": taken, "external": external}

    def _cgroup_mounts(self) -> dict[str, str]:
        """The cgroup of version 2 is mounted as what it is for the container now."""
        if cgroups.mode() != "unified":
            return {}
        name = self._group.names()[""]
        found = [one for one in self._spec.get("mounts") or [] if one.get("type") in _CGROUPS]
        return {one["destination"]: name for one in found}

    def _joined(self, pid: int) -> dict[str, Value]:
        """Make the cgroup with CRIU in it; where that is, for the modes that restore others."""
        resources = self._spec["linux"].get("resources") or {}
        self._group.create(resources, first=pid)
        self._is_made = True
        self._group.join(pid)
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        return {"cg_root": [criu_words.cgroup_root(which, path) for _, which, path in lines]}

    def _notified(self, notice: str, pid: int, passed: list[int]) -> None:
        if notice == "setup-namespaces":
            self._set_up_network(pid)
            described = hooks.state(self._spec, self._record["id"], self._record["bundle"])
            hooks.beside(self._spec, described, pid)()
        elif notice == "orphan-pts-master" and passed:
            self._take_terminal(passed.pop(0))
        fds.close_all(passed)

    def _set_up_network(self, pid: int) -> None:
        """The loopback of a network namespace of its own, which came back empty."""
        spaces = self._spec["linux"].get("namespaces") or []
        if not any(one["type"] == "network" and not one.get("path") for one in spaces):
            return
        ours, theirs = (
            os.open(f"/proc/{who}/ns/net", os.O_RDONLY | os.O_CLOEXEC) for who in ("self", pid)
        )
        namespaces.setns(theirs, n.CLONE_NEWNET)
        try:
            loopback.bring_up()
        finally:
            namespaces.setns(ours, n.CLONE_NEWNET)
            fds.close_all([ours, theirs])

    def _take_terminal(self, master: int) -> None:
        listener = self._options.text("console-socket")
        if listener:
            console.hand_over(listener, master)
        else:
            self.master = master


def _make_mount_points(spec: dict[str, Any], root: Root) -> None:
    """Make the mount points that are missing, as creation does: what is bound is bound for as long
    as that takes, because the next point may lie within it."""
    bound: list[int] = []
    made: list[str] = []
    for mount in spec.get("mounts") or []:
        point = mount["destination"]
        if mount.get("type") in _CGROUPS or any(_is_below(point, one) for one in made):
            continue  # CRIU brings back what is in there
        if not is_bind(mount):
            made.append(point)
            os.close(root.make_directories(point))
            continue
        source = os.open(mount["source"], os.O_PATH | os.O_CLOEXEC)
        is_directory = os.path.isdir(f"/proc/self/fd/{source}")
        target = root.make_directories(point) if is_directory else root.make_file(point)
        bound.append(mounts.clone_tree(source, recursive=True))
        mounts.move_mount(bound[-1], target)
        fds.close_all([source, target])
    for tree in reversed(bound):
        mounts.unmount(f"/proc/self/fd/{tree}")
        os.close(tree)


def _is_below(path: str, above: str) -> bool:
    return path.startswith(above.rstrip("/") + "/")


def _streams(images: str) -> list[bytes]:
    """Pipes of the standard streams are taken from ours."""
    try:
        with open(f"{images}/{checkpointing.DESCRIPTORS}", encoding="utf-8") as file:
            streams = decode(file.read())
    except FileNotFoundError:
        return []
    kinds = ("pipe:", "socket:", checkpointing.FILE)
    return [
        criu_words.inherited(name, number)
        for number, name in enumerate(streams)
        if name.startswith(kinds)
    ]
