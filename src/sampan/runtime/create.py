"""Parent side of a new container: cgroup, clone3, the messages of the child, what is undone.

`create` returns when the child stands at the start gate (or, without a gate, when it has executed
the program); `Created.start` opens the gate. Everything made on the way is released in reverse
order when a step fails, so a failed create leaves nothing.
"""

from __future__ import annotations

import _socket
import os
import time

from sampan.kernel import cgroups, fds, namespaces, process, seccomp
from sampan.kernel.paths import Root
from sampan.runtime import init, rootfs, users, validate
from sampan.runtime.failure import InvalidConfig, RuntimeFailure, reason
from sampan.runtime.plan import Facts, Plan, build
from sampan.runtime.stage import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup


class Created:
    """A container whose first process exists.

    `pid` and `pidfd` are of that process, `master` is its terminal or -1, `state` is what
    state.json holds. The owner closes `pidfd` and `master`, reaps the process, and removes the
    cgroup afterwards.
    """

    __slots__ = ("_gate", "_sync", "cgroup", "master", "pid", "pidfd", "state")

    def __init__(self, pid: int, pidfd: int, cgroup: Cgroup | None, sync: _socket.socket) -> None:
        self.pid, self.pidfd, self.cgroup = pid, pidfd, cgroup
        self.master = -1
        self.state: dict[str, Any] = {}
        self._sync = sync
        self._gate = -1

    def start(self) -> None:
        """Open the gate and wait until execve has succeeded.

        Raises:
            RuntimeFailure: an operation or the execve failed; the process has ended.
        """
        if self._gate >= 0:
            try:
                os.write(self._gate, b"1")
            except BrokenPipeError:
                pass  # it has failed already; the report says why
            os.close(self._gate)
            self._gate = -1
        self.finish()

    def finish(self) -> None:
        """Wait for the end of the child's messages: success, or the failure it reports."""
        try:
            message, _ = fds.receive(self._sync, init.MAX_MESSAGE)
        finally:
            self._sync.close()
        if message:
            raise init.read_report(message)

    def release(self) -> None:
        """Close what belongs to this object alone; the container goes on."""
        self._sync.close()
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def abort(self) -> None:
        """Kill the process, reap it, and remove its cgroup; also closes the descriptors."""
        self.release()
        reap(self.pidfd)
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        if self.cgroup is not None:
            self.cgroup.kill()
            self.cgroup.remove()


def create(
    container_id: str,
    spec: dict[str, Any],
    *,
    stdio: tuple[int, int, int],
    root: int | None = None,
    attach_at: str,
    filter_program: tuple[bytes, int] | None = None,
    gate: int | None = None,
    use_gate: bool = True,
    die_with_parent: bool = False,
    bundle: str = "/",
) -> Created:
    """Make the container of `spec` up to its start gate.

    Args:
        container_id: also the default name of its cgroup. spec: config.json as parsed;
        `process.user.username` may be Docker's user string. stdio: descriptors that become 0, 1 and
        2 where the process has no terminal. root: a detached mount of the root file system; else
        `root.path` (from `bundle`) is bound. attach_at: an existing directory of the host, where
        the root is attached in the container's own
            mount namespace.
        filter_program: the compiled seccomp filter and its flags; else `linux.seccomp` is compiled.
        gate: the descriptor of a FIFO to wait on in place of a pipe of our own.
        use_gate: False executes the program at once; then a return means that execve succeeded.
        die_with_parent: the first process gets SIGKILL when the caller's process dies.

    Raises:
        InvalidConfig: `spec` is refused, and nothing was made.
        RuntimeFailure: something failed, and everything was undone.
    """
    validate.check(spec)
    builder = _Builder(container_id, spec, bundle)
    try:
        builder.prepare(root, attach_at, filter_program, die_with_parent=die_with_parent)
        created = builder.clone(stdio, gate, use_gate=use_gate)
        try:
            _await_ready(created)
            if not use_gate:
                created.finish()
        except BaseException:
            created.abort()
            raise
        created.state = _describe(container_id, spec, created, builder, bundle)
        return created
    except OSError as error:
        if isinstance(error, RuntimeFailure):
            raise
        raise RuntimeFailure(error.errno or 0, reason(error), "create the container") from error
    finally:
        builder.close()


