"""The rarer fields of a configuration: their rules, and where their operations stand in the plan.

Imported only where a configuration has one of `PROCESS` or `LINUX` (in `validate`), so a usual
start pays for none of it.
"""

from __future__ import annotations

from sampan.runtime import labels, scheduling
from sampan.runtime.failure import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.operations import Operation

_SCHEDULING = {
    "scheduler": scheduling.check_scheduler,
    "ioPriority": scheduling.check_io_priority,
    "execCPUAffinity": scheduling.check_affinity,
}


def check_process(process: dict[str, Any]) -> None:
    """The rules of a process, of a container's first one or of an exec. Raises InvalidConfig."""
    for key, check in _SCHEDULING.items():
        if process.get(key) is not None:
            check(process[key])
    labels.check_process(process)


def check_linux(linux: dict[str, Any]) -> None:
    """The rules of what the whole container has. Raises InvalidConfig."""
    if linux.get("intelRdt"):
        problem = "Intel RDT is not supported by this runtime: leave the field out"
        raise InvalidConfig(f"linux.intelRdt: {problem}")
    if linux.get("memoryPolicy") is not None:
        scheduling.check_memory_policy(linux["memoryPolicy"])
    if linux.get("personality"):
        scheduling.check_personality(linux["personality"])
    labels.check_mounts(linux)
    if linux.get("netDevices"):
        from sampan.runtime import netdevices

        netdevices.check(linux)


def operations(
    process: dict[str, Any], linux: dict[str, Any], *, is_exec: bool
) -> tuple[list[Operation], list[Operation]]:
    """(what needs the host's /proc, what counts within the limits of the cgroup).

    The CPUs of `execCPUAffinity` are an exec's alone: the first ones while it joins the cgroup, the
    others after.
    """
    early = labels.operations(process)
    late = scheduling.operations(process, linux)
    if is_exec:
        early = [*scheduling.affinity(process, "initial"), *early]
        late += scheduling.affinity(process, "final")
    return early, late
