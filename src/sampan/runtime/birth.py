"""A blank whose namespaces cannot be had by one clone3: those with a user or a time namespace.

A short-lived helper process comes between. It joins what must be joined before the rights are
gone, makes or joins the user namespace and waits for its maps, makes the time namespace and sets
its clocks, which must be done before anybody lives in it, and then makes the blank as a child of
our own (CLONE_PARENT): every further namespace belongs to the user namespace then.

Imported only where a configuration asks for this.
"""

from __future__ import annotations

import _socket
import errno
import os

from sampan.kernel import fds, namespaces, process
from sampan.kernel import numbers as n
from sampan.runtime import init, mappings
from sampan.runtime.blank import Blank, reap
from sampan.runtime.failure import InvalidConfig, RuntimeFailure, reason
from sampan.runtime.plan import clone_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_MAP = b"M"  # "write my maps", and "they are written"
_BORN = b"B"
_FAILED = b"E"
_CLOCKS = ("monotonic", "boottime")
# The pid namespace is for children only; the mount namespace is joined by the container's process.
_ORDER = ("network", "ipc", "uts", "cgroup", "time", "pid")


def is_needed(new: list[str], join: list[tuple[str, str]]) -> bool:
    """Whether the namespaces are of the kind that this module is for."""
    return "user" in new or "time" in new or any(kind == "user" for kind, _ in join)


def check_offsets(linux: dict[str, Any]) -> None:
    """The rules of `linux.timeOffsets`. Raises InvalidConfig."""
    offsets = linux.get("timeOffsets") or {}
    own = {one.get("type") for one in linux.get("namespaces") or [] if not one.get("path")}
    if offsets and "time" not in own:
        raise InvalidConfig("linux.timeOffsets: needs a new time namespace")
    for clock, offset in offsets.items():
        if clock not in _CLOCKS or not isinstance(offset, dict):
            raise InvalidConfig(f"linux.timeOffsets: unknown clock {clock!r}")
        seconds, rest = offset.get("secs", 0), offset.get("nanosecs", 0)
        if type(seconds) is not int or type(rest) is not int or not 0 <= rest < 10**9:
            raise InvalidConfig(f"linux.timeOffsets.{clock}: not an offset")


class Birth:
    """What the helper is to do: kinds made new, (kind, descriptor) joined, maps and clocks; and the
    descriptor of the version 2 cgroup that it is born in, or -1."""

    __slots__ = ("cgroup", "join", "linux", "new", "score")

    def __init__(
        self,
        new: list[str],
        join: list[tuple[str, int]],
        linux: dict[str, Any],
        score: int | None = None,
        cgroup: int = -1,
    ) -> None:
        self.new, self.join, self.linux, self.score = new, join, linux, score
        self.cgroup = cgroup


def make_blank(birth: Birth) -> Blank:
    """The blank. Raises RuntimeFailure when a namespace, a map or a clock could not be had."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    here, there = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    pid, pidfd = process.clone3(0, birth.cgroup)
    if pid == 0:
        ours.close()
        here.close()
        _help(birth, there, theirs)
    theirs.close()
    there.close()
    try:
        born, child = _attend(birth, here, pid)
    except BaseException:
        ours.close()
        raise
    finally:
        here.close()
        reap(pidfd)
    return Blank([kind for kind in birth.new if kind != "cgroup"], born, child, ours)


def _attend(birth: Birth, sync: _socket.socket, helper: int) -> tuple[int, int]:
    """Write the maps when asked; (pid, pidfd) of the blank."""
    message, received = fds.receive(sync, init.MAX_MESSAGE)
    if message == _MAP:
        linux = birth.linux
        mappings.write(helper, linux.get("uidMappings") or [], linux.get("gidMappings") or [])
        fds.send(sync, _MAP)
        message, received = fds.receive(sync, init.MAX_MESSAGE)
    if message[:1] != _BORN:
        code, _, text = message[1:].partition(b" ")
        said = text.decode("utf-8", "replace") or "the helper ended"
        raise RuntimeFailure(int(code or b"0"), said, "prepare the namespaces")
    return int(message[1:]), received[0]


def _help(birth: Birth, sync: _socket.socket, blank_end: _socket.socket) -> NoReturn:
    """The helper, and out of it the blank. Does not return."""
    try:
        process.set_dumpable()
        _prepare(birth, sync)
        process.set_not_dumpable()
        kinds = [kind for kind in birth.new if kind not in ("user", "time")]
        pid, pidfd = process.clone3(clone_flags(kinds) | n.CLONE_PARENT)
        if pid == 0:
            sync.close()
            init.live_as_blank(blank_end, [])
        fds.send(sync, b"%s%d" % (_BORN, pid), [pidfd])
    except OSError as error:
        text = f"{error.errno or 0} {reason(error)}".encode("utf-8", "replace")
        sync.send(_FAILED + text[:4096])
    finally:
        os._exit(0)


def _prepare(birth: Birth, sync: _socket.socket) -> None:
    own = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if birth.score is not None:
        _write(own, "oom_score_adj", str(birth.score), tolerant=True)
    kept = dict(birth.join)
    late = _join(kept, tolerant="user" in kept)
    if "user" in kept:
        mappings.enter(kept["user"])
        _join({kind: kept[kind] for kind in late}, tolerant=False)
    if "user" in birth.new:
        namespaces.unshare(n.CLONE_NEWUSER)
        fds.send(sync, _MAP)
        if fds.receive(sync, len(_MAP))[0] != _MAP:
            raise OSError(errno.ECANCELED, "the parent gave up")
    if "time" in birth.new:
        namespaces.unshare(n.CLONE_NEWTIME)
        for clock, offset in (birth.linux.get("timeOffsets") or {}).items():
            line = f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}"
            _write(own, "timens_offsets", line)
    os.close(own)


def _join(kept: dict[str, int], *, tolerant: bool) -> list[str]:
    """Join each; the kinds that need the rights of the user namespace first, if `tolerant`."""
    late = []
    for kind in [kind for kind in _ORDER if kind in kept]:
        try:
            namespaces.setns(kept[kind], namespaces.KINDS[kind][0])
        except PermissionError:
            if not tolerant:
                raise
            late.append(kind)
    return late


def _write(own: int, name: str, text: str, *, tolerant: bool = False) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=own)
    try:
        os.write(fd, text.encode())
    except PermissionError:
        if not tolerant:  # as `rlimits.set_oom_score_adj`
            raise
    finally:
        os.close(fd)


def clone_beside(pidfd: int, flags: int, cgroup: int = -1) -> tuple[int, int]:
    """clone3 of a child of ours in the namespaces `flags` of the process behind `pidfd`, born in
    the version 2 cgroup behind `cgroup`.

    For a caller that has rights in the user namespace of that process only. (0, -1) in the child.
    """
    here, there = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    helper, helper_fd = process.clone3(0, cgroup)
    if helper == 0:
        here.close()
        try:
            namespaces.setns(pidfd, flags)
            pid, child = process.clone3(n.CLONE_PARENT)
        except OSError as error:
            there.send(_FAILED + f"{error.errno or 0} {reason(error)}".encode())
            os._exit(0)
        if pid == 0:
            there.close()
            return 0, -1
        fds.send(there, b"%s%d" % (_BORN, pid), [child])
        os._exit(0)
    there.close()
    try:
        return _attend(Birth([], [], {}), here, helper)
    finally:
        here.close()
        reap(helper_fd)
