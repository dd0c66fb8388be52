"""A root file system for a user namespace, without a chown: layers shown with other ids.

Each layer is mounted a second time, idmapped (mount_setattr(2)): what 0 owns on the disk belongs to
the namespace's root in the container, and what the container writes is on the disk as 0's again. So
all containers share the layers whatever their namespaces are, and what one wrote can be committed
or copied like any other's.

overlayfs takes paths and acts as whoever mounted it. So a child does it: in a mount namespace of
its own the mapped layers cover the plain ones under the same paths, and it makes files as the
container's root, for 0 has no number in such a mount. Needs Linux 5.19 for overlays, 5.12 for one
directory, and a file system below that takes part (ext4, xfs, btrfs; tmpfs since 6.3).

Imported only where a word has ids.
"""

from __future__ import annotations

import _socket
import errno
import os

from sampan.kernel import capabilities, fds, mounts, process
from sampan.kernel import numbers as n
from sampan.runtime import mappings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Overlay = Callable[[dict[str, Any]], int]

_MAX_MESSAGE = 4096


def mount(word: dict[str, Any], overlay: Overlay) -> int:
    """The descriptor of the detached mount of `word`, which has `ids`; `overlay` mounts one.

    Raises OSError: EINVAL where the kernel or a file system cannot do that.
    """
    uids, gids = word["ids"]["uids"], word["ids"]["gids"]
    space = mappings.namespace_of(uids, gids)
    try:
        if word["type"] == "bind":
            return _mapped(word["source"], space, recursive=True)
        return _in_child(word, overlay, space, (_root_of(uids), _root_of(gids)))
    finally:
        os.close(space)


def _root_of(entries: mappings.Mappings) -> int:
    """The host's id of the namespace's 0, or of its first id."""
    first = min(entries, key=lambda entry: entry.get("containerID", 0))
    return first.get("hostID", 0)


def _mapped(source: str, space: int, *, recursive: bool) -> int:
    """A detached idmapped mount of the directory `source`."""
    fd = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount = mounts.clone_tree(fd, recursive=recursive)
    finally:
        os.close(fd)
    try:
        mounts.map_ids(mount, space, recursive=recursive)
    except OSError as error:
        os.close(mount)
        reason = "its file system or this kernel cannot show it with other ids"
        raise OSError(error.errno, f"idmapped mount of {source}: {reason}") from error
    return mount


def _in_child(word: dict[str, Any], overlay: Overlay, space: int, root: tuple[int, int]) -> int:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    pid, pidfd = process.clone3(n.CLONE_NEWNS)
    if pid == 0:
        _mount_and_send(theirs, word, overlay, space, root)
    theirs.close()
    try:
        message, received = fds.receive(ours, _MAX_MESSAGE)
    finally:
        ours.close()
        process.forget(pidfd)
    if not received:
        code, _, text = message.decode("utf-8", "replace").partition(" ")
        raise OSError(int(code or errno.EIO), text or "mount overlay with mapped ids: child died")
    return received[0]


def _mount_and_send(
    sock: _socket.socket,
    word: dict[str, Any],
    overlay: Overlay,
    space: int,
    root: tuple[int, int],
) -> None:
    """In the child, which never returns."""
    try:
        mounts.set_propagation("/", n.MS_REC | n.MS_PRIVATE)
        # The writable layer and its work directory must be of one mount: that of their parent.
        for path in {*word["lowers"], *filter(None, [os.path.dirname(word.get("upper") or "")])}:
            _cover(path, space)
        _make_files_as(*root)
        fds.send(sock, b"0", [overlay(word)])
    except OSError as error:
        fds.send(sock, f"{error.errno or 0} {error.strerror}".encode()[:_MAX_MESSAGE])
    finally:
        os._exit(0)


def _cover(path: str, space: int) -> None:
    mount = _mapped(path, space, recursive=False)
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.move_mount(mount, fd)
    os.close(fd)
    os.close(mount)


def _make_files_as(uid: int, gid: int) -> None:
    """Own what we make from here on as these ids, with the rights that we had."""
    rights = capabilities.get()
    process.set_file_ids(uid, gid)
    capabilities.set_sets(*rights)  # the change of the user took those about files away
