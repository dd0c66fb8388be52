"""The container's own cgroup of version 2, shown as the root of the tree it sees."""

from __future__ import annotations

import os

from sampan.kernel import mounts
from sampan.runtime.mountoptions import MountOptions, shape
from sampan.runtime.operations import Operation, plain_directory
from sampan.runtime.stage import Stage


class OwnCgroupMount(Operation):
    """Bind the container's cgroup where a mount of cgroup version 2 is asked for.

    In a cgroup namespace of its own that is the same as a mount of the whole, and unlike that it
    can be made before the namespace is there: the cgroup is joined last of all.
    """

    __slots__ = ("destination", "directory", "options")

    def __init__(self, destination: str, options: list[str], directory: str) -> None:
        self.destination, self.options, self.directory = destination, options, directory

    def execute(self, stage: Stage) -> None:
        stage.cgroup_fds()  # the directory is there from now on
        try:
            fd = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # an ordinary user's container may have no cgroup
            return
        try:
            mount = mounts.clone_tree(fd, recursive=False)
        finally:
            os.close(fd)
        options = MountOptions(self.options)
        shape(mount, options, options.on, options.off)
        stage.place(mount, plain_directory(stage, self.destination))

    def describe(self) -> str:
        return f"mount the cgroup on {self.destination} ({','.join(self.options)})"
