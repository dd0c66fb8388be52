"""Who a process is: which one a pid means, as the number may belong to another one by now; and
whether this one has rights over the machine.

Apart from `process`, because it imports next to nothing: the small verbs of `sampan-oci` ask
nothing else.
"""

from __future__ import annotations

import posix


def is_unprivileged() -> bool:
    """Whether we are no root, or the root of a user namespace only."""
    if posix.geteuid() != 0:
        return True
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() != [b"0", b"0", b"4294967295"]


def start_time(pid: int) -> int:
    """When `pid` started, in clock ticks since boot: with the pid, the identity of a process.

    Raises FileNotFoundError or ProcessLookupError when there is no such process.
    """
    return int(_fields(pid)[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process `pid` that started at `started` ticks still runs and is no zombie."""
    try:
        fields = _fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def _fields(pid: int) -> list[bytes]:
    """What follows the name in /proc/PID/stat (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()
