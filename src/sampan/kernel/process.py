"""Processes: clone3 with a pidfd, prctl, signals by pidfd, waiting, closing descriptors.

`clone3` is the raw call: the child returns from it with a copy of this interpreter, as after fork,
but without the interpreter's own after-fork hooks. That is sound in a single-threaded process only,
and it is what lets one call make the process, its namespaces and its pidfd.
"""

from __future__ import annotations

import _signal
import os

from sampan.kernel import numbers as n
from sampan.kernel.libc import (
    address,
    buffer,
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_ulong,
    c_void_p,
    check,
    prototype,
    syscall,
)

SIGCHLD = int(_signal.SIGCHLD)
SIGKILL = int(_signal.SIGKILL)

_clone3 = syscall(n.SYS_clone3, c_void_p, c_size_t)
_close_range = syscall(n.SYS_close_range, c_uint, c_uint, c_uint)
_pidfd_open = syscall(n.SYS_pidfd_open, c_int, c_uint)
_sigaction = syscall(n.SYS_rt_sigaction, c_int, c_void_p, c_void_p, c_size_t)
_prctl = prototype("prctl", c_int, c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_setfsuid = prototype("setfsuid", c_int, c_uint)
_setfsgid = prototype("setfsgid", c_int, c_uint)
_prctl_name = prototype("prctl", c_int, c_int, c_char_p)


# The C library keeps these two to itself; only the raw call can give them back.
_LIBRARY_SIGNALS = (32, 33)
_DEFAULT_ACTION = bytes(32)  # struct sigaction of the kernel: SIG_DFL, no flags, an empty mask


def clone3(flags: int, cgroup: int = -1) -> tuple[int, int]:
    """Fork into the new namespaces of `flags`: (pid, pidfd) in the parent, (0, -1) in the child.

    `cgroup` is a descriptor of the version 2 cgroup to be born in, where that is not our own.
    """
    pidfd = buffer(bytes(4))
    signal = 0 if flags & n.CLONE_PARENT else SIGCHLD  # a sibling has its parent's
    # struct clone_args of linux/sched.h, its first version: flags, pidfd, child_tid, parent_tid,
    # exit_signal, stack, stack_size, tls; and its third: set_tid, set_tid_size, cgroup
    words = [flags | n.CLONE_PIDFD, address(pidfd), 0, 0, signal, 0, 0, 0]
    if cgroup >= 0:
        words[0] |= n.CLONE_INTO_CGROUP
        words += [0, 0, cgroup]
    arguments = b"".join(word.to_bytes(8, "little") for word in words)
    pid = check(_clone3(arguments, len(arguments)), "clone3")
    return (pid, int.from_bytes(pidfd.raw, "little")) if pid else (0, -1)


def pidfd_open(pid: int) -> int:
    """A close-on-exec descriptor for the process `pid`."""
    return check(_pidfd_open(pid, 0), "pidfd_open", str(pid))


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send `signal` to the process behind `pidfd`."""
    _signal.pidfd_send_signal(pidfd, signal)


def wait_pidfd(pidfd: int, *, block: bool = True) -> tuple[int, int] | None:
    """Reap the child behind `pidfd`: (exit code, signal or 0); None when it still runs.

    A killed child has exit code 128 + signal, the shell's convention.
    """
    options = os.WEXITED if block else os.WEXITED | os.WNOHANG
    result = os.waitid(os.P_PIDFD, pidfd, options)
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return result.si_status, 0
    return 128 + result.si_status, result.si_status


def close_from(first: int) -> None:
    """Set close-on-exec on every descriptor from `first` on."""
    check(_close_range(first, 0xFFFFFFFF, n.CLOSE_RANGE_CLOEXEC), "close_range")


def close_between(first: int, last: int) -> None:
    """Close every descriptor from `first` to `last`, both included."""
    check(_close_range(first, last, 0), "close_range")


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """prctl(2) with unused arguments zero."""
    return check(_prctl(option, value, third, 0, 0), f"prctl {option}")


def forget(pidfd: int) -> None:
    """Wait for the end of the child behind `pidfd` and close that; whoever ignores SIGCHLD has no
    child to take then, which is fine."""
    try:
        wait_pidfd(pidfd)
    except ChildProcessError:
        pass
    finally:
        os.close(pidfd)


def set_name(name: str) -> None:
    """The name that ps shows in its comm column, 15 bytes at most."""
    check(_prctl_name(n.PR_SET_NAME, os.fsencode(name)), "prctl PR_SET_NAME")


def set_file_ids(uid: int, gid: int) -> None:
    """Own the files that this process makes as these ids. Leaving 0 takes away the effective
    capabilities about files, as setfsuid(2) says."""
    _setfsgid(gid)
    _setfsuid(uid)


def set_child_subreaper() -> None:
    """Orphaned descendants become children of this process."""
    prctl(n.PR_SET_CHILD_SUBREAPER, 1)


def set_not_dumpable() -> None:
    """No core dumps, and /proc/PID of this process belongs to root."""
    prctl(n.PR_SET_DUMPABLE, 0)


def set_dumpable() -> None:
    """/proc/PID of this process belongs to its user, who may write its maps."""
    prctl(n.PR_SET_DUMPABLE, 1)


def set_parent_death_signal(signal: int) -> None:
    """The kernel sends `signal` to this process when its parent dies.

    Cleared by a change of user.
    """
    prctl(n.PR_SET_PDEATHSIG, signal)


def reset_signals() -> None:
    """Default dispositions and an empty mask, as a new program expects them.

    CPython ignores SIGPIPE and SIGXFSZ, a caller may have ignored others, and what is ignored stays
    ignored across execve.
    """
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
            _signal.signal(number, _signal.SIG_DFL)
    for number in _LIBRARY_SIGNALS:
        _sigaction(number, _DEFAULT_ACTION, None, 8)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
