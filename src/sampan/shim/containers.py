"""The runtime's functions, as the shim's helper calls them: containers that are its siblings.

Whatever the helper makes must be a child of the shim, which outlives it: the first process is
therefore cloned with CLONE_PARENT. It is made before its launch is known, with the namespaces that
most containers want; when the configuration wants others, it is given up for one that fits.
"""

from __future__ import annotations

import _socket
import os

from sampan.kernel import cgroups, namespaces, process
from sampan.kernel import numbers as n
from sampan.runtime import create, init, plan, rootfs
from sampan.runtime.exec import spawn
from sampan.shim.launch import Runtime

USUAL = ("ipc", "mount", "network", "pid", "uts")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup


def runtime() -> Runtime:
    """The real runtime."""
    return Runtime(_create, spawn, rootfs.mount, _cgroup, _prepare)


def _prepare() -> create.Blank:
    return _sibling(list(USUAL), None)


def _create(
    container_id: str, spec: dict[str, Any], *, blank: create.Blank, **options: Any
) -> create.Created:
    new, join = plan.namespaces(spec)
    kinds = sorted(set(new) - {"cgroup"})
    if blank.kinds != frozenset(kinds):
        blank.discard()
        blank = _sibling(kinds, dict(join).get("pid"))
    return create.create(container_id, spec, blank=blank, **options)


def _sibling(kinds: list[str], pid_namespace: str | None) -> create.Blank:
    """A blank whose parent is our parent."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    flags = plan.clone_flags(kinds) | n.CLONE_PARENT
    if pid_namespace is None:
        pid, pidfd = process.clone3(flags)
    else:
        fd = os.open(pid_namespace, os.O_RDONLY | os.O_CLOEXEC)
        pid, pidfd = namespaces.clone_in_pid_namespace(fd, flags)
        os.close(fd)
    if pid == 0:
        ours.close()
        init.live_as_blank(theirs)
    theirs.close()
    return create.Blank(kinds, pid, pidfd, ours)


def _cgroup(state: dict[str, Any]) -> Cgroup:
    return cgroups.manager(state["cgroup"])
