"""`linux.seccomp.listenerPath`: the system calls of SCMP_ACTNOTIFY are answered by an agent.

The parent connects to the agent's socket while the configuration can still be refused; the child
loads the filter and sends its listener over that connection by itself, with the state of the
container process (runtime-spec, "The Container Process State"). Nobody has to be there in between:
a container that was created waits for `start` long after its maker has ended.

What the child calls to send it may not be answered by the agent that waits for it: those calls are
refused with SCMP_ACTNOTIFY, as runc refuses `write`.
"""

from __future__ import annotations

import _socket
import errno
import os

from sampan.jsontext import encode
from sampan.kernel import fds, filters
from sampan.kernel.filters import NOTIFY
from sampan.runtime import hooks
from sampan.runtime.credentials import Seccomp
from sampan.runtime.failure import InvalidConfig, NeedsInterpreter, RuntimeFailure, reason
from sampan.runtime.operations import Operation
from sampan.version import OCI_RUNTIME_SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.blank import Blank
    from sampan.runtime.stage import Stage

_NAME = "seccompFd"  # of the descriptor, in the state
_NEEDED = frozenset(("write", "sendmsg"))
_PID_MARK = '"pid":-1'


def has_notify(profile: object) -> bool:
    """Whether some system call is answered by an agent."""
    if not isinstance(profile, dict):
        return False
    rules = profile.get("syscalls") or []
    return any(isinstance(rule, dict) and rule.get("action") == NOTIFY for rule in rules)


def check(profile: dict[str, Any]) -> None:
    """The rules of `linux.seccomp` with SCMP_ACTNOTIFY. Raises InvalidConfig."""
    field = "linux.seccomp"
    path = profile.get("listenerPath")
    if not isinstance(path, str) or not path.startswith("/"):
        problem = f"is missing or not absolute, and {NOTIFY} needs it"
        raise InvalidConfig(f"{field}.listenerPath: {problem}")
    metadata = profile.get("listenerMetadata") or ""
    if not isinstance(metadata, str):
        raise InvalidConfig(f"{field}.listenerMetadata: must be a string")
    for index, rule in enumerate(profile.get("syscalls") or []):
        if rule.get("action") == NOTIFY and (taken := _NEEDED.intersection(rule["names"])):
            problem = f"{NOTIFY} cannot be used for the {min(taken)} syscall"
            raise InvalidConfig(f"{field}.syscalls[{index}]: {problem}")


def attach(
    blank: Blank, spec: dict[str, Any], state: dict[str, Any], sources: list[int]
) -> tuple[int, str]:
    """Connect to the agent for a new container: the last of `sources`; for `Facts.listener`.

    Raises NeedsInterpreter where the child is the machine, RuntimeFailure where no agent is.
    """
    if blank.ready is not None:
        raise NeedsInterpreter("a seccomp listener")
    sources.append(connect(spec["linux"]["seccomp"]))
    return len(sources) - 1, state_of(spec, state)


def connect(profile: dict[str, Any]) -> int:
    """A connection to the agent, a descriptor. Raises RuntimeFailure."""
    path = profile["listenerPath"]
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        where = f"linux.seccomp.listenerPath: failed to connect with seccomp agent {path}"
        raise RuntimeFailure(error.errno or 0, reason(error), where) from error
    return sock.detach()


def state_of(spec: dict[str, Any], state: dict[str, Any]) -> str:
    """What the agent is told beside the descriptor; the pids come in when they are known.

    `state` is the container's own, of a container that is being made or that runs.
    """
    profile = spec["linux"]["seccomp"]
    status, pid = ("running", state["pid"]) if state.get("config") else ("creating", -1)
    told: dict[str, Any] = {
        "ociVersion": OCI_RUNTIME_SPEC_VERSION,
        "fds": [_NAME],
        "pid": -1,
        "metadata": profile.get("listenerMetadata") or "",
        "state": hooks.state(spec, state["id"], state["bundle"], status, pid),
    }
    return encode(told)


def put(before: list[Operation], after: list[Operation], connection: int, state: str) -> None:
    """Let an agent be told of the filter that `after` loads."""
    for index, one in enumerate(after):
        if type(one) is Seccomp:
            after[index] = ListenedSeccomp(connection, state)
    before.insert(0, LearnPid())


class LearnPid(Operation):
    """Learn our pid as the host has it, while /proc is the host's."""

    __slots__ = ()

    def execute(self, stage: Stage) -> None:
        stage.own_pid = int(os.readlink("/proc/self"))

    def describe(self) -> str:
        return "learn the pid that the agent is told"


class ListenedSeccomp(Seccomp):
    """Load the filter, and send its listener to the agent.

    `connection` is an index of the sources that the parent sent, or a descriptor where it is
    negative: -1 - descriptor.
    """

    __slots__ = ("connection", "state")

    def __init__(self, connection: int, state: str) -> None:
        self.connection, self.state = connection, state

    def execute(self, stage: Stage) -> None:
        at = self.connection
        connection = stage.sources[at] if at >= 0 else -1 - at
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, connection)
        text = self.state.replace(_PID_MARK, f'"pid":{stage.own_pid}').encode()
        assert stage.seccomp is not None
        listener = filters.load(*stage.seccomp)
        try:
            fds.send(sock, text, [listener])
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            said = "the agent has closed the connection"
            raise OSError(errno.EPIPE, said) from error
        os.close(listener)
        sock.close()

    def describe(self) -> str:
        return "load the seccomp filter and send its listener to the agent"
