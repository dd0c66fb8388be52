"""An ordinary user's daemon: root of a user namespace of its own, before anything else is done.

The user is root inside, and the ids that /etc/subuid and /etc/subgid give are the others. Mounts
are made in a mount namespace of the daemon's own, in which the machine's later mounts still appear.
The network is the machine's, so there are no bridges; and where no cgroup can be made there are no
limits, which the runtime refuses by name.

Without ids in those files, or without newuidmap, there is only root inside; images with files of
others are refused then.
"""

from __future__ import annotations

import os
import pwd

from sampan.errors import FailedPrecondition
from sampan.kernel import mounts, namespaces
from sampan.kernel import numbers as n
from sampan.runtime import mappings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.mappings import Mappings

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"
_HELPERS = ("newuidmap", "newgidmap")


def enter() -> int:
    """Become root of a new user namespace, when we are not root; the user that we were.

    Call it before there is a second thread.

    Raises:
        FailedPrecondition: the machine does not let us.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        return user
    uids, gids = _mapped(user, SUBUID, user), _mapped(user, SUBGID, group)
    if len(uids) == 1 or len(gids) == 1 or not all(map(mappings.find_helper, _HELPERS)):
        uids, gids = uids[:1], gids[:1]
    writer, go = _writer(os.getpid(), uids, gids)
    try:
        namespaces.unshare(n.CLONE_NEWUSER | n.CLONE_NEWNS)
        os.write(go, b"1")
    except OSError as error:
        raise FailedPrecondition(
            f"become root of a user namespace: {error.strerror}: let users make them "
            "(user.max_user_namespaces, kernel.unprivileged_userns_clone), or run as root"
        ) from error
    finally:
        os.close(go)
        said, status = _ended(*writer)
    if status:
        raise FailedPrecondition(f"become root of a user namespace: {said}")
    mappings.become_root()
    mounts.set_propagation("/", n.MS_SLAVE | n.MS_REC)
    return user


def _mapped(user: int, path: str, own: int) -> Mappings:
    """`own` as 0, and behind it what `path` gives to `user`, by its number or name."""
    found = [{"containerID": 0, "hostID": own, "size": 1}]
    names = {str(user), _name(user)}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip().split(":") for line in file]
    except OSError:
        return found
    following = 1
    for words in lines:
        if len(words) == 3 and words[0] in names and words[1].isdigit() and words[2].isdigit():
            start, size = int(words[1]), int(words[2])
            found.append({"containerID": following, "hostID": start, "size": size})
            following += size
    return found


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _writer(pid: int, uids: Mappings, gids: Mappings) -> tuple[tuple[int, int], int]:
    """A process outside of the namespace that writes the maps of `pid` when told to.

    Itself and the pipe of what it says, and the pipe that tells it.
    """
    waiting, go = os.pipe()
    reader, say = os.pipe()
    child = os.fork()
    if child:
        os.close(waiting)
        os.close(say)
        return (child, reader), go
    status = 1
    try:
        os.close(go)
        if os.read(waiting, 1):
            mappings.write(pid, uids, gids)
        status = 0
    except OSError as error:  # RuntimeFailure is one
        os.write(say, str(error).encode())
    finally:
        os._exit(status)


def _ended(child: int, reader: int) -> tuple[str, int]:
    """What the writer said, and its status."""
    said = os.read(reader, 4096).decode("utf-8", "replace")
    os.close(reader)
    _, status = os.waitpid(child, 0)
    return said, status
