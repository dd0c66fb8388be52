"""The verbs on a container that exists: start, kill, delete. (`state` and `list`: description.)

Callers start one for each step in a container's life, so a verb imports what its path needs, and
`posix` in place of `os`.
"""

from __future__ import annotations

import _signal
import errno
import posix

from sampan.kernel.identity import is_alive
from sampan.runtime import recorded
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.state import (
    NoSuchContainer,
    StateDirectory,
    cgroup_of,
    is_frozen,
    remove_mounts,
    status_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGKILL = int(_signal.SIGKILL)
_FORCED_WAIT = 10.0  # seconds that `delete --force` gives a killed process to end


def start(root: str, container_id: str) -> None:
    """Open the gate of a created container.

    Raises:
        NoSuchContainer: there is none of that id.
        RuntimeFailure: it is not in the state created.
    """
    directory = StateDirectory(root, container_id)
    state = directory.load()
    status = status_of(directory, state)
    if status != "created":
        raise RuntimeFailure(0, _START_REFUSED.get(status, f"cannot start: {status}"))
    try:
        gate = posix.open(directory.fifo, posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise RuntimeFailure(0, _START_REFUSED["stopped"]) from error
        raise
    hooks = (state.get("config") or {}).get("hooks") or {}
    try:
        posix.write(gate, b"1")
        posix.unlink(directory.fifo)
        if hooks.get("poststart"):
            _run_started_hooks(state, gate)
    finally:
        posix.close(gate)


def _run_started_hooks(state: dict[str, Any], gate: int) -> None:
    """The poststart hooks, once the command was executed; the container ends when one fails.

    The other end of the gate is closed by the execve.
    """
    import select

    from sampan.runtime import hooks

    executed = select.poll()
    executed.register(gate, 0)  # POLLERR needs no asking
    executed.poll()
    spec, pid = state["config"], state["pid"]
    described = hooks.state(spec, state["id"], state["bundle"], "running", pid)
    try:
        hooks.run(spec, "poststart", described, state["bundle"])
    except OSError:
        _signal_init(state, _SIGKILL)
        raise


_START_REFUSED = {
    "running": "cannot start an already running container",
    "paused": "cannot start an already running container",
    "stopped": "cannot start a container that has stopped",
}


def kill(root: str, container_id: str, signal: str, *, everyone: bool) -> None:
    """Send `signal`, a name with or without SIG or a number, to the first process or to all.

    Raises:
        NoSuchContainer: there is none of that id.
        RuntimeFailure: the signal is unknown, or the container has stopped.
    """
    from sampan.kernel.signal_names import parse

    try:
        number = parse(signal) if signal != "0" else 0  # which asks whether there is a process
    except ValueError as error:
        raise RuntimeFailure(errno.EINVAL, str(error)) from error
    directory = StateDirectory(root, container_id)
    state = directory.load()
    # The kernel ends a pid namespace with its first process; without one of its own, the
    # processes of a container have only their cgroup in common.
    shared = bool(state.get("pid")) and "pid" not in own_namespaces(state)
    if everyone or (shared and number == _SIGKILL):
        _signal_all(state, number)
        return
    if status_of(directory, state) == "stopped" or not _signal_init(state, number):
        raise RuntimeFailure(0, "container not running")


def _signal_all(state: dict[str, Any], number: int) -> None:
    group = cgroup_of(state)
    if group is None:
        return
    for pid in group.pids():
        try:
            posix.kill(pid, number)
        except ProcessLookupError:
            pass
    if number == _SIGKILL and group.exists() and group.is_frozen():
        group.thaw()


def _signal_init(state: dict[str, Any], number: int) -> bool:
    """Signal the first process by its pidfd; False when it, the same one, is no more."""
    try:
        pidfd = posix.pidfd_open(state["pid"])
    except ProcessLookupError:
        return False
    try:
        if not is_alive(state["pid"], state["start_time"]):
            return False
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        posix.close(pidfd)
    if number == _SIGKILL:
        _thaw(state)
    return True


def _thaw(state: dict[str, Any]) -> None:
    """A frozen process cannot even die, on version 1."""
    if is_frozen(state):
        group = cgroup_of(state)
        assert group is not None
        group.thaw()


def own_namespaces(state: dict[str, Any]) -> set[str]:
    """The kinds of namespaces that were made for the container alone."""
    linux = (state.get("config") or {}).get("linux") or {}
    spaces = linux.get("namespaces") or []
    return {space.get("type") for space in spaces if not space.get("path")}


def delete(root: str, container_id: str, *, force: bool) -> None:
    """Remove what a container holds. `force` kills a running one, and a missing one is fine then.

    Raises:
        NoSuchContainer: there is none of that id.
        RuntimeFailure: it has not stopped.
    """
    directory = StateDirectory(root, container_id)
    try:
        state = directory.load()
    except NoSuchContainer:
        if force:
            return
        raise
    status = status_of(directory, state)
    if status == "created" or (force and status != "stopped"):
        _kill_and_wait(state)
    elif status != "stopped":
        raise RuntimeFailure(
            0, f"cannot delete container {container_id} that is not stopped: {status}"
        )
    _remove_cgroup(state)
    remove_mounts(state)
    directory.remove()
    config = state.get("config") or {}
    if config.get("hooks"):
        from sampan.runtime import hooks

        hooks.run_stopped(config, container_id, state["bundle"])


def _remove_cgroup(state: dict[str, Any]) -> None:
    """The cgroup with whatever still is in it. An empty one goes at once."""
    is_plain = recorded.is_known(state) and not state.get("scope")  # a unit is ended by systemd
    if is_plain and recorded.remove(state):
        return
    group = cgroup_of(state)
    if group is not None:
        group.kill()
        group.remove()


def _kill_and_wait(state: dict[str, Any]) -> None:
    try:
        pidfd = posix.pidfd_open(state["pid"])
    except ProcessLookupError:
        return
    try:
        if not is_alive(state["pid"], state["start_time"]):
            return
        _signal.pidfd_send_signal(pidfd, _SIGKILL)
        _thaw(state)
        import select

        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        if not ended.poll(_FORCED_WAIT * 1000):
            raise RuntimeFailure(errno.ETIMEDOUT, f"process {state['pid']} does not end")
    except ProcessLookupError:
        pass
    finally:
        posix.close(pidfd)
