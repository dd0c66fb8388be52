"""Being told when a cgroup runs out of memory, and when it is no longer there.

A *watch* has a descriptor to poll. After it was readable, `take` says how often the cgroup has run
out since, and `is_over` whether any more can come. Version 1 has an eventfd registered with the
memory controller, which the kernel also fires at the removal; version 2 has two files that change.
"""

from __future__ import annotations

import os

from sampan.kernel import inotify
from sampan.kernel.cgroups import hierarchy, stats
from sampan.kernel.cgroups.tree import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.cgroups.hierarchy import Hierarchy


class EventWatch:
    """Version 1: an eventfd that memory.oom_control writes to."""

    __slots__ = ("_fd", "_name", "_tree", "is_over")

    def __init__(self, tree: Hierarchy, name: str) -> None:
        self._tree, self._name = tree, name
        self.is_over = False
        control = os.open(f"{name}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=tree.fd)
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            hierarchy.write(tree, f"{name}/cgroup.event_control", f"{self._fd} {control}")
        except BaseException:
            os.close(self._fd)
            raise
        finally:
            os.close(control)

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._fd

    def take(self) -> int:
        """How often the cgroup has run out of memory since the last call."""
        try:
            count = os.eventfd_read(self._fd)
        except BlockingIOError:
            return 0
        if not exists(self._tree, self._name):
            self.is_over = True  # the removal fires once, and is not for want of memory
            return max(0, count - 1)
        return count

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


class FileWatch:
    """Version 2: memory.events counts, cgroup.events tells that the last process has gone."""

    __slots__ = ("_fd", "_kills", "_name", "_tree", "is_over")

    def __init__(self, tree: Hierarchy, name: str) -> None:
        self._tree, self._name = tree, name
        self.is_over = False
        self._kills = self._count()
        files = [tree.name(f"{name}/cgroup.events")]
        if hierarchy.look(tree, f"{name}/memory.events") is not None:
            files.append(tree.name(f"{name}/memory.events"))
        self._fd = inotify.watch(files)

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._fd

    def take(self) -> int:
        """How often the kernel has killed here for want of memory since the last call."""
        inotify.drain(self._fd)
        events = stats.pairs(hierarchy.look(self._tree, f"{self._name}/cgroup.events"))
        self.is_over = not events.get("populated")
        count = self._count()
        new, self._kills = max(0, count - self._kills), max(count, self._kills)
        return new

    def _count(self) -> int:
        text = hierarchy.look(self._tree, f"{self._name}/memory.events")
        return stats.pairs(text).get("oom_kill", 0)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)
