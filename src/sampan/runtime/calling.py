"""What the caller of `run` and `exec` gets: a pid file, its signals passed on, the exit code, and
with `--debug` how far things have come.
"""

from __future__ import annotations

import _signal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.arguments import Parsed

_FORWARDED = "SIGHUP SIGINT SIGQUIT SIGTERM SIGUSR1 SIGUSR2 SIGCONT SIGTSTP SIGTTIN SIGTTOU".split()


def write_pid(path: str, pid: int) -> None:
    """The pid file, whole or not at all."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}")
    with open(temporary, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.rename(temporary, path)


def forward_signals(pidfd: int) -> None:
    """From here on, what we are asked by signals the process behind `pidfd` is asked."""

    def forward(number: int, frame: object) -> None:
        try:
            _signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass

    for name in _FORWARDED:
        _signal.signal(getattr(_signal, name), forward)


def wait(pidfd: int) -> int:
    """Reap the child behind `pidfd`; its exit code, 128 + signal for a killed one."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    if result is None:
        return 0
    return result.si_status + (0 if result.si_code == os.CLD_EXITED else 128)


def use_every_cpu() -> None:
    """Which CPUs a container has is its cgroup's business, not that of who calls us (as runc)."""
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    except OSError:  # those that our own cgroup leaves are none of them
        pass


def tell(options: Parsed, line: str) -> None:
    """A line of `--debug`. They begin as runc's do, which are known to those who look for them."""
    if options.on("debug"):
        from sampan.runtime.log import Log

        form = options.text("log-format")
        Log(options.text("log"), form, debug=True).debug(line)
