"""A cgroup of a hybrid host: the version 1 hierarchies, and the same path in the version 2 tree.

That tree has no controllers on such a host, but programs look for containers in it. To join it by
writing to its `cgroup.procs` waits for a grace period of the whole machine, a third of an exec on a
busy one. A process that is born there (CLONE_INTO_CGROUP) costs a third of a millisecond. So the
directory is made before the process, and this class gives its descriptor.

As under runc, a host that does not let us make the directory is no error.
"""

from __future__ import annotations

import os
import time

from sampan.kernel.cgroups import hierarchy, v1
from sampan.kernel.cgroups.tree import exists, remove_quietly, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.cgroups.hierarchy import Hierarchy

_WAIT = 1.0  # seconds
_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Cgroup(v1.Cgroup):
    """The cgroup at one path in every hierarchy, that of version 2 among them."""

    __slots__ = ("_unified",)

    def __init__(self, path: str, own: dict[str, str] | None = None) -> None:
        super().__init__(path, own)
        trees = [tree for tree in hierarchy.mounted() if tree.version == 2]
        self._unified = hierarchy.names(trees, path, own)  # none, or one

    def birthplace(self, *, make: bool) -> int:
        """A descriptor of the directory of version 2, made if `make`; -1 where there is none."""
        for tree, name in self._unified:
            try:
                if make:
                    _make(tree, name)
                return os.open(name, _FLAGS, dir_fd=tree.fd)
            except OSError:
                break
        return -1

    def leave_birthplace(self) -> None:
        """Remove the directory of version 2, if it is empty."""
        for tree, name in self._unified:
            remove_quietly(tree, name)

    def exists(self) -> bool:
        """Whether any of the directories is there."""
        return super().exists() or any(exists(tree, name) for tree, name in self._unified)

    def names(self) -> dict[str, str]:
        """Controller to absolute directory; "" is version 2."""
        found = super().names()
        for tree, name in self._unified:
            found[""] = tree.name(name)
        return found

    def remove(self) -> None:
        """As `v1.Cgroup.remove`."""
        super().remove()
        for tree, name in self._unified:
            remove_tree(tree, name, time.monotonic() + _WAIT)


def _make(tree: Hierarchy, name: str) -> None:
    """Make the directory; those above it only where one is missing."""
    try:
        os.mkdir(name, 0o755, dir_fd=tree.fd)
    except FileNotFoundError:
        _make(tree, name.rpartition("/")[0])
        os.mkdir(name, 0o755, dir_fd=tree.fd)
    except FileExistsError:
        pass
