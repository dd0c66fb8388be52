"""A mount of another container, to be shared with a new one: its /dev/shm; what is mounted in one
that is just being made, to be mounted elsewhere in it; and a part of an image.

A mount namespace's mounts can be cloned by its inhabitants only. So a short-lived child enters it,
clones what is at the path and sends the descriptor. The path is resolved inside of the other
container's root, so what that one plants there leads to its own files at most. A mount that was
attached nowhere has no part that could be cloned (before Linux 6.15), so it is attached in a mount
namespace of the child's own.

Imported by the spawner ahead of time: it is closed to imports when it is needed.
"""

from __future__ import annotations

import _socket
import errno
import os

from sampan.kernel import fds, mounts, namespaces, process
from sampan.kernel import numbers as n
from sampan.kernel.paths import Root
from sampan.runtime.failure import reason

_MAX_MESSAGE = 4096

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def clone(namespace: str, path: str, *, recursive: bool = False) -> int:
    """A detached clone of the mount at `path` in the mount namespace at the path `namespace`, with
    those below it if `recursive`.

    Raises OSError: the container is gone, or nothing is at the path.
    """
    entered = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)

    def work() -> int:
        namespaces.setns(entered, n.CLONE_NEWNS)
        root = Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return mounts.clone_tree(root.open_path(path), recursive=recursive)

    try:
        return _from_child(work)
    finally:
        os.close(entered)


def part(tree: int, path: str) -> int:
    """A detached clone of what is at `path` in the detached mount `tree`; links lead inside of it.

    Raises OSError: nothing is at the path.
    """

    def work() -> int:
        namespaces.unshare(n.CLONE_NEWNS)
        mounts.set_propagation("/", n.MS_REC | n.MS_PRIVATE)
        mounts.move_mount(tree, os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return mounts.clone_tree(Root(tree).open_path(path), recursive=False)

    return _from_child(work)


def _from_child(work: Callable[[], int]) -> int:
    """The descriptor that `work` returns in a child, which may go where we must not."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        pid, pidfd = process.clone3(0)
        if pid == 0:
            _send(theirs, work)
        theirs.close()
        message, received = fds.receive(ours, _MAX_MESSAGE)
        process.forget(pidfd)
    finally:
        ours.close()
        theirs.close()
    if not received:
        code, _, text = message.decode("utf-8", "replace").partition(" ")
        raise OSError(int(code or errno.EIO), text or "the child died")
    return received[0]


def _send(sock: _socket.socket, work: Callable[[], int]) -> None:
    """In the child, which never returns."""
    try:
        fds.send(sock, b"0", [work()])
    except OSError as error:
        fds.send(sock, f"{error.errno or 0} {reason(error)}".encode()[:_MAX_MESSAGE])
    finally:
        os._exit(0)
