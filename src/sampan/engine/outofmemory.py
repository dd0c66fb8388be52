"""Containers that run out of memory, told at the moment when the kernel kills, not at their end.

A container with a memory limit has a watch on its cgroup while it runs. One without can only run
out with the whole machine; that is told with its end, from its shim's record.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sampan.engine.placement import cgroup_path
from sampan.kernel import cgroups

if TYPE_CHECKING:
    from sampan.engine.containers import Entry
    from sampan.engine.services import Services
    from sampan.kernel.cgroups import Watch

log = logging.getLogger(__name__)


class MemoryWatch:
    """Of one container, from its start to its end."""

    __slots__ = ("_entry", "_services", "_watch", "told")

    def __init__(self, services: Services, entry: Entry, watch: Watch) -> None:
        self._services, self._entry = services, entry
        self._watch: Watch | None = watch
        self.told = False
        asyncio.get_running_loop().add_reader(watch.fileno(), self._heard)

    def close(self) -> None:
        """Hear what is still to be heard, and watch no more. Idempotent."""
        watch, self._watch = self._watch, None
        if watch is not None:
            asyncio.get_running_loop().remove_reader(watch.fileno())
            self._take(watch)
            watch.close()

    def _heard(self) -> None:
        if self._watch is not None and self._take(self._watch):
            self.close()

    def _take(self, watch: Watch) -> bool:
        """Tell of each time; whether no more can come."""
        try:
            kills = watch.take()
        except OSError:  # the cgroup went while it was read
            return True
        for _ in range(kills):
            self.told = True
            self._services.containers.emit(self._entry, "oom")
        is_over: bool = watch.is_over
        return is_over


def begin(services: Services, entry: Entry) -> None:
    """Watch a container that has begun to run, if it has a limit."""
    if not entry.container.host.memory or entry.memory_watch is not None:
        return
    cgroup = cgroups.manager(cgroup_path(services.config, entry.container))
    try:
        entry.memory_watch = MemoryWatch(services, entry, cgroup.watch_oom())
    except OSError as error:
        log.info("watch the memory of container %s: %s", entry.id, error)  # told at its end


def end(entry: Entry) -> bool:
    """Watch no more; whether it was told that memory ran out."""
    watch, entry.memory_watch = entry.memory_watch, None
    if watch is None:
        return False
    watch.close()
    return watch.told
