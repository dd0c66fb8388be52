"""File systems behind volumes: mounted on the volume's directory while somebody uses it.

The mount is made detached, from words that were checked when the volume was made, and then moved
onto the directory of ours; it lies in the mount namespace of the engine, which is the host's. It
outlives the engine as the containers do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.errors import FailedPrecondition
from sampan.kernel import mounts
from sampan.runtime.mountoptions import MountOptions

if TYPE_CHECKING:
    from sampan.volumes.options import Backing


def mount(backing: Backing, path: str) -> None:
    """Mount what is behind the volume whose data directory is `path`, unless it is mounted.

    Raises:
        FailedPrecondition: the kernel refuses it.
    """
    if is_mounted(path):
        return
    options = MountOptions([*backing.flags, *backing.data])
    try:
        made = mounts.new_mount(
            backing.kind, options.data, source=backing.device, attributes=options.on
        )
        try:
            target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                mounts.move_mount(made, target)
            finally:
                os.close(target)
        finally:
            os.close(made)
    except OSError as error:
        raise FailedPrecondition(f"mount volume {path}: {error}") from error


def unmount(path: str) -> None:
    """Take the mount away; containers that still see it keep it."""
    if is_mounted(path):
        mounts.unmount(path)


def is_mounted(path: str) -> bool:
    """Whether something is mounted on the directory."""
    try:
        above = os.stat(os.path.dirname(path), follow_symlinks=False)
        return os.stat(path, follow_symlinks=False).st_dev != above.st_dev
    except FileNotFoundError:
        return False
