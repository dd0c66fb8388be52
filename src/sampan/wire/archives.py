"""Bodies of the calls that copy files."""

from __future__ import annotations

import msgspec
from msgspec import field


class PathStat(msgspec.Struct, kw_only=True):
    """What is at a path of a container, inside of a header."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str = field(name="linkTarget")


class Change(msgspec.Struct, rename="pascal", kw_only=True):
    """One path that a container changed: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int
