"""A scope unit of systemd on a host with cgroup version 1.

There systemd has a part of the hierarchies: its own, that of version 2 on a hybrid host, and those
of the controllers that it has properties for. In these it makes the directories and moves the first
process; in the others, cpuset and the freezer among them, the same path is made by ourselves, as
runc does it, and whoever joins joins all of them.

Only for root: on version 1 systemd gives the manager of an ordinary user no controllers.
"""

from __future__ import annotations

from sampan.kernel.cgroups import applying, devices, hybrid, scope, scope_properties, v1_limits
from sampan.kernel.cgroups.v1 import adopt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups.scope_properties import Property


class Scope(hybrid.Cgroup):
    """As `scope.Scope`, on version 1."""

    __slots__ = ("extra", "unit")

    def __init__(self, path: str, described: dict[str, Any]) -> None:
        super().__init__(path)
        self.unit: str = described["unit"]
        self.extra: list[Property] = described["properties"]

    def create(self, resources: dict[str, Any], first: int = 0) -> None:
        """Have the unit made around the process `first`; raises as `v1.Cgroup.create`."""
        rules = self.check(resources)
        properties = [
            *scope_properties.of_unit(self.unit, scope.slice_of(self.path), first),
            *scope_properties.of_old_resources(resources, rules),
            *self.extra,
        ]
        with scope.connect() as manager:
            manager.start(self.unit, properties)
        try:
            for tree, path in self.places():
                adopt(tree, path, first)
            self.limit(resources, rules)
        except BaseException:
            self.kill()  # systemd would ask the processes first, and wait for their answer
            self.remove()
            raise

    def update(self, resources: dict[str, Any]) -> None:
        """As `v1.Cgroup.update`, and systemd is told, so that its next reload does not undo it."""
        writes = v1_limits.plan(resources, self.look)
        self._refuse_missing(writes)
        before = applying.change(writes, self._write, self.look)
        rules = None
        if resources.get("devices") is not None:
            rules = devices.policy(resources["devices"])
        try:
            with scope.connect() as manager:
                told = scope_properties.of_old_resources(resources, rules)
                manager.set_properties(self.unit, told)
        except OSError:
            applying.take_back(before, self._write)
            raise
        # It has just written what it was told, in its own steps.
        applying.apply(writes, self._write)
        if rules is not None:
            self._set_devices(rules, fresh=False)

    def remove(self) -> None:
        """End the unit, and remove what is ours. Raises as `v1.Cgroup.remove`."""
        with scope.connect() as manager:
            manager.stop(self.unit)
        super().remove()
