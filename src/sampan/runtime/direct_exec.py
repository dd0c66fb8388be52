"""An exec by the machine: what `exec.spawn` does, with `direct`.

The starter sets the pid namespace of its child, which joins the cgroup, enters the container by the
pidfd of its first process, and goes on as that one did.

The last program is kept, and what was found out for it: what looks after a container asks it for
the same again and again.
"""

from __future__ import annotations

import marshal
import os

from sampan.kernel import cgroups, fds, machine
from sampan.kernel.identity import is_unprivileged
from sampan.kernel.machine import SYS
from sampan.kernel.namespaces import KINDS
from sampan.runtime import plan, validate
from sampan.runtime.credentials import OomScore, Session, find_home, give
from sampan.runtime.direct import Direct, DirectAssembly, clear_of_report, is_null
from sampan.runtime.failure import NeedsInterpreter
from sampan.runtime.operations import JoinCgroup, Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup

_UNUSUAL = frozenset(("user", "time"))


class Enter(Operation):
    """Enter the namespaces of the first process; the root becomes the container's."""

    __slots__ = ("flags", "pidfd")

    def __init__(self, pidfd: int, flags: int) -> None:
        self.pidfd, self.flags = pidfd, flags

    def describe(self) -> str:
        return "join the namespaces of the container"


def _enter(a: DirectAssembly, one: Enter) -> None:
    a.calls.call(SYS["setns"], one.pidfd, one.flags)


DirectAssembly.writers[Enter] = _enter


def spawn(
    state: dict[str, Any],
    process_spec: dict[str, Any],
    *,
    pidfd: int,
    filter_program: tuple[bytes, int] | None,
    stdio: tuple[int, int, int] = (0, 1, 2),
    sub_cgroups: dict[str, str] | None = None,
    ignore_paused: bool = False,
) -> Direct:
    """Execute `process_spec` in the container of `state`; returns when execve has succeeded.

    Raises:
        InvalidConfig: the process is refused.
        NeedsInterpreter: the machine cannot, or something failed; nothing is left of it.
    """
    _check(state, process_spec)
    doors: list[int] = []
    entry, created = [clear_of_report(os.dup(pidfd))], None
    try:
        if state["cgroup"]:
            group = _group(state)
            found = group.procs_fds(sub_cgroups, init=state["pid"], frozen=ignore_paused)
            doors = [fd for _, fd in found]
            if (born_in := group.birthplace(make=False)) >= 0:
                entry.append(clear_of_report(born_in))
        script, program = _program(state, process_spec, entry, len(doors), filter_program, stdio)
        for fd in stdio:
            give(fd, (process_spec.get("user") or {}).get("uid") or 0)
        created = Direct(script, program, process_spec["args"][0], entry, stdio)
        created.await_birth()
        created.hand_cgroup(doors)
        created.await_ready()
        created.finish()
        return created
    except OSError as error:
        if created is not None:
            created.abort()
        raise NeedsInterpreter(str(error)) from error
    except BaseException:
        if created is not None:
            created.abort()
        raise
    finally:
        fds.close_all([*entry, *doors])


def _check(state: dict[str, Any], process_spec: dict[str, Any]) -> None:
    """Raises InvalidConfig and NeedsInterpreter; not again for what passed the last time."""
    asked = marshal.dumps((state["pid"], process_spec), 2)
    if asked not in _passed:
        validate.check_process(process_spec)
        _refuse_unusual(state, process_spec)
        _passed.clear()
        _passed.add(asked)


_passed: set[bytes] = set()


def _group(state: dict[str, Any]) -> Cgroup:
    """The cgroup of the container; the last one is kept with the state that names it."""
    if not _groups or _groups[0][0] is not state:
        _groups[:] = [(state, cgroups.recorded(state))]
    return _groups[0][1]


_groups: list[tuple[dict[str, Any], Cgroup]] = []


def _refuse_unusual(state: dict[str, Any], process_spec: dict[str, Any]) -> None:
    if (
        is_unprivileged()  # who cannot come back to the host's pid namespace
        or not machine.is_available()
        or not _UNUSUAL.isdisjoint(state["namespaces"])
        or "mount" not in state["namespaces"]  # the root is not found by joining that
        or process_spec.get("terminal")
        or process_spec.get("preserveFds")
        or "username" in (process_spec.get("user") or {})
        or plan.is_rare(process_spec, (state.get("config") or {}).get("linux") or {})
    ):
        raise NeedsInterpreter("an exec that the machine does not do")


def _program(
    state: dict[str, Any],
    process_spec: dict[str, Any],
    entry: list[int],
    doors: int,
    filter_program: tuple[bytes, int] | None,
    stdio: tuple[int, int, int],
) -> tuple[DirectAssembly, int]:
    """The script and its program: the last ones, where all that they are made of is the same.

    `entry` is the pidfd of the first process, and the version 2 cgroup to be born in if any.
    """
    root = os.open(f"/proc/{state['pid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    find_home(root, process_spec)
    os.close(root)
    place = state["pid"], state["cgroup"], state["namespaces"]
    nulls = [is_null(fd) for fd in stdio]
    made_of = place, process_spec, entry, doors, filter_program, nulls
    key = marshal.dumps(made_of, 2)  # the first version without references, which would differ
    if key not in _last:
        script = _script(state, process_spec, entry, doors, filter_program, stdio)
        program = script.sealed()
        fds.close_all([old for _, old in _last.values()])
        _last.clear()
        _last[key] = script, program
    return _last[key]


_last: dict[bytes, tuple[DirectAssembly, int]] = {}


def _script(
    state: dict[str, Any],
    process_spec: dict[str, Any],
    entry: list[int],
    doors: int,
    filter_program: tuple[bytes, int] | None,
    stdio: tuple[int, int, int],
) -> DirectAssembly:
    flags = 0
    for kind in state["namespaces"]:
        if kind != "pid":
            flags |= KINDS[kind][0]
    script = DirectAssembly("", stdio)
    first, *born_in = entry
    script.be_born(0, first if "pid" in state["namespaces"] else None, *born_in)
    process = plan.Plan()
    if process_spec.get("oomScoreAdj") is not None:
        process.before_gate.append(OomScore(process_spec["oomScoreAdj"]))
    if doors:
        process.before_gate.append(JoinCgroup(state["cgroup"], unshare=False))
    if flags:
        process.before_gate.append(Enter(first, flags))
    process.before_gate.append(Session(terminal=False))
    process.before_gate += plan.locate(process_spec, create_directory=False)
    filtered = {"seccomp": filter_program is not None}
    process.after_gate = plan.become(process_spec, filtered, die_with_parent=False)
    script.write(process, doors, filter_program)
    return script
