"""A container in the mount namespace of its caller: its configuration names none.

Everything that it has mounted is then on one mount, a bind of the root file system on itself, among
the caller's own. What is made of it stays below that: no other mount of the caller is touched, and
its propagation neither, where runc makes every mount of the host a slave. The root is entered by
chroot(2), which holds nobody who has CAP_SYS_CHROOT: that is what such a configuration asks for.
Masked and read-only paths would promise more, and are refused, as under runc.

The mount is known by its number, which is in the state before the mount is anywhere: a delete takes
away this one, with what is on it, where runc leaves it to the caller.
"""

from __future__ import annotations

import os

from sampan.kernel import mounts
from sampan.runtime import rootfs
from sampan.runtime.failure import InvalidConfig, RuntimeFailure
from sampan.runtime.operations import Operation
from sampan.runtime.stage import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COVERS = ("maskedPaths", "readonlyPaths")


def check(spec: dict[str, Any]) -> None:
    """Raises InvalidConfig for what needs a mount namespace of the container's own."""
    linux = spec.get("linux") or {}
    kinds = {one["type"] for one in linux.get("namespaces") or []}
    field = "linux.namespaces: a mount namespace is needed"
    if os.geteuid() != 0:
        raise InvalidConfig(f"{field}: only root may mount in the one of the caller")
    if "user" in kinds:
        raise InvalidConfig(f"{field}: the root of a user namespace may not mount in another's")
    for name in _COVERS:
        if linux.get(name):
            raise InvalidConfig(
                f"linux.{name}: unable to restrict sys entries without a private MNT namespace"
            )


def refuse(state: dict[str, Any], what: str) -> None:
    """Raises RuntimeFailure for a container whose mounts are among the caller's."""
    if state.get("root_mount"):
        raise RuntimeFailure(0, f"cannot {what} a container in the mount namespace of its caller")


class ChangeRoot(Operation):
    """Make the root `/` for this process alone."""

    __slots__ = ()

    def execute(self, stage: Stage) -> None:
        os.fchdir(stage.rootfs)
        os.chroot(".")
        os.chdir("/")

    def describe(self) -> str:
        return "change the root to the root file system, in the mount namespace of the caller"


class RootMount:
    """The mount that a container will have its mounts on: `fd`, and its `record` for the state."""

    __slots__ = ("fd", "record")

    def __init__(self, path: str) -> None:
        real = os.path.realpath(path)
        if real == "/":
            said = "without a mount namespace it cannot be the root of the caller"
            raise InvalidConfig(f"root.path: {said}")
        self.fd = rootfs.bind(real)
        self.record = {"path": real, "id": mounts.number(self.fd)}


def remove(record: dict[str, Any]) -> None:
    """Take the mount of `record` away, with what is on it.

    It may be gone. One that somebody has mounted over, as by a second container of the same root,
    cannot be reached, and stays.
    """
    try:
        fd = os.open(record["path"], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if mounts.number(fd) == record["id"]:
            mounts.unmount(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
