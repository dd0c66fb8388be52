"""The runtime's functions, as the spawner and its shims call them.

A shim makes the blank, so that the container's first process is its child; the spawner, which is
warm, gives it its order. The namespaces are made before the launch is known, those that most
containers want; when the configuration wants others, the shim makes another blank.
"""

from __future__ import annotations

import _socket
import os

from sampan.kernel import cgroups
from sampan.runtime import blank, create, machines, plan, rootfs
from sampan.runtime.exec import spawn
from sampan.runtime.readiness import is_possible
from sampan.shim.launch import Runtime

USUAL = ("ipc", "mount", "network", "pid", "uts")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup


def runtime() -> Runtime:
    """The real runtime."""
    return Runtime(
        adopt=_adopt,
        begin=create.begin,
        cgroup=_cgroup,
        kinds=_kinds,
        mount=rootfs.mount,
        prepare=_prepare,
        resume=create.resume,
        spawn=spawn,
    )


def programs() -> list[int]:
    """The descriptors that shims share: the program of the usual blank, where there is one."""
    usual = frozenset(USUAL)
    return [machines.machine_for(usual)[1]] if is_possible(usual) else []


def _kinds(spec: dict[str, Any]) -> tuple[list[str], str]:
    new, join = plan.namespaces(spec)
    return sorted(set(new) - {"cgroup"}), dict(join).get("pid", "")


def _prepare(kinds: list[str], pid_namespace: str, interpreted: bool) -> blank.Blank:
    wanted = sorted(kinds or USUAL)
    fd = os.open(pid_namespace, os.O_RDONLY | os.O_CLOEXEC) if pid_namespace else None
    try:
        if interpreted or not is_possible(frozenset(wanted)):
            return blank.make_blank(wanted, fd, is_spare=True)
        return machines.make_machine(wanted, fd)
    finally:
        if fd is not None:
            os.close(fd)


def _adopt(kinds: list[str], pid: int, pidfd: int, sync: int, is_machine: bool) -> blank.Blank:
    sock = _socket.socket(-1, -1, -1, sync)
    made = machines.adopt if is_machine else blank.Blank
    return made(kinds, pid, pidfd, sock)


def _cgroup(state: dict[str, Any]) -> Cgroup:
    return cgroups.manager(state["cgroup"])
