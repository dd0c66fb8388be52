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
import os

from sampan.ids import check_container_id
from sampan.jsontext import decode, encode
from sampan.kernel import cgroups, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.kernel.cgroups import Cgroup

STATE = "state.json"
FIFO = "exec.fifo"


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

    def make(self) -> None:
        """Make the directory. Raises FileExistsError when the id is taken."""
        os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError as error:
            message = f"container with given ID already exists: {self.container_id}"
            raise FileExistsError(errno.EEXIST, message) from error

    def make_fifo(self) -> int:
        """Make the start gate; the descriptor to wait on."""
        os.mkfifo(self.fifo, 0o600)
        fd = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(fd, True)
        return fd

    def save(self, state: dict[str, Any]) -> None:
        """Write state.json, whole or not at all."""
        temporary = f"{self.path}/.{STATE}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            os.write(fd, encode(state).encode())
        finally:
            os.close(fd)
        os.rename(temporary, f"{self.path}/{STATE}")

    def load(self) -> dict[str, Any]:
        """The state. Raises NoSuchContainer."""
        try:
            with open(f"{self.path}/{STATE}", "rb") as file:
                state: dict[str, Any] = decode(file.read())
        except FileNotFoundError:
            if os.path.isdir(self.path):  # killed before anything was written
                return {"v": 1, "id": self.container_id, "pid": 0, "bundle": "", "cgroup": ""}
            raise NoSuchContainer(f"container does not exist: {self.container_id}") from None
        return state

    def remove(self) -> None:
        """Remove the directory and its files."""
        for name in os.listdir(self.path):
            os.unlink(f"{self.path}/{name}")
        os.rmdir(self.path)


def status_of(directory: StateDirectory, state: dict[str, Any]) -> str:
    """creating, created, running, paused or stopped."""
    pid = state.get("pid", 0)
    if not pid or not process.is_alive(pid, state["start_time"]):
        return "stopped"
    if os.path.exists(directory.fifo):
        return "created"
    group = cgroup_of(state)
    return "paused" if group is not None and group.is_frozen() else "running"


def cgroup_of(state: dict[str, Any]) -> Cgroup | None:
    """The container's cgroup, if one was recorded."""
    return cgroups.recorded(state) if state.get("cgroup") else None


def all_ids(root: str) -> list[str]:
    """The ids below `root`, sorted."""
    try:
        return sorted(name for name in os.listdir(root) if os.path.isdir(f"{root}/{name}"))
    except FileNotFoundError:
        return []
