"""The verbs on a container that exists: start, state, kill, delete, list."""

from __future__ import annotations

import errno
import os
import pwd
import select
import time

from sampan.ids import check_container_id
from sampan.jsontext import encode
from sampan.kernel import process
from sampan.kernel.signals import parse as parse_signal
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.state import NoSuchContainer, StateDirectory, all_ids, cgroup_of, status_of
from sampan.version import OCI_RUNTIME_SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup

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
        gate = os.open(directory.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise RuntimeFailure(0, _START_REFUSED["stopped"]) from error
        raise
    hooks = (state.get("config") or {}).get("hooks") or {}
    try:
        os.write(gate, b"1")
        os.unlink(directory.fifo)
        if hooks.get("poststart"):
            _run_started_hooks(state, gate)
    finally:
        os.close(gate)


def _run_started_hooks(state: dict[str, Any], gate: int) -> None:
    """The poststart hooks, once the command was executed; the container ends when one fails.

    The other end of the gate is closed by the execve.
    """
    from sampan.runtime import hooks

    executed = select.poll()
    executed.register(gate, 0)  # POLLERR needs no asking
    executed.poll()
    spec, pid = state["config"], state["pid"]
    described = hooks.state(spec, state["id"], state["bundle"], "running", pid)
    try:
        hooks.run(spec, "poststart", described, state["bundle"])
    except OSError:
        _signal_init(state, process.SIGKILL)
        raise


_START_REFUSED = {
    "running": "cannot start an already running container",
    "paused": "cannot start an already running container",
    "stopped": "cannot start a container that has stopped",
}


def describe(root: str, container_id: str) -> dict[str, Any]:
    """The OCI state of a container (runtime.md, "State"), with runc's extra keys."""
    directory = StateDirectory(root, container_id)
    state = directory.load()
    status = status_of(directory, state)
    config = state.get("config") or {}
    owner = os.stat(directory.path).st_uid
    return {
        "ociVersion": config.get("ociVersion", OCI_RUNTIME_SPEC_VERSION),
        "id": container_id,
        "pid": 0 if status == "stopped" else state["pid"],
        "status": status,
        "bundle": state["bundle"],
        "rootfs": state.get("rootfs", ""),
        "created": timestamp(state.get("created", 0)),
        "annotations": config.get("annotations") or {},
        "owner": _owner_name(owner),
    }


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nanoseconds, trailing zeros cut, as Go prints it."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def _owner_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def kill(root: str, container_id: str, signal: str, *, everyone: bool) -> None:
    """Send `signal`, a name with or without SIG or a number, to the first process or to all.

    Raises:
        NoSuchContainer: there is none of that id.
        RuntimeFailure: the signal is unknown, or the container has stopped.
    """
    try:
        number = parse_signal(signal)
    except ValueError as error:
        raise RuntimeFailure(errno.EINVAL, str(error)) from error
    directory = StateDirectory(root, container_id)
    state = directory.load()
    # The kernel ends a pid namespace with its first process; without one of its own, the
    # processes of a container have only their cgroup in common.
    shared = bool(state.get("pid")) and "pid" not in own_namespaces(state)
    if everyone or (shared and number == process.SIGKILL):
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
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    if number == process.SIGKILL:
        _thaw(group)


def _signal_init(state: dict[str, Any], number: int) -> bool:
    """Signal the first process by its pidfd; False when it, the same one, is no more."""
    try:
        pidfd = process.pidfd_open(state["pid"])
    except ProcessLookupError:
        return False
    try:
        if not process.is_alive(state["pid"], state["start_time"]):
            return False
        process.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    if number == process.SIGKILL:
        _thaw(cgroup_of(state))
    return True


def _thaw(group: Cgroup | None) -> None:
    """A frozen process cannot even die, on version 1."""
    if group is not None and group.exists() and group.is_frozen():
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
    check_container_id(container_id)
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
    group = cgroup_of(state)
    if group is not None:
        group.kill()
        group.remove()
    directory.remove()
    config = state.get("config") or {}
    if config.get("hooks"):
        from sampan.runtime import hooks

        hooks.run_stopped(config, container_id, state["bundle"])


def _kill_and_wait(state: dict[str, Any]) -> None:
    try:
        pidfd = process.pidfd_open(state["pid"])
    except ProcessLookupError:
        return
    try:
        if not process.is_alive(state["pid"], state["start_time"]):
            return
        process.pidfd_send_signal(pidfd, process.SIGKILL)
        _thaw(cgroup_of(state))
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        if not ended.poll(_FORCED_WAIT * 1000):
            raise RuntimeFailure(errno.ETIMEDOUT, f"process {state['pid']} does not end")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def listing(root: str, form: str, *, quiet: bool) -> str:
    """The text of `list`: a table, `json`, or ids alone."""
    found = []
    for container_id in all_ids(root):
        try:
            found.append(describe(root, container_id))
        except (NoSuchContainer, FileNotFoundError):
            continue  # deleted while we looked
    if quiet:
        return "".join(f"{entry['id']}\n" for entry in found)
    if form == "json":
        return encode(found or None) + "\n"
    if form not in ("", "table"):
        raise RuntimeFailure(errno.EINVAL, "invalid format option")
    rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
    rows += [
        [str(entry[key]) for key in ("id", "pid", "status", "bundle", "created", "owner")]
        for entry in found
    ]
    return _table(rows)


def _table(rows: list[list[str]]) -> str:
    """Columns at least 12 wide, one space between: what Go's tabwriter prints for runc."""
    widths = [max(12, *(len(row[i]) + 1 for row in rows)) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("".join([*cells[:-1], row[-1]]) + "\n")
    return "".join(lines)
