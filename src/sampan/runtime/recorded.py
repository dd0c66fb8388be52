"""A container's cgroup by the directories that its state names.

What the small verbs ask of a cgroup is here, without the room that makes and changes them: looking
for the mounted hierarchies costs more than all else they do. `cgroup_paths` is controller to
directory, as runc's state has it; version 2 has the controller "". A state without it, of a
creation that was cut short, is left to that room.
"""

from __future__ import annotations

import errno
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GONE = frozenset((errno.ENOENT, errno.ENODEV))


def is_known(state: dict[str, Any]) -> bool:
    """Whether the state names the directories."""
    return bool(state.get("cgroup_paths"))


def is_frozen(state: dict[str, Any]) -> bool:
    """Whether the processes are stopped, or about to be."""
    paths = state["cgroup_paths"]
    if "freezer" in paths:
        return _look(f"{paths['freezer']}/freezer.state") not in (b"", b"THAWED")
    return "" in paths and _look(f"{paths['']}/cgroup.freeze") == b"1"


def remove(state: dict[str, Any]) -> bool:
    """Remove the directories; False when one has something in it still, or cannot be removed."""
    is_removed = True
    for path in dict.fromkeys(state["cgroup_paths"].values()):
        try:
            posix.rmdir(path)
        except OSError as error:
            is_removed = is_removed and error.errno == errno.ENOENT
    return is_removed


def _look(path: str) -> bytes:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _GONE:
            return b""
        raise
    try:
        return posix.read(fd, 64).strip()
    finally:
        posix.close(fd)
