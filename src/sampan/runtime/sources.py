"""The sources of bind mounts, cloned by the parent: its mounts are the host's own."""

from __future__ import annotations

import errno
import os

from sampan.kernel import fds, mounts
from sampan.kernel import numbers as n
from sampan.kernel.paths import openat2
from sampan.runtime import rootfs
from sampan.runtime.failure import RuntimeFailure, reason
from sampan.runtime.plan import is_bind, is_idmapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

_BELOW = n.RESOLVE_BENEATH | n.RESOLVE_NO_SYMLINKS | n.RESOLVE_NO_MAGICLINKS


class Sources:
    """The bind mounts of a configuration: their sources for a child that asks for one by one.

    The kernel numbers mounts as they are made, and /proc/self/mountinfo has that order (since Linux
    6.8): so each is cloned when its turn has come. What lies below the root file system, at
    `root_path`, is then what the mounts before it have made of that.
    """

    __slots__ = ("_below", "_linux", "_mounts")

    def __init__(self, spec: dict[str, Any], linux: dict[str, Any], root_path: str) -> None:
        self._linux, self._below = linux, f"{root_path}/"
        self._mounts = [mount for mount in spec.get("mounts") or [] if is_bind(mount)]

    def all(self, owned: list[int]) -> list[int]:
        """A clone of each, which are added to `owned` as well. Raises RuntimeFailure."""
        found: list[int] = []
        for mount in self._mounts:
            found.append(clone(mount, self._linux))
            owned.append(found[-1])
        return found

    def answer(self, sync: _socket.socket, question: bytes, pid: int) -> None:
        """Send the one that the child `pid` asks for. Raises RuntimeFailure."""
        mount = self._mounts[int(question[1:])]
        if (mount.get("source") or "").startswith(self._below):
            mount = {**mount, "inside": f"/proc/{pid}/ns/mnt"}
        cloned = clone(mount, self._linux)
        try:
            fds.send(sync, question, [cloned])
        except BrokenPipeError:
            pass  # the child has failed, and its report is next
        finally:
            os.close(cloned)

    def check_inside(self) -> None:
        """Raises RuntimeFailure when only a caller with rights over the host could make one."""
        for mount in self._mounts:
            if is_idmapped(mount):
                where = f"bind mount of {mount.get('source')} on {mount['destination']}"
                raise RuntimeFailure(errno.EPERM, "only root may map the ids of files", where)


def clone(mount: dict[str, Any], linux: dict[str, Any]) -> int:
    """A detached clone of a bind mount's source, made where the caller's mounts are.

    Three members are the engine's own: `tree` is the file system of an image to take in place of
    the source, `subpath` a path below the source, on which no link is followed (in an image, none
    that leads out of it), and `inside` the mount namespace of another container in which the source
    is.
    """
    options = mount.get("options") or []
    try:
        if mount.get("tree"):
            return _image(mount)
        if mount.get("inside"):
            from sampan.runtime import foreign

            cloned = foreign.clone(mount["inside"], mount["source"], recursive="rbind" in options)
            return _mapped(cloned, mount, linux)
        source = os.open(mount.get("source") or "", os.O_PATH | os.O_CLOEXEC)
        try:
            if mount.get("subpath"):
                below = openat2(source, mount["subpath"], os.O_PATH, 0, _BELOW)
                os.close(source)
                source = below
            cloned = mounts.clone_tree(source, recursive="rbind" in options)
        finally:
            os.close(source)
        return _mapped(cloned, mount, linux)
    except OSError as error:
        where = f"bind mount of {mount.get('source')} on {mount['destination']}"
        raise RuntimeFailure(error.errno or 0, reason(error), where) from error


def _image(mount: dict[str, Any]) -> int:
    """The file system of an image, or what is at a path in it."""
    tree = rootfs.mount(mount["tree"])
    if not mount.get("subpath"):
        return tree
    from sampan.runtime import foreign

    try:
        return foreign.part(tree, mount["subpath"])
    finally:
        os.close(tree)


def _mapped(cloned: int, mount: dict[str, Any], linux: dict[str, Any]) -> int:
    if is_idmapped(mount):
        from sampan.runtime import idmaps

        try:
            idmaps.apply(cloned, mount, linux)
        except BaseException:
            os.close(cloned)
            raise
    return cloned