class _Builder:
    """What the parent holds while it makes a container."""

    def __init__(self, container_id: str, spec: dict[str, Any], bundle: str) -> None:
        self.spec, self.bundle = spec, bundle
        self.linux: dict[str, Any] = spec.get("linux") or {}
        self.cgroup_path = self.linux.get("cgroupsPath") or f"/sampan/{container_id}"
        self.cgroup: Cgroup | None = None
        self.plan = Plan()
        self.root = -1
        self.filter: tuple[bytes, int] | None = None
        self._owned: list[int] = []
        self._cgroup_fds: list[int] = []
        self._namespace_fds: dict[str, int] = {}

    def prepare(
        self,
        root: int | None,
        attach_at: str,
        filter_program: tuple[bytes, int] | None,
        *,
        die_with_parent: bool,
    ) -> None:
        """Everything that needs no child: descriptors, identity, filter, plan, cgroup."""
        if root is None:
            path = self.spec["root"]["path"]
            self.root = rootfs.bind(path if path.startswith("/") else f"{self.bundle}/{path}")
            self._owned.append(self.root)
        else:
            self.root = root
        resolve_user(Root(self.root), self.spec["process"])
        self._compile(filter_program)
        self.cgroup = cgroups.manager(self.cgroup_path)
        facts = facts_of(self.cgroup, attach_at)
        facts.die_with_parent = die_with_parent
        self.plan = build(self.spec, facts)
        self._open_namespaces()
        self.cgroup.create(self.linux.get("resources") or {})
        self._cgroup_fds = [fd for _, fd in self.cgroup.procs_fds()]
        self._owned += self._cgroup_fds

    def _compile(self, given: tuple[bytes, int] | None) -> None:
        if given is None and self.linux.get("seccomp"):
            compiled = seccomp.compile(self.linux["seccomp"])
            given = (compiled.program, compiled.flags)
        self.filter = given
        if given is not None:
            self.spec.setdefault("linux", self.linux).setdefault("seccomp", True)

    def _open_namespaces(self) -> None:
        for kind, path in self.plan.join:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._owned.append(fd)
            self._namespace_fds[kind] = fd

    def clone(self, stdio: tuple[int, int, int], gate: int | None, *, use_gate: bool) -> Created:
        """clone3; the child never returns from here."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        read_end = write_end = -1
        if use_gate and gate is None:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        stage = Stage(rootfs=self.root, stdio=stdio)
        stage.cgroup_fds = self._cgroup_fds
        stage.namespace_fds = self._namespace_fds
        stage.seccomp = self.filter
        child_gate = (read_end if gate is None else gate) if use_gate else init.NO_GATE
        pid, pidfd = self._clone_into_pid_namespace()
        if pid == 0:
            ours.close()
            if write_end >= 0:
                os.close(write_end)
            plan = self.plan
            init.become_container(plan.before_gate, plan.after_gate, stage, theirs, child_gate)
        theirs.close()
        if read_end >= 0:
            os.close(read_end)
        created = Created(pid, pidfd, self.cgroup, ours)
        created._gate = write_end  # noqa: SLF001 - the builder is the other half of Created
        self.cgroup = None
        return created

    def _clone_into_pid_namespace(self) -> tuple[int, int]:
        """clone3, as a child of the pid namespace that the configuration names, if it names one."""
        fd = self._namespace_fds.get("pid")
        if fd is None:
            return process.clone3(self.plan.flags)
        return namespaces.clone_in_pid_namespace(fd, self.plan.flags)

    def close(self) -> None:
        """Close the descriptors; remove the cgroup unless a child has taken it over."""
        fds.close_all(self._owned)
        if self.cgroup is not None:
            self.cgroup.remove_empty()


def facts_of(cgroup: Cgroup, attach_at: str) -> Facts:
    """The facts of this machine that a plan needs."""
    facts = Facts(attach_at, cgroup.path)
    shared: dict[str, list[str]] = {}
    for controller, directory in cgroup.names().items():
        shared.setdefault(directory, []).append(controller.removeprefix("name="))
    for directory, controllers in shared.items():
        if controllers == [""]:
            facts.unified = directory
            continue
        name = ",".join(controllers)
        facts.hierarchies.append((name, directory))
        if len(controllers) > 1:
            facts.cgroup_links += [(controller, name) for controller in controllers]
    facts.hierarchies.sort()
    return facts


def resolve_user(root: Root, process_spec: dict[str, Any]) -> None:
    """Replace `user.username` by the numbers it means in `root`; find HOME where it is not given.

    `username` is Docker's `user[:group]` and `groups` its additional groups; both are the engine's
    way of leaving the look-up to the side that holds the root. Raises InvalidConfig for unknown
    names.
    """
    user = process_spec.setdefault("user", {})
    named = user.pop("username", None)
    extra = user.pop("groups", [])
    if named is None:
        return
    identity = users.resolve(root, named, extra)
    user["uid"], user["gid"] = identity.uid, identity.gid
    user["additionalGids"] = list(
        dict.fromkeys([*identity.groups, *(user.get("additionalGids") or [])])
    )
    user["home"] = identity.home


def _await_ready(created: Created) -> None:
    message, received = fds.receive(created._sync, init.MAX_MESSAGE)  # noqa: SLF001
    if message == init.READY:
        created.master = received[0] if received else -1
        return
    if message:
        raise init.read_report(message)
    raise RuntimeFailure(0, "the process ended before it was ready", "create the container")


def reap(pidfd: int) -> None:
    """Kill the child behind `pidfd`, wait for its end, close the descriptor."""
    try:
        process.pidfd_send_signal(pidfd, process.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        process.wait_pidfd(pidfd)
    except ChildProcessError:
        pass
    os.close(pidfd)


def _describe(
    container_id: str,
    spec: dict[str, Any],
    created: Created,
    builder: _Builder,
    bundle: str,
) -> dict[str, Any]:
    """What exec, state and delete need later."""
    kinds = [space["type"] for space in builder.linux.get("namespaces") or []]
    try:
        started = process.start_time(created.pid)
    except (FileNotFoundError, ProcessLookupError):
        started = 0
    return {
        "v": 1,
        "id": container_id,
        "pid": created.pid,
        "start_time": started,
        "bundle": bundle,
        "created": time.time_ns(),
        "cgroup": builder.cgroup_path,
        "namespaces": kinds,
    }


def check_config(spec: dict[str, Any]) -> None:
    """Raises InvalidConfig where `create` would, and makes nothing."""
    validate.check(spec)


__all__ = ["Created", "InvalidConfig", "RuntimeFailure", "check_config", "create", "resolve_user"]
