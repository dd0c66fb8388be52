"""What both versions do with a cgroup directory and those below it.

Directories below ours were made by the container, with any names and in any number: they are only
reached through the descriptor of the hierarchy's root, and links are not followed.
"""

from __future__ import annotations

import errno
import os
import time
from _signal import SIGKILL

from sampan.kernel.cgroups.hierarchy import Hierarchy, fail, look


def pids_below(tree: Hierarchy, path: str) -> list[int]:
    """The processes of the cgroup and its sub-cgroups; empty when it does not exist.

    Zero stands for a process that our pid namespace does not show, and is left out.
    """
    pids: list[int] = []
    for cgroup in [path, *below(tree, path)]:
        text = look(tree, f"{cgroup}/cgroup.procs")
        pids.extend(int(line) for line in (text or "").split("\n") if line and line != "0")
    return pids


def below(tree: Hierarchy, path: str) -> list[str]:
    """Every sub-cgroup of `path`, parents before children."""
    found: list[str] = []
    queue = [path]
    while queue:
        parent = queue.pop(0)
        children = [f"{parent}/{name}" for name in _children(tree, parent)]
        found.extend(children)
        queue.extend(children)
    return found


def _children(tree: Hierarchy, path: str) -> list[str]:
    try:
        fd = os.open(
            path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=tree.fd
        )
    except FileNotFoundError:
        return []
    try:
        # The link count of a cgroup directory is two and one for each child: no listing for most.
        if os.fstat(fd).st_nlink <= 2:
            return []
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)


def kill_all(pids: list[int]) -> None:
    """SIGKILL to each, whether or not it still is there."""
    for pid in pids:
        try:
            os.kill(pid, SIGKILL)
        except ProcessLookupError:
            pass


def exists(tree: Hierarchy, path: str) -> bool:
    """Whether the directory is there."""
    try:
        os.stat(path, dir_fd=tree.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def remove_quietly(tree: Hierarchy, path: str) -> None:
    """Remove the directory if the kernel lets us; it may be in use or gone."""
    try:
        os.rmdir(path, dir_fd=tree.fd)
    except OSError:
        pass


def remove_tree(tree: Hierarchy, path: str, deadline: float) -> None:
    """Remove one cgroup directory and those below it, trying until `deadline`."""
    pause = 0.0005
    while True:
        try:
            os.rmdir(path, dir_fd=tree.fd)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in {errno.EBUSY, errno.ENOTEMPTY} or time.monotonic() > deadline:
                fail(error, f"rmdir {tree.name(path)}")
        else:
            return
        children = below(tree, path)
        for child in reversed(children):
            remove_quietly(tree, child)
        if not children or below(tree, path):
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
