"""Namespaces: enter, leave, name. Only a single-threaded process may do most of this."""

from __future__ import annotations

import os

from sampan.kernel import numbers as n
from sampan.kernel.libc import c_char_p, c_int, c_size_t, check, prototype
from sampan.kernel.process import clone3

_unshare = prototype("unshare", c_int, c_int)
_setns = prototype("setns", c_int, c_int, c_int)
_sethostname = prototype("sethostname", c_int, c_char_p, c_size_t)
_setdomainname = prototype("setdomainname", c_int, c_char_p, c_size_t)

# The OCI name of each kind, its flag, and its file in /proc/PID/ns.
KINDS = {
    "cgroup": (n.CLONE_NEWCGROUP, "cgroup"),
    "ipc": (n.CLONE_NEWIPC, "ipc"),
    "mount": (n.CLONE_NEWNS, "mnt"),
    "network": (n.CLONE_NEWNET, "net"),
    "pid": (n.CLONE_NEWPID, "pid"),
    "time": (n.CLONE_NEWTIME, "time"),
    "user": (n.CLONE_NEWUSER, "user"),
    "uts": (n.CLONE_NEWUTS, "uts"),
}


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    check(_unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, flags: int) -> None:
    """Join the namespace behind `fd`; with a pidfd, every namespace of `flags` of that process."""
    check(_setns(fd, flags), f"setns {flags:#x}")


def set_hostname(name: str) -> None:
    """The host name of this UTS namespace."""
    raw = os.fsencode(name)
    check(_sethostname(raw, len(raw)), "sethostname", name)


def set_domainname(name: str) -> None:
    """The NIS domain name of this UTS namespace."""
    raw = os.fsencode(name)
    check(_setdomainname(raw, len(raw)), "setdomainname", name)


def clone_in_pid_namespace(fd: int, flags: int, cgroup: int = -1) -> tuple[int, int]:
    """clone3 of a child that is born in the pid namespace behind `fd` (a nsfd or a pidfd).

    The namespace for children is set for that one call and set back, so that the next child of this
    process is an ordinary one again.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    pid = -1
    try:
        setns(fd, n.CLONE_NEWPID)
        pid, pidfd = clone3(flags, cgroup)
    finally:
        if pid:  # the child is in its namespace for good, and the way back is not open to it
            setns(own, n.CLONE_NEWPID)
        os.close(own)
    return pid, pidfd
