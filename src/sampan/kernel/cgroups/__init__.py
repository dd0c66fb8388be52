"""Cgroups of both versions behind one interface.

`manager(path)` is the cgroup at `path` in every hierarchy of the host: a `v1.Cgroup` where a
version 1 controller is mounted (also on hybrid hosts), a `v2.Cgroup` otherwise. Both have the same
verbs: create, procs_fds, join, update, freeze, thaw, pids, kill, oom_kills, stats, remove.

Words: a *path* is relative to the root of each hierarchy, `/sampan/<id>`; *resources* are OCI
`linux.resources` as parsed from JSON. Nothing outside of the given path is changed, except that on
version 2 its ancestors have controllers enabled for it, which the kernel demands.

A limit that was asked for and cannot be set is an OSError naming the field: never ignored.
"""

from __future__ import annotations

from sampan.kernel.cgroups import hierarchy
from sampan.kernel.cgroups.hierarchy import forget, mounted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import v1, v2, watch

    Cgroup = v1.Cgroup | v2.Cgroup
    Watch = watch.EventWatch | watch.FileWatch

__all__ = ["detect", "forget", "manager", "mode", "own_paths", "recorded"]


def mode() -> str:
    """How this host has its cgroups mounted: "legacy", "hybrid" or "unified"."""
    real = [h for h in mounted() if h.version == 2 or h.controllers != ("name=systemd",)]
    versions = {hierarchy.version for hierarchy in real}
    if not versions:
        raise FileNotFoundError("no cgroup hierarchy is mounted")
    return "unified" if versions == {2} else "legacy" if versions == {1} else "hybrid"


def detect() -> type[v1.Cgroup | v2.Cgroup]:
    """The class that manages cgroups on this host; the other version is not even imported."""
    if mode() == "unified":
        from sampan.kernel.cgroups import v2

        return v2.Cgroup
    from sampan.kernel.cgroups import v1

    return v1.Cgroup


def manager(path: str, scope: dict[str, Any] | None = None, *, is_hybrid: bool = False) -> Cgroup:
    """The cgroup at `path`, which need not exist yet; ValueError when it is not a safe path.

    `scope` describes the unit whose cgroup it is, where systemd makes it (`scope.Scope`).
    `is_hybrid` takes the version 2 tree beside those of version 1 along (`hybrid.Cgroup`).
    """
    if is_hybrid:
        from sampan.kernel.cgroups import hybrid

        return hybrid.Cgroup(path)
    if scope and mode() == "unified":
        from sampan.kernel.cgroups.scope import Scope

        return Scope(path, scope)
    if scope:
        from sampan.kernel.cgroups import scope_v1

        return scope_v1.Scope(path, scope)
    return detect()(path)


def recorded(state: dict[str, Any]) -> Cgroup:
    """The cgroup that a state names: `cgroup`, and `cgroup_own` where that is a relative path."""
    if state.get("scope"):
        return manager(state["cgroup"], state["scope"])
    if state.get("hybrid"):
        from sampan.kernel.cgroups import hybrid

        return hybrid.Cgroup(state["cgroup"], state.get("cgroup_own"))
    return detect()(state["cgroup"], state.get("cgroup_own"))


def own_paths(path: str) -> dict[str, str] | None:
    """What `recorded` needs beside `path`: where this process is, if `path` is relative to that."""
    return None if path.startswith("/") else hierarchy.own_paths()
