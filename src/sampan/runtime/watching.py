"""`sampan-oci events`: what a container uses, at an interval, and its running out of memory.

One JSON object a line, as runc prints: `{"type": "stats" | "oom", "id": ..., "data": ...}`. It ends
with the container. The statistics are the document in `counters`.
"""

from __future__ import annotations

import errno
import os
import select
import time

from sampan.jsontext import encode
from sampan.runtime.arguments import UsageError
from sampan.runtime.counters import document
from sampan.runtime.failure import RuntimeFailure
from sampan.runtime.state import StateDirectory, cgroup_of, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.kernel.cgroups import Cgroup

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_INTERVAL = "5s"


def events(
    root: str, container_id: str, interval: str, *, once: bool, tell: Callable[[str], None]
) -> None:
    """Tell events until the container ends; with `once` its statistics, and no more.

    Raises:
        NoSuchContainer: there is none of that id.
        RuntimeFailure: it is not running.
        UsageError: the interval is no duration, or none above zero.
    """
    directory = StateDirectory(root, container_id)
    state = directory.load()
    seconds = parse_duration(interval or _INTERVAL)
    if seconds <= 0:
        raise UsageError("duration interval must be greater than 0")
    group = cgroup_of(state)
    if group is None or status_of(directory, state) == "stopped":
        raise RuntimeFailure(0, f"container with id {container_id} is not running")
    if once:
        tell(_line("stats", container_id, group))
        return
    _follow(container_id, group, seconds, tell)


def _follow(container_id: str, group: Cgroup, seconds: float, tell: Callable[[str], None]) -> None:
    watch = group.watch_oom()
    try:
        ready = select.poll()
        ready.register(watch, select.POLLIN)
        due = time.monotonic() + seconds
        while not watch.is_over and group.exists():
            wait = max(0.0, due - time.monotonic())
            if ready.poll(wait * 1000):
                for _ in range(watch.take()):
                    tell(_line("oom", container_id, None))
            if time.monotonic() >= due:
                tell(_line("stats", container_id, group))
                due += seconds
    except OSError as error:
        if error.errno != errno.ENODEV:  # the cgroup went while we read it: that is the end
            raise
    finally:
        watch.close()


def _line(kind: str, container_id: str, group: Cgroup | None) -> str:
    event: dict[str, object] = {"type": kind, "id": container_id}
    if group is not None:
        event["data"] = document(group.stats(), group.look)
    return encode(event) + "\n"


def parse_duration(text: str) -> float:
    """A duration as Go writes it (`5s`, `1m30s`, `100ms`), in seconds. Raises UsageError."""
    rest, total = text, 0.0
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        letters = len(rest) - len(rest.lstrip("nuµmsh"))
        unit, rest = rest[:letters], rest[letters:]
        if not number.replace(".", "", 1).isdigit() or unit not in _UNITS:
            raise UsageError(f'invalid value "{text}" for flag -interval: not a duration')
        total += float(number) * _UNITS[unit]
    return total


def print_line(line: str) -> None:
    """One event on our standard output, at once."""
    data = line.encode()
    while data:
        data = data[os.write(1, data) :]
