"""Blanks that are the machine (`kernel.machine`) and no interpreter.

They can do less, so who gives one an order may hear NeedsInterpreter; but nothing of Python stands
in the container, and their birth copies next to no memory.
"""

from __future__ import annotations

import _socket

from sampan.kernel import cgroups, fds, machine, namespaces, process
from sampan.runtime.blank import Blank
from sampan.runtime.facts import facts_of
from sampan.runtime.plan import clone_flags
from sampan.runtime.readiness import Ready

_made: dict[frozenset[str], tuple[Ready, int]] = {}


def machine_for(kinds: frozenset[str]) -> tuple[Ready, int]:
    """(script, descriptor of the program) of the machine for new namespaces of `kinds`.

    Both are kept for good: on one host they are always the same.
    """
    found = _made.get(kinds)
    if found is None:
        facts = facts_of(cgroups.manager("/sampan"), "")
        script = Ready(kinds, facts.hierarchies, facts.cgroup_links)
        found = _made[kinds] = script, fds.sealed_memfd("sampan-init", script.image)
    return found


def make_machine(kinds: list[str], pid_namespace: int | None = None) -> Blank:
    """As `make_blank`, but the child is the machine."""
    ready, program = machine_for(frozenset(kinds))
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    flags = clone_flags(kinds)
    if pid_namespace is None:
        pid, pidfd = process.clone3(flags)
    else:
        pid, pidfd = namespaces.clone_in_pid_namespace(pid_namespace, flags)
    if pid == 0:
        machine.become(program, theirs.fileno())
    theirs.close()
    return Blank(kinds, pid, pidfd, ours, ready)


def adopt(kinds: list[str], pid: int, pidfd: int, sync: _socket.socket) -> Blank:
    """The machine that another process has made, of its parts."""
    return Blank(kinds, pid, pidfd, sync, machine_for(frozenset(kinds))[0])
