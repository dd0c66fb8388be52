"""The directory of a container of `sampan-oci`: `ROOT/ID`, its files, and its status.

    creating --> created --> running <--> paused
        \\           \\          |           |
         `-----------`--------> stopped <---'

`state.json` is written before anything else is made, and again when the process exists; each time
as a whole (rename). `exec.fifo` is there from create to start. The status is not stored: it follows
from the process, the FIFO and the freezer, so it is true even after a crash.
"""

from __future__ import annotations

import errno
import posix

from sampan.ids import check_container_id
from sampan.jsontext import decode, encode
from sampan.kernel.identity import is_alive
from sampan.runtime import recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup

STATE = "state.json"
FIFO = "exec.fifo"
STARTED = "started"  # made by the short way, which cannot unlink the gate
QUICK = "quick"
FILTER = "seccomp.bpf"
_NEW_FILE = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC
_KIND, _DIRECTORY = 0o170000, 0o040000  # of st_mode; the module stat is one more to load


class NoSuchContainer(LookupError):
    """The container does not exist."""


class StateDirectory:
    """The directory of one container."""

    __slots__ = ("container_id", "path")

    def __init__(self, root: str, container_id: str) -> None:
        self.container_id = check_container_id(container_id)
        self.path = f"{root}/{container_id}"

    @property
    def fifo(self) -> str:
        """The start gate of a created container."""
        return f"{self.path}/{FIFO}"

    def has_fifo(self) -> bool:
        """Whether the start gate is there and closed: the container was not started yet."""
        return exists(self.fifo) and not exists(f"{self.path}/{STARTED}")

    def make(self) -> None:
        """Make the directory. Raises FileExistsError when the id is taken."""
        try:
            self._make()
        except FileExistsError as error:
            message = f"container with given ID already exists: {self.container_id}"
            raise FileExistsError(errno.EEXIST, message) from error

    def _make(self) -> None:
        try:
            posix.mkdir(self.path, 0o700)
        except FileNotFoundError:
            import os

            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            posix.mkdir(self.path, 0o700)

    def make_fifo(self) -> int:
        """Make the start gate; the descriptor to wait on."""
        posix.mkfifo(self.fifo, 0o600)
        fd = posix.open(self.fifo, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
        posix.set_blocking(fd, True)
        return fd

    def save(self, state: dict[str, Any]) -> None:
        """Write state.json, whole or not at all."""
        temporary = f"{self.path}/.{STATE}"
        fd = posix.open(temporary, _NEW_FILE, 0o600)
        try:
            posix.write(fd, encode(state).encode())
        finally:
            posix.close(fd)
        posix.rename(temporary, f"{self.path}/{STATE}")

    def load(self) -> dict[str, Any]:
        """The state. Raises NoSuchContainer."""
        try:
            with open(f"{self.path}/{STATE}", "rb") as file:
                state: dict[str, Any] = decode(file.read())
        except FileNotFoundError:
            if is_directory(self.path):  # killed before anything was written
                return {"v": 1, "id": self.container_id, "pid": 0, "bundle": "", "cgroup": ""}
            raise NoSuchContainer(f"container does not exist: {self.container_id}") from None
        return state

    def save_filter(self, program: bytes, flags: int) -> None:
        """Keep the compiled seccomp filter: compiling it costs an exec more than all the rest."""
        fd = posix.open(f"{self.path}/{FILTER}", _NEW_FILE, 0o600)
        try:
            posix.write(fd, flags.to_bytes(4, "little") + program)
        finally:
            posix.close(fd)

    def load_filter(self) -> tuple[bytes, int] | None:
        """(program, flags) of the container's compiled filter; None where there is no such file."""
        try:
            with open(f"{self.path}/{FILTER}", "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return None
        return content[4:], int.from_bytes(content[:4], "little")

    def save_quick(self, text: str) -> None:
        """Write what the short way of the small verbs reads, whole or not at all."""
        temporary = f"{self.path}/.{QUICK}"
        fd = posix.open(temporary, _NEW_FILE, 0o600)
        try:
            posix.write(fd, text.encode("utf-8", "surrogateescape"))
        finally:
            posix.close(fd)
        posix.rename(temporary, f"{self.path}/{QUICK}")

    def remove(self) -> None:
        """Remove the directory and its files."""
        for name in posix.listdir(self.path):
            posix.unlink(f"{self.path}/{name}")
        posix.rmdir(self.path)


def status_of(directory: StateDirectory, state: dict[str, Any]) -> str:
    """creating, created, running, paused or stopped."""
    pid = state.get("pid", 0)
    if not pid or not is_alive(pid, state["start_time"]):
        return "stopped"
    if directory.has_fifo():
        return "created"
    return "paused" if is_frozen(state) else "running"


def is_frozen(state: dict[str, Any]) -> bool:
    """Whether the container's processes are stopped by the freezer."""
    if recorded.is_known(state):
        return recorded.is_frozen(state)
    group = cgroup_of(state)
    return group is not None and group.is_frozen()


def cgroup_of(state: dict[str, Any]) -> Cgroup | None:
    """The container's cgroup, if one was recorded."""
    if not state.get("cgroup"):
        return None
    from sampan.kernel import cgroups

    return cgroups.recorded(state)


def remove_mounts(state: dict[str, Any]) -> None:
    """Take away what a container in the mount namespace of its caller has mounted there."""
    if state.get("root_mount"):
        from sampan.runtime import sharedmounts

        sharedmounts.remove(state["root_mount"])


def all_ids(root: str) -> list[str]:
    """The ids below `root`, sorted."""
    try:
        return sorted(name for name in posix.listdir(root) if is_directory(f"{root}/{name}"))
    except FileNotFoundError:
        return []


def exists(path: str) -> bool:
    """Whether there is something at `path`."""
    try:
        posix.stat(path)
    except FileNotFoundError:
        return False
    return True


def is_directory(path: str) -> bool:
    """Whether `path` is a directory."""
    try:
        return posix.stat(path).st_mode & _KIND == _DIRECTORY
    except OSError:
        return False
