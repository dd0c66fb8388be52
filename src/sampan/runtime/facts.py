"""What of this machine a plan needs to know, and what is kept of a container that was made."""

from __future__ import annotations

import time

from sampan.kernel.identity import start_time
from sampan.runtime.plan import Facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup


def facts_of(cgroup: Cgroup, attach_at: str) -> Facts:
    """The facts of this machine that a plan needs."""
    facts = Facts(attach_at, cgroup.path)
    shared: dict[str, list[str]] = {}
    for controller, directory in cgroup.names().items():
        shared.setdefault(directory, []).append(controller.removeprefix("name="))
    for directory, controllers in shared.items():
        if controllers == [""]:
            facts.unified = directory
            continue
        name = ",".join(controllers)
        facts.hierarchies.append((name, directory))
        if len(controllers) > 1:
            facts.cgroup_links += [(controller, name) for controller in controllers]
    facts.hierarchies.sort()
    if facts.hierarchies:
        facts.unified = ""  # of a hybrid host: nothing is mounted of it
    return facts


def record(
    container_id: str, pid: int, bundle: str, cgroup: str, spec: dict[str, Any]
) -> dict[str, Any]:
    """What exec, state and delete need later of the container whose first process is `pid`."""
    spaces = (spec.get("linux") or {}).get("namespaces") or []
    try:
        started = start_time(pid)
    except (FileNotFoundError, ProcessLookupError):
        started = 0
    return {
        "v": 1,
        "id": container_id,
        "pid": pid,
        "start_time": started,
        "bundle": bundle,
        "created": time.time_ns(),
        "cgroup": cgroup,
        "namespaces": [space["type"] for space in spaces],
    }
