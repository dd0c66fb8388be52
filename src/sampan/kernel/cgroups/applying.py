"""Doing the writes of a plan, in its order, with what may fail and what is tried again.

`change` is for a cgroup in use: when one write is refused, those before it are taken back, so that
a caller who is told "no" finds the limits that were there.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.kernel.cgroups.fields import Write

    Put = Callable[[Write], None]
    Look = Callable[[str, str], str | None]
    Before = list[tuple[Write, str | None]]


def apply(writes: list[Write], put: Put) -> None:
    """Do the writes. Raises the OSError of the first that is refused and not optional."""
    again = []
    for write in writes:
        try:
            put(write)
        except OSError as error:
            if write.again and error.errno == errno.EINVAL:
                again.append(write)
            elif not (write.optional and error.errno == errno.ENOENT):
                raise
    for write in again:
        put(write)


def change(writes: list[Write], put: Put, look: Look) -> Before:
    """Do the writes, or none of them; what `take_back` needs."""
    before = [(write, look(write.controller, write.file)) for write in writes]
    try:
        apply(writes, put)
    except OSError:
        take_back(before, put)
        raise
    return before


def take_back(before: Before, put: Put) -> None:
    """Write what was there.

    Twice, because some limits hold each other: the smaller one has to go down first.
    """
    for _ in range(2):
        for write, text in reversed(before):
            value = (text or "").strip()
            # A file with a line for each device is not written back as a whole.
            if value and "\n" not in value:
                write.value = value
                try:
                    put(write)
                except OSError:
                    continue
