"""Resource limits by OCI name, and the score of the OOM killer."""

from __future__ import annotations

import errno
import os
import resource

KINDS = {
    f"RLIMIT_{name}": getattr(resource, f"RLIMIT_{name}")
    for name in (
        "AS CORE CPU DATA FSIZE MEMLOCK MSGQUEUE NICE "
        "NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK"
    ).split()
}
_INFINITY = resource.RLIM_INFINITY
_UNLIMITED = 0xFFFFFFFFFFFFFFFF


def set_limit(kind: str, soft: int, hard: int) -> None:
    """Set one limit of this process.

    Without CAP_SYS_RESOURCE the kernel refuses to raise a hard limit. Then the limit is set as high
    as it may be: a container that asks for more descriptors than its host has still starts, as
    under containerd with its restricted settings.
    """
    number = KINDS[kind]
    wanted = [_INFINITY if value == _UNLIMITED else value for value in (soft, hard)]
    try:
        resource.setrlimit(number, (wanted[0], wanted[1]))
    except (ValueError, PermissionError):
        resource.setrlimit(number, lowered(kind, soft, hard))


def lowered(kind: str, soft: int, hard: int) -> tuple[int, int]:
    """What of these limits may be had without the right to raise one; -1 is none."""
    wanted = [_INFINITY if value == _UNLIMITED else value for value in (soft, hard)]
    _, ceiling = resource.getrlimit(KINDS[kind])
    return _lower(wanted[0], ceiling), _lower(wanted[1], ceiling)


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
