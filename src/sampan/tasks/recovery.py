"""What shims leave on the disk, read by an engine that was away, and the burial of dead ones.

A shim's directory is the licence of its launch: the engine makes it, the shim refuses to begin
without it. So a directory without a socket and without records is a launch that came to nothing,
and removing it stops a shim that was only about to begin.

    state.json  who runs      exit.json or exit  how it ended      shim.sock  where a shim listens
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.kernel import cgroups
from sampan.kernel.identity import is_alive
from sampan.shim.exits import EXIT, KEPT_EXIT, STATE, parse_kept, write_record
from sampan.store import trees

if TYPE_CHECKING:
    from collections.abc import Mapping

LOST_CODE = 137
LOST = "the monitor of the container died"

_CLEARINGS = 100
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a container ended. `lost`: nobody saw it, its monitor had died."""

    code: int
    signal: int
    oom: bool
    time: int
    pid: int
    lost: bool = False

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ExitRecord:
        """From the record on disk, or from the event, which has the same fields."""
        return cls(
            code=int(content["code"]),
            signal=int(content["signal"]),
            oom=bool(content["oom"]),
            time=int(content["time"]),
            pid=int(content["pid"]),
            lost=bool(content.get("lost")),
        )


def make(directory: str) -> None:
    """Make the directory for a launch, clean."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        clear(directory)
        os.mkdir(directory, 0o700)


def clear(directory: str) -> None:
    """Remove the directory of a shim with all that is in it. Fine when it is gone already.

    A shim may still be about to end, and write a last record meanwhile: that is removed as well.

    Raises:
        OSError: it cannot be removed.
    """
    for _ in range(_CLEARINGS):
        try:
            for name in os.listdir(directory):
                _remove(directory, name)
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        else:
            return
    raise OSError(errno.ENOTEMPTY, "somebody goes on writing there", directory)


def revoke(directory: str) -> bool:
    """Take a launch's licence back; False when the launch has begun to use it."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def read_exit(directory: str) -> ExitRecord | None:
    """How the container ended, None when no whole record is there."""
    content = _read(f"{directory}/{EXIT}")
    try:
        if content is None:
            with open(f"{directory}/{KEPT_EXIT}", "rb") as file:
                content = parse_kept(file.read(1 << 16))
        return ExitRecord.of(content)
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError):
        return None


def write_lost(directory: str, record: ExitRecord) -> None:
    """Record the end of a container whose shim could not: the next engine reads the same one.

    Fine when the directory is gone, as it is after a reboot.
    """
    content = {"v": 1, **{name: getattr(record, name) for name in ExitRecord.__slots__}}
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        write_record(fd, EXIT, content, sync=True)
    finally:
        os.close(fd)


def has_state(directory: str) -> bool:
    """Whether a process of the container was made."""
    return os.path.exists(f"{directory}/state.json")


def init_of(directory: str) -> tuple[int, int] | None:
    """Pid and start time of the container's first process; None when no whole record is there."""
    content = _read(f"{directory}/state.json")
    if content is None:
        return None
    try:
        return int(content["pid"]), int(content["start_time"])
    except (KeyError, TypeError, ValueError):
        return None


def open_shim(directory: str, pid: int) -> int:
    """A pidfd of the shim whose container runs with `pid` as its first process.

    -1 unless the record and both processes agree.
    """
    content = _read(f"{directory}/{STATE}")
    if content is None:
        return -1
    try:
        init = int(content["pid"]), int(content["start_time"])
        shim = int(content["shim_pid"]), int(content["shim_start_time"])
    except (KeyError, TypeError, ValueError):
        return -1
    if init[0] != pid:
        return -1
    try:
        pidfd = os.pidfd_open(shim[0])
    except OSError:
        return -1
    if is_alive(*shim) and is_alive(*init):
        return pidfd
    os.close(pidfd)
    return -1


def cgroup_of(directory: str) -> str:
    """The path of the cgroup that a shim's record names; "" when no whole record is there."""
    content = _read(f"{directory}/state.json")
    path = ((content or {}).get("runtime") or {}).get("cgroup")
    return path if isinstance(path, str) and path.startswith("/") else ""


def bury(cgroup_path: str) -> None:
    """Kill what is left of a container whose shim has died, and remove its cgroup. Blocks.

    Init has a death signal from its shim, but what it forked, and an init that changed its
    credentials, have not; the cgroup holds them all.

    Raises:
        OSError: something could not be killed or removed.
    """
    cgroup = cgroups.manager(cgroup_path)
    if cgroup.exists():
        cgroup.kill()
        cgroup.remove()


def made_at(directory: str) -> int:
    """When the process of the container was made, in nanoseconds; 0 when that is not known."""
    try:
        return os.stat(f"{directory}/state.json").st_mtime_ns
    except FileNotFoundError:
        return 0


def found(shims: str) -> list[str]:
    """The ids of all shims that have a directory."""
    return sorted(entry.name for entry in os.scandir(shims) if entry.is_dir(follow_symlinks=False))


def _remove(directory: str, name: str) -> None:
    """A record, or a directory of a foreign runtime's files. Fine when it is gone already."""
    try:
        os.unlink(f"{directory}/{name}")
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            trees.remove(fd, name)
        finally:
            os.close(fd)


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            return _decode(file.read(1 << 20))
    except (OSError, msgspec.MsgspecError):
        return None
