"""`sampan-oci pause`, `resume` and `ps`: the processes of a container as a whole.

All three go by the cgroup: it is what holds every process, also those that left init behind.
"""

from __future__ import annotations

import errno
import os

from sampan.jsontext import encode
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.state import StateDirectory, cgroup_of, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.cgroups import Cgroup

_PS = "ps"
_PS_ARGUMENTS = ("-ef",)


def pause(root: str, container_id: str) -> None:
    """Stop every process until `resume`.

    Raises:
        NoSuchContainer: there is none of that id.
        RuntimeFailure: it is neither created nor running, or its processes do not stop.
    """
    status, group = _find(root, container_id)
    if status not in ("created", "running"):
        raise RuntimeFailure(0, "container not running")
    try:
        group.freeze()
    except BaseException:
        group.thaw()  # half frozen is neither: a caller that was told "no" must find it running
        raise


def resume(root: str, container_id: str) -> None:
    """Let every process go on.

    Raises:
        NoSuchContainer: there is none of that id.
        RuntimeFailure: it is not paused.
    """
    status, group = _find(root, container_id)
    if status != "paused":
        raise RuntimeFailure(0, "container not paused")
    group.thaw()


def _find(root: str, container_id: str) -> tuple[str, Cgroup]:
    directory = StateDirectory(root, container_id)
    state = directory.load()
    status = status_of(directory, state)
    group = cgroup_of(state)
    if group is None:
        raise RuntimeFailure(0, f"container {container_id} has no cgroup ({status})")
    return status, group


def processes(root: str, container_id: str, form: str, arguments: list[str]) -> str:
    """The text of `ps`: the pids as JSON, or the lines of ps(1) that are the container's.

    Raises:
        NoSuchContainer: there is none of that id.
        RuntimeFailure: the format is unknown, or ps(1) cannot be run or has no column PID.
    """
    _, group = _find(root, container_id)
    pids = group.pids()
    if form == "json":
        return encode(pids) + "\n"
    if form not in ("", "table"):
        raise RuntimeFailure(errno.EINVAL, "invalid format option")
    title, *lines = _ps_lines(arguments or list(_PS_ARGUMENTS))
    columns = title.split()
    if "PID" not in columns:
        raise RuntimeFailure(0, "couldn't find PID field in ps output")
    column = columns.index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [line for line in lines if line and line.split()[column] in wanted]
    return "\n".join([title, *kept]) + "\n"


def _ps_lines(arguments: list[str]) -> list[str]:
    """What ps(1) of the host prints."""
    output, writing = os.pipe2(os.O_CLOEXEC)
    try:
        streams = [(os.POSIX_SPAWN_DUP2, writing, target) for target in (1, 2)]
        try:
            pid = os.posix_spawnp(_PS, [_PS, *arguments], os.environ, file_actions=streams)
        except FileNotFoundError as error:
            message = f'exec: "{_PS}": executable file not found in $PATH'
            raise RuntimeFailure(error.errno or 0, message) from error
        finally:
            os.close(writing)
        with open(output, encoding="utf-8", errors="replace", closefd=False) as stream:
            text = stream.read()
    finally:
        os.close(output)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise RuntimeFailure(0, f"exit status {code}: {text.strip()}")
    return text.split("\n")
