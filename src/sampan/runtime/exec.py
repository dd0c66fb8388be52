"""A further process in a running container.

The new process is a child of the caller, born directly in the container's pid namespace, so one
clone3 is enough. It joins the cgroup, enters every other namespace by the pidfd of the first
process in one setns(2), and then runs the same operations as that one did (`plan.become`).
"""

from __future__ import annotations

import _socket
import os

from sampan.kernel import cgroups, fds, namespaces, process
from sampan.kernel import numbers as n
from sampan.kernel.filters import FLAG_NEW_LISTENER
from sampan.kernel.identity import is_unprivileged
from sampan.kernel.paths import Root
from sampan.runtime import init, plan, users, validate
from sampan.runtime.blank import reap
from sampan.runtime.credentials import OomScore, Session
from sampan.runtime.devices import open_terminal
from sampan.runtime.failure import RuntimeFailure, reason
from sampan.runtime.operations import JoinCgroup, Operation
from sampan.runtime.stage import Stage
from sampan.runtime.stock import Stock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Execed:
    """A process that runs. The owner reaps it by `pidfd` and closes that and `master` (or -1)."""

    __slots__ = ("master", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, master: int) -> None:
        self.pid, self.pidfd, self.master = pid, pidfd, master


class JoinAll(Operation):
    """Enter the namespaces of the first process; the root becomes the container's: with the mount
    namespace, or by the descriptor `root` where that is the caller's."""

    __slots__ = ("flags", "own_users", "pidfd", "root")

    def __init__(self, pidfd: int, flags: int, *, own_users: bool, root: int) -> None:
        self.pidfd, self.flags, self.own_users, self.root = pidfd, flags, own_users, root

    def execute(self, stage: Stage) -> None:
        if self.flags:  # else it was born there
            namespaces.setns(self.pidfd, self.flags)
        if self.root >= 0:
            os.fchdir(self.root)
            os.chroot(".")
            os.chdir("/")
        if self.own_users:
            from sampan.runtime import mappings  # `spawn` has it loaded

            mappings.become_root()
        stage.rootfs = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stage.root = Root(stage.rootfs)

    def describe(self) -> str:
        return "join the namespaces of the container"


class ExecTerminal(Operation):
    """A terminal of the container's devpts for this process alone."""

    __slots__ = ("relayed", "size")

    def __init__(self, size: tuple[int, int] | None, *, relayed: bool) -> None:
        self.size, self.relayed = size, relayed

    def execute(self, stage: Stage) -> None:
        stage.master, peer = open_terminal(stage, self.size, relayed=self.relayed)
        stage.stdio = (peer, peer, peer)

    def describe(self) -> str:
        return "open a terminal"


def spawn(
    state: dict[str, Any],
    process_spec: dict[str, Any],
    *,
    pidfd: int,
    stdio: tuple[int, int, int],
    filter_program: tuple[bytes, int] | None = None,
    sub_cgroups: dict[str, str] | None = None,
    ignore_paused: bool = False,
) -> Execed:
    """Execute `process_spec` in the container of `state`; returns when execve has succeeded.

    Args:
        state: what `create` described.
        process_spec: an OCI process; its capabilities and limits are used as they stand.
        pidfd: of the container's first process, which a caller opened and checked.
        stdio: descriptors for 0, 1 and 2 where the process has no terminal.
        filter_program: the container's seccomp filter, if it has one.
        sub_cgroups: controller to an existing cgroup below the container's, for `exec --cgroup`.
        ignore_paused: wait in a paused container until it is resumed, which nothing interrupts.

    Raises:
        InvalidConfig: the process is refused.
        RuntimeFailure: it could not be executed, with runc's words for a missing command.
    """
    validate.check_process(process_spec)
    try:
        cgroup_fds, born_in = _cgroup_fds(state, sub_cgroups, frozen=ignore_paused)
        try:
            return _spawn(state, process_spec, pidfd, stdio, filter_program, cgroup_fds, born_in)
        finally:
            if born_in >= 0:
                os.close(born_in)
    except OSError as error:
        if isinstance(error, RuntimeFailure):
            raise
        raise RuntimeFailure(error.errno or 0, reason(error), "exec in the container") from error


def _spawn(
    state: dict[str, Any],
    process_spec: dict[str, Any],
    pidfd: int,
    stdio: tuple[int, int, int],
    filter_program: tuple[bytes, int] | None,
    cgroup_fds: list[int],
    born_in: int,
) -> Execed:
    if "user" in state["namespaces"]:
        from sampan.runtime import mappings  # noqa: F401  for the child, which imports nothing
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    agent = root = -1
    try:
        resolve_inside(state, process_spec)
        if "mount" not in state["namespaces"]:
            root = _root_of(state, pidfd)
        filtered = filter_program is not None
        before, after = operations(state, process_spec, pidfd, filtered=filtered, root=root)
        if filter_program and filter_program[1] & FLAG_NEW_LISTENER:
            agent = _listen(state, before, after)
        stage = Stage(rootfs=-1, stdio=stdio, sync=theirs, stock=Stock([]))
        stage.take_cgroup_fds(cgroup_fds)
        stage.seccomp = filter_program
        pid, child = _clone(state, pidfd, born_in)
        if pid == 0:
            ours.close()
            init.enter(before, after, stage, theirs)
    finally:
        theirs.close()
        fds.close_all([*cgroup_fds, *(fd for fd in (agent, root) if fd >= 0)])
    return _await(pid, child, ours)


