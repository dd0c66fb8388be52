"""What of this machine a plan needs to know, read off the cgroup that a container will have."""

from __future__ import annotations

from sampan.runtime.plan import Facts

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    return facts
