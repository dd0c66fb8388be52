"""A container that has no cgroup, because its owner may make none (`runtime.rootless`).

Who belongs to it is told by the pid namespace that its first process made. When that process has
ended the kernel has killed the others, so nothing is left to find; a container that shares the
machine's pid namespace has only its first process that we know of.
"""

from __future__ import annotations

import os

from sampan.kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups.hierarchy import Hierarchy


class Uncounted:
    """Does what the monitor asks of a cgroup, by the pid namespace of `state`."""

    __slots__ = ("_pid",)

    def __init__(self, state: dict[str, Any]) -> None:
        self._pid: int = state["pid"]

    def places(self) -> list[tuple[Hierarchy, str]]:
        """No hierarchy has it."""
        return []

    def open_counts(self) -> int:
        """Nothing counts; raises OSError."""
        raise FileNotFoundError(2, "the container has no cgroup")

    def pids(self) -> list[int]:
        """The processes in the namespace of the first one; none when it has ended."""
        space = _space(self._pid)
        if not space:
            return []
        if space == _space(os.getpid()):
            return [self._pid]
        names = [name for name in os.listdir("/proc") if name.isdigit()]
        return [int(name) for name in names if _space(int(name)) == space]

    def kill(self) -> None:
        """Kill them; the kernel kills the namespace with its first process."""
        for pid in self.pids():
            try:
                os.kill(pid, process.SIGKILL)
            except ProcessLookupError:
                continue

    def oom_kills(self) -> int:
        """Nobody counts them."""
        return 0

    def remove(self) -> None:
        """There is nothing to remove."""


def _space(pid: int) -> str:
    """What names the pid namespace of a process, "" when there is no such process."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""
