"""Operations that `sampan-oci` alone uses: a session keyring, and a root without pivot_root."""

from __future__ import annotations

import errno
import os

from sampan.kernel import keyrings, mounts
from sampan.kernel.cgroups.hierarchy import unescape
from sampan.runtime.operations import Operation
from sampan.runtime.stage import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.arguments import Parsed

_WHOLE = frozenset({"proc", "sysfs"})


def keyring(container_id: str, options: Parsed) -> str:
    """The name of the container's session keyring, as runc has it; "" with --no-new-keyring."""
    return "" if options.on("no-new-keyring") else f"_ses.{container_id}"


class SessionKeyring(Operation):
    """A session keyring of the container's own, the same one for each of its processes."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def execute(self, stage: Stage) -> None:
        keyrings.join_session(self.name)

    def describe(self) -> str:
        return f"join the session keyring {self.name}"


class MoveRoot(Operation):
    """Make the root `/` by moving it there (`--no-pivot`), for hosts that run from a ramdisk.

    The host's tree stays below, out of reach of paths. A complete proc or sysfs in it would let a
    user namespace mount another one without our covers, so those are taken away first.
    """

    __slots__ = ()

    def execute(self, stage: Stage) -> None:
        inside = os.readlink(f"/proc/self/fd/{stage.rootfs}")
        for point in _whole_mounts():
            if point != inside and not point.startswith(f"{inside}/"):
                _take_away(point)
        os.fchdir(stage.rootfs)
        mounts.move_to_root()
        os.chroot(".")
        os.chdir("/")

    def describe(self) -> str:
        return "move the root file system to / without pivot_root"


def _whole_mounts() -> list[str]:
    """Where proc and sysfs are mounted, the deepest first."""
    points = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            before, _, after = line.partition(" - ")
            if after.split(" ", 1)[0] in _WHOLE:
                points.append(unescape(before.split(" ")[4]))
    return sorted(points, key=len, reverse=True)


def _take_away(point: str) -> None:
    try:
        mounts.unmount(point)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        target = os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        cover = mounts.new_mount("tmpfs", [])
        try:
            mounts.move_mount(cover, target)
        finally:
            os.close(cover)
            os.close(target)
