"""The first process of a machine: it makes the system usable, and serves the node's calls.

Each port of the serial line carries one conversation (`conversation.py`). One thread: while the
runtime makes something, everything else waits for it.
"""

from __future__ import annotations

import os
import select

from sampan.kernel import mounts, process
from sampan.kernel.modules import load_module
from sampan.kernel.signals import signal_fd
from sampan.vm.conversation import CONTAINERS, SHARE, Conversation

PORTS = "/sys/class/virtio-ports"
_IN = select.EPOLLIN
_PORT = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def main() -> NoReturn:
    """Never ends: a machine is switched off from outside."""
    try:
        prepare()
        Agent().run()
    except BaseException as error:
        print(f"sampan: {type(error).__name__}: {error}", flush=True)  # noqa: T201 - the console
        raise
    os._exit(1)


def prepare() -> None:
    """Modules, and the file systems that every Linux has."""
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    _leave_first_root()
    _mount("devtmpfs", "/dev")
    _mount("proc", "/proc")
    _mount("sysfs", "/sys")
    for name in sorted(os.listdir("/modules")):
        load_module(f"/modules/{name}")
    _mount("tmpfs", "/run", ("mode", "755"))
    _mount("tmpfs", "/tmp", ("mode", "1777"))
    _mount("devpts", "/dev/pts", ("ptmxmode", "666"))
    _mount("cgroup2", "/sys/fs/cgroup")
    options = (("trans", "virtio"), ("version", "9p2000.L"), ("msize", "262144"))
    _mount("9p", SHARE, *options, source="share")
    os.mkdir(CONTAINERS)


def _leave_first_root() -> None:
    """Stand on a bind mount of the first root: that itself cannot be pivoted away from."""
    os.mkdir("/newroot", 0o755)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    place = os.open("/newroot", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    copy = mounts.clone_tree(root, recursive=False)
    mounts.move_mount(copy, place)
    for fd in (root, place, copy):
        os.close(fd)
    os.chdir("/newroot")
    mounts.move_to_root()
    os.chroot(".")
    os.chdir("/")


def _mount(kind: str, target: str, *options: tuple[str, str | None], source: str = "") -> None:
    os.makedirs(target, exist_ok=True)
    made = mounts.new_mount(kind, options, source=source)
    place = os.open(target, os.O_PATH | os.O_CLOEXEC)
    mounts.move_mount(made, place)
    os.close(place)
    os.close(made)


class Agent:
    """The loop, and the conversations."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}

    def run(self) -> NoReturn:
        """Serve."""
        children = signal_fd(process.SIGCHLD)
        self.watch(children, lambda _: self._reap(children))
        for name in sorted(os.listdir(PORTS)):
            fd = os.open(f"/dev/{name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            talk = Conversation(self, fd)
            self.watch(fd, talk.ready, _PORT)
        while True:
            for fd, events in self._epoll.poll():
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(events)

    def watch(self, fd: int, handler: Callable[[int], None], events: int = _IN) -> None:
        """Call `handler` whenever the descriptor is ready."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """No more of it."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def want(self, fd: int, *, out: bool, into: bool) -> None:
        """What a descriptor that is watched is looked at for."""
        if fd in self._handlers:
            self._epoll.modify(fd, (select.EPOLLOUT if out else 0) | (_IN if into else 0))

    def _reap(self, signals: int) -> None:
        """Take what was orphaned; what has a conversation is taken by its pidfd."""
        try:
            os.read(signals, 1024)
        except BlockingIOError:
            pass
        kept = {talk.pid for talk in Conversation.everyone if talk.pid}
        for name in os.listdir("/proc"):
            if name.isdecimal() and int(name) not in kept and _is_zombie(name):
                try:
                    os.waitpid(int(name), os.WNOHANG)
                except ChildProcessError:
                    continue


def _is_zombie(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            words = file.read().rpartition(")")[2].split()
    except OSError:
        return False
    return words[:2] == ["Z", "1"]
