"""Resource limits by OCI name, and the score of the OOM killer."""

from __future__ import annotations

import errno
import os

# By their numbers (asm-generic/resource.h), as lines of /proc/self/limits have them, too. Loading
# the module resource for them would cost a start more than all the rest of it here.
_NAMES = (
    "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE "
    "RTPRIO RTTIME"
).split()
KINDS = {f"RLIMIT_{name}": number for number, name in enumerate(_NAMES) if name != "LOCKS"}
_INFINITY = -1
_LABEL = 26  # characters of a line before its numbers
_UNLIMITED = 0xFFFFFFFFFFFFFFFF


def set_limit(kind: str, soft: int, hard: int) -> None:
    """Set one limit of this process.

    Without CAP_SYS_RESOURCE the kernel refuses to raise a hard limit. Then the limit is set as high
    as it may be: a container that asks for more descriptors than its host has still starts, as
    under containerd with its restricted settings.
    """
    import resource  # `runtime.init` has it loaded

    number = KINDS[kind]
    wanted = [_INFINITY if value == _UNLIMITED else value for value in (soft, hard)]
    try:
        resource.setrlimit(number, (wanted[0], wanted[1]))
    except (ValueError, PermissionError):
        _, ceiling = resource.getrlimit(number)
        resource.setrlimit(number, (_lower(wanted[0], ceiling), _lower(wanted[1], ceiling)))


def lowered(kind: str, soft: int, hard: int) -> tuple[int, int]:
    """What of these limits may be had without the right to raise one; -1 is none."""
    wanted = [_INFINITY if value == _UNLIMITED else value for value in (soft, hard)]
    ceiling = _ceiling(KINDS[kind])
    return _lower(wanted[0], ceiling), _lower(wanted[1], ceiling)


def _ceiling(number: int) -> int:
    """The hard limit of this process."""
    with open("/proc/self/limits", "rb") as stream:
        line = stream.read().split(b"\n")[number + 1]
    word = line[_LABEL:].split()[1]
    return _INFINITY if word == b"unlimited" else int(word)


def _lower(wanted: int, ceiling: int) -> int:
    if ceiling == _INFINITY:
        return wanted
    return ceiling if wanted == _INFINITY else min(wanted, ceiling)


def set_oom_score_adj(fd: int, value: int) -> None:
    """Write to /proc/PID/oom_score_adj, or leave it where only a privileged process may lower it.

    containerd's restrict_oom_score_adj does the same: the score stays, the container starts. `fd`
    is closed.
    """
    try:
        os.write(fd, str(value).encode())
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
    finally:
        os.close(fd)
