"""What a daemon shows to the world: its socket, its pid file, and systemd's notification.

The socket is made under another name with the right mode and owner and renamed into place, so that
nobody ever meets it with other rights, and a stale one of an earlier daemon is replaced at once.
The caller holds the root's lock by then; whoever still listens under the name belongs to another
root, and is not replaced.
"""

from __future__ import annotations

import grp
import os
import socket
import stat

from sampan.errors import Conflict, InvalidArgument

BACKLOG = 512
DEFAULT_GROUP = "sampan"


def listen(path: str, group: str = "") -> socket.socket:
    """A listening stream socket at `path`, mode 0660, of the group `group` where it exists.

    Raises:
        Conflict: somebody listens there, or something that is no socket is there.
        InvalidArgument: the group does not exist, or the socket cannot be made.
    """
    refuse_living(path)
    gid = group_id(group)
    fresh = path + ".new"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        remove(fresh)
        mask = os.umask(0o177)
        try:
            listener.bind(fresh)
        finally:
            os.umask(mask)
        if gid is not None:
            os.chown(fresh, -1, gid)
        os.chmod(fresh, 0o660)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        os.rename(fresh, path)
    except OSError as error:
        listener.close()
        raise InvalidArgument(f"listen on {path}: {error.strerror or error}") from error
    return listener


def refuse_living(path: str) -> None:
    """Raise Conflict when `path` is a socket that somebody listens on, or no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Conflict(f"listen on {path}: it exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return  # refused: it is stale
    raise Conflict(f"listen on {path}: another process listens there")


def group_id(name: str) -> int | None:
    """The id of the group that may use the socket; None leaves the daemon's own.

    Raises:
        InvalidArgument: a group was named and does not exist.
    """
    try:
        return grp.getgrnam(name or DEFAULT_GROUP).gr_gid
    except KeyError:
        if name:
            raise InvalidArgument(f"group {name!r} does not exist") from None
        return None


def remove(path: str) -> None:
    """Take a name away; it may be gone already."""
    try:
        os.unlink(path)
    except OSError:
        return


def write_pid(path: str) -> None:
    """Write our pid, atomically."""
    fresh = path + ".new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(fd, f"{os.getpid()}\n".encode())
    finally:
        os.close(fd)
    os.rename(fresh, path)


def notify(state: str, address: str | None) -> None:
    """Tell systemd our state (`READY=1`), where it listens; a failure to is nobody's concern."""
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto(state.encode(), target)
        except OSError:
            return
