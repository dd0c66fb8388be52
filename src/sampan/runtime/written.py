"""Orders to a machine, and the scripts of those that were given before.

Most containers of a busy host are like the one before but for their id: it stands in the names of
their cgroup, their files and perhaps their host, always with the same length. Their scripts then
differ in these bytes alone, so one is made of the other instead of being written again.

Only an id as the engine draws it is replaced: 64 random digits are nowhere by chance.
"""

from __future__ import annotations

import marshal
import os

from sampan.runtime import readiness
from sampan.runtime.assembly import Assembly, is_directory
from sampan.runtime.plan import build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.plan import Facts
    from sampan.runtime.readiness import Ready

    Points = list[tuple[str, bool]]
    Filter = tuple[bytes, int] | None
    Kept = tuple[bytes, Filter, bytes, bytes, Points]

_MOST = 3
_LENGTH, _SHORT = 64, 12  # as Docker shows ids
_ANY_ID = os.urandom(_LENGTH // 2).hex().encode()
"""What stands for the id where two orders are compared; nobody can guess it."""


class Order:
    """All that a script is made of.

    `joins` are the kinds of namespaces joined, `doors` counts the descriptors that join the cgroup,
    `sources` are the descriptors of bind mounts, `program` is the seccomp filter and its flags.
    """

    __slots__ = ("content", "doors", "facts", "joins", "own", "program", "sources", "spec")

    def __init__(
        self,
        container_id: str,
        spec: dict[str, Any],
        facts: Facts,
        joins: list[str],
        doors: int,
        sources: list[int],
        program: Filter,
    ) -> None:
        self.spec, self.facts, self.joins, self.doors = spec, facts, joins, doors
        self.sources, self.program = sources, program
        self.own = _plain(container_id)
        self.content = b""
        if self.own:
            kinds = [is_directory(fd) for fd in sources]
            # Version 2 tells no references apart: equal data are equal bytes.
            plain = marshal.dumps((spec, facts.plain(), joins, doors, kinds), 2)
            self.content = _replaced(plain, self.own, _ANY_ID)


class Written:
    """The last few scripts, all for blanks that made the same things ready."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: list[Kept] = []

    def find(self, order: Order) -> tuple[bytes, Points] | None:
        """(the script, the mount points to make) of `order`; None where none was like it."""
        for place, (content, program, own, script, points) in enumerate(self._kept):
            if content != order.content or program != order.program or own[:_SHORT] in order.own:
                continue
            if place:
                self._kept.insert(0, self._kept.pop(place))
            return _replaced(script, own, order.own), points
        return None

    def keep(self, order: Order, script: bytes, points: Points) -> None:
        """Remember what was written for `order`."""
        if order.own:
            self._kept.insert(0, (order.content, order.program, order.own, script, points))
            del self._kept[_MOST:]


def script(ready: Ready, order: Order, root: int) -> tuple[bytes, list[tuple[str, bool]]]:
    """(what the machine does, the mount points it needs): as for the last order that was like this
    one, or written now.

    Raises:
        NeedsInterpreter: an interpreter must do it.
    """
    if ready.written is None:
        ready.written = Written()
    found = ready.written.find(order)
    if found is not None:
        if order.spec["linux"].get("maskedPaths"):
            readiness.check_null()
        return found
    assembly = Assembly(ready, order.joins, root, order.sources)
    text = assembly.pack(build(order.spec, order.facts), order.doors, order.program)
    if not assembly.is_of_this_root:
        ready.written.keep(order, text, assembly.prepare)
    return text, assembly.prepare


def _plain(container_id: str) -> bytes:
    """The id, if it is one of the engine's."""
    is_ours = len(container_id) == _LENGTH and not container_id.strip("0123456789abcdef")
    return container_id.encode() if is_ours else b""


def _replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    return content.replace(old, new).replace(old[:_SHORT], new[:_SHORT])