def _cgroup_fds(
    state: dict[str, Any], sub_cgroups: dict[str, str] | None, *, frozen: bool
) -> tuple[list[int], int]:
    """What the new process writes to in order to join, and the cgroup that it is born in or -1."""
    if not state["cgroup"]:  # an ordinary user's container may have none
        return [], -1
    group = cgroups.recorded(state)
    doors = [fd for _, fd in group.procs_fds(sub_cgroups, init=state["pid"], frozen=frozen)]
    return doors, group.birthplace(make=False)


def operations(
    state: dict[str, Any],
    process_spec: dict[str, Any],
    pidfd: int,
    *,
    filtered: bool,
    root: int = -1,
) -> tuple[list[Operation], list[Operation]]:
    """What the new process executes before and after it reports that it is ready."""
    own_users = "user" in state["namespaces"]
    flags = 0 if own_users and os.geteuid() else _flags_of(state)
    before: list[Operation] = []
    linux = (state.get("config") or {}).get("linux") or {}
    early, late = plan.rare_operations(process_spec, linux, is_exec=True)
    before += early
    if process_spec.get("oomScoreAdj") is not None:
        before.append(OomScore(process_spec["oomScoreAdj"]))
    before += [
        JoinCgroup(state["cgroup"], unshare=False),
        JoinAll(pidfd, flags, own_users=own_users, root=root),
    ]
    terminal = bool(process_spec.get("terminal"))
    if terminal:
        relayed = bool(process_spec.get("relayed"))
        before.append(ExecTerminal(plan.console_size(process_spec), relayed=relayed))
    before.append(Session(terminal=terminal))
    before += late
    before += plan.locate(process_spec, create_directory=False)
    after = plan.become(process_spec, {"seccomp": filtered}, die_with_parent=False)
    return before, after


def _listen(state: dict[str, Any], before: list[Operation], after: list[Operation]) -> int:
    """The connection to the agent that answers for the container's filter."""
    from sampan.runtime import listener

    config = state["config"]
    connection = listener.connect(config["linux"]["seccomp"])
    listener.put(before, after, -1 - connection, listener.state_of(config, state))
    return connection


def _flags_of(state: dict[str, Any]) -> int:
    """The namespaces that a process can join itself; the pid namespace is for children."""
    flags = 0
    for kind in state["namespaces"]:
        if kind != "pid":
            flags |= namespaces.KINDS[kind][0]
    return flags


def _clone(state: dict[str, Any], pidfd: int, born_in: int) -> tuple[int, int]:
    """The child, in the container's pid namespace and in the cgroup behind `born_in`."""
    if "user" in state["namespaces"] and os.geteuid():
        from sampan.runtime import birth

        own_pids = n.CLONE_NEWPID if "pid" in state["namespaces"] else 0
        return birth.clone_beside(pidfd, _flags_of(state) | own_pids, born_in)
    if "pid" not in state["namespaces"]:
        return process.clone3(0, born_in)
    if is_unprivileged():  # our own pid namespace is not ours to come back to
        from sampan.runtime import birth

        return birth.clone_beside(pidfd, n.CLONE_NEWPID, born_in)
    return namespaces.clone_in_pid_namespace(pidfd, 0, born_in)


def resolve_inside(state: dict[str, Any], process_spec: dict[str, Any]) -> None:
    """Look the user up in the container's files, through the first process's root."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    root = os.open(f"/proc/{state['pid']}/root", flags)
    try:
        users.resolve_user(Root(root), process_spec)
    finally:
        os.close(root)


def _root_of(state: dict[str, Any], pidfd: int) -> int:
    """A descriptor of the first process's root. Raises ProcessLookupError when that has ended."""
    root = os.open(f"/proc/{state['pid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        process.pidfd_send_signal(pidfd, 0)  # or the number may be another's by now
    except ProcessLookupError:
        os.close(root)
        raise
    return root


def _await(pid: int, pidfd: int, sync: _socket.socket) -> Execed:
    """Wait for ready, then for the end of the messages, which is execve."""
    master = -1
    try:
        while True:
            message, received = fds.receive(sync, init.MAX_MESSAGE)
            if message == init.READY:
                master = received[0] if received else -1
            elif message:
                raise init.read_report(message)
            else:
                return Execed(pid, pidfd, master)
    except BaseException:
        reap(pidfd)
        if master >= 0:
            os.close(master)
        raise
    finally:
        sync.close()
