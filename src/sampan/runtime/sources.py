"""The sources of bind mounts, cloned by the parent: its mounts are the host's own."""

from __future__ import annotations

import errno
import os

from sampan.kernel import mounts
from sampan.kernel import numbers as n
from sampan.kernel.paths import openat2
from sampan.runtime import rootfs
from sampan.runtime.failure import RuntimeFailure, reason
from sampan.runtime.plan import is_idmapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BELOW = n.RESOLVE_BENEATH | n.RESOLVE_NO_SYMLINKS | n.RESOLVE_NO_MAGICLINKS


def clone(mount: dict[str, Any], linux: dict[str, Any]) -> int:
    """A detached clone of a bind mount's source, made where the caller's mounts are.

    Three members are the engine's own: `tree` is the file system of an image to take in place of
    the source, `subpath` a path below the source, on which no link is followed, and `inside` the
    mount namespace of another container in which the source is.
    """
    options = mount.get("options") or []
    try:
        if mount.get("tree"):
            return rootfs.mount(mount["tree"])
        if mount.get("inside"):
            from sampan.runtime import foreign

            return foreign.clone(mount["inside"], mount["source"])
        source = os.open(mount.get("source") or "", os.O_PATH | os.O_CLOEXEC)
        try:
            if mount.get("subpath"):
                below = openat2(source, mount["subpath"], os.O_PATH, 0, _BELOW)
                os.close(source)
                source = below
            cloned = mounts.clone_tree(source, recursive="rbind" in options)
        finally:
            os.close(source)
        if is_idmapped(mount):
            _map_ids(cloned, mount, linux)
        return cloned
    except OSError as error:
        where = f"bind mount of {mount.get('source')} on {mount['destination']}"
        raise RuntimeFailure(error.errno or 0, reason(error), where) from error


def check_may_bind_inside(mount: dict[str, Any]) -> None:
    """Raises RuntimeFailure when only a caller with rights over the host could make the mount."""
    if is_idmapped(mount):
        where = f"bind mount of {mount.get('source')} on {mount['destination']}"
        raise RuntimeFailure(errno.EPERM, "only root may map the ids of files", where)


def _map_ids(cloned: int, mount: dict[str, Any], linux: dict[str, Any]) -> None:
    from sampan.runtime import idmaps

    try:
        idmaps.apply(cloned, mount, linux)
    except BaseException:
        os.close(cloned)
        raise
