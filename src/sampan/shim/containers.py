"""The runtime's functions, as the spawner and its shims call them.

A shim makes the blank, so that the container's first process is its child; the spawner, which is
warm, gives it its order. The namespaces are made before the launch is known, those that most
containers want; when the configuration wants others, the shim makes another blank.
"""

from __future__ import annotations

import _socket
import marshal
import os
import sys

import sampan
from sampan.kernel import cgroups
from sampan.kernel.cgroups import v1, v2  # noqa: F401  before the imports are closed
from sampan.kernel.cgroups.hierarchy import mounted
from sampan.kernel.identity import is_unprivileged
from sampan.runtime import (  # noqa: F401  the same
    birth,
    blank,
    copyup,
    create,
    direct_exec,
    extensions,
    foreign,
    idmaps,
    listener,
    machines,
    mappedroot,
    mappings,
    plan,
    rootfs,
    rootless,
    validate,
)
from sampan.runtime.exec import Execed, resolve_inside, spawn
from sampan.runtime.failure import InvalidConfig, NeedsInterpreter
from sampan.runtime.readiness import is_possible as is_made_by_machines
from sampan.shim import keeper
from sampan.shim.launch import Runtime
from sampan.shim.spares import Keepers
from sampan.shim.uncounted import Uncounted

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from sampan.shim.waking import main; main()"
IS_UNPRIVILEGED = is_unprivileged()
USUAL = ("ipc", "mount", "network", "pid", "uts")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup
    from sampan.runtime.direct import Direct

    Born = tuple[list[str], list[tuple[str, str]], list[dict[str, int]], list[dict[str, int]], Any]


# Imported where they are needed, which must have happened before imports are closed.
PRELOADED = (foreign, idmaps, mappedroot, mappings, rootless)


def runtime() -> Runtime:
    """The real runtime."""
    return Runtime(
        adopt=_adopt,
        begin=create.begin,
        cgroup=_cgroup,
        keepers=_keepers if _can_keep() else None,
        kinds=_kinds,
        mount=rootfs.mount,
        prepare=_prepare,
        resume=create.resume,
        spawn=_spawn,
    )


def programs() -> list[int]:
    """The descriptors that shims share: the program of the usual blank, where there is one."""
    usual = frozenset(USUAL)
    return [machines.machine_for(usual)[1]] if is_possible(usual) else []


def is_possible(kinds: frozenset[str]) -> bool:
    """Whether a list of calls can make containers: it does as root what an ordinary user may not,
    such as devices."""
    return not IS_UNPRIVILEGED and is_made_by_machines(kinds)


def _can_keep() -> bool:
    """Whether a quiet container can be left to a keeper: its memory is counted, and we are root."""
    counted = any("memory" in tree.controllers or tree.version == 2 for tree in mounted())
    return counted and keeper.is_possible() and is_possible(frozenset(USUAL))


def _keepers(wake: int) -> list[Keepers]:
    """For containers with a network of their own making, those that join one, and those of pods."""
    trees = [tree.fd for tree, _ in cgroups.manager("/sampan").places()]
    python = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    given = {keeper.WAKE: wake, keeper.PYTHON: python, **dict(enumerate(trees, keeper.TREES))}
    source = os.path.dirname(os.path.dirname(os.path.abspath(sampan.__file__)))
    boot = keeper.Boot(sys.executable, _BOOT, source)
    made = []
    for kinds in (sorted(USUAL), sorted({*USUAL} - {"network"}), ["mount", "pid"]):
        given[keeper.BLANK] = machines.machine_for(frozenset(kinds))[1]
        made.append(Keepers(kinds, keeper.image(kinds, len(trees), boot), given))
    os.close(python)
    return made


def _kinds(spec: dict[str, Any]) -> tuple[list[str], str | Born]:
    new, join = plan.namespaces(spec)
    kinds = sorted(set(new) - {"cgroup"})
    if plan.shares_mounts(spec.get("linux") or {}):
        raise InvalidConfig("linux.namespaces: a mount namespace is needed")
    if "user" not in new:
        return kinds, dict(join).get("pid", "")
    linux, score = spec["linux"], spec["process"].get("oomScoreAdj")
    return kinds, (new, join, linux["uidMappings"], linux["gidMappings"], score)


def _prepare(kinds: list[str], pid_namespace: str | Born, interpreted: bool) -> blank.Blank:
    if not isinstance(pid_namespace, str):
        return _give_birth(pid_namespace)
    wanted = sorted(kinds or USUAL)
    fd = os.open(pid_namespace, os.O_RDONLY | os.O_CLOEXEC) if pid_namespace else None
    try:
        if interpreted or not is_possible(frozenset(wanted)):
            return blank.make_blank(wanted, fd, is_spare=True)
        return machines.make_machine(wanted, fd)
    finally:
        if fd is not None:
            os.close(fd)


def _give_birth(born: Born) -> blank.Blank:
    """A blank in a new user namespace, for which all that is joined must be joined before."""
    new, join, uids, gids, score = born
    joined = [
        (kind, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) for kind, path in join if kind != "mount"
    ]
    try:
        maps = {"uidMappings": uids, "gidMappings": gids}
        return birth.make_blank(birth.Birth(new, joined, maps, score))
    finally:
        for _, fd in joined:
            os.close(fd)


def _spawn(
    state: dict[str, Any],
    process_spec: dict[str, Any],
    *,
    pidfd: int,
    stdio: tuple[int, int, int],
    filter_program: tuple[bytes, int] | None = None,
) -> Execed | Direct:
    """As `exec.spawn`; by the machine where it can, which copies no page of ours."""
    how: dict[str, Any] = {"pidfd": pidfd, "stdio": stdio, "filter_program": filter_program}
    asked = marshal.dumps(process_spec, 2)
    if asked != _asked[0]:  # what was good the last time is good
        validate.check_process(process_spec)
        _asked[0] = asked
    try:
        resolve_inside(state, process_spec)
        return direct_exec.spawn(state, process_spec, **how)
    except (NeedsInterpreter, OSError):
        return spawn(state, process_spec, **how)


_asked = [b""]


def _adopt(kinds: list[str], pid: int, pidfd: int, sync: int, is_machine: bool) -> blank.Blank:
    sock = _socket.socket(-1, -1, -1, sync)
    made = machines.adopt if is_machine else blank.Blank
    return made(kinds, pid, pidfd, sock)


def _cgroup(state: dict[str, Any]) -> Cgroup | Uncounted:
    return cgroups.manager(state["cgroup"]) if state["cgroup"] else Uncounted(state)
