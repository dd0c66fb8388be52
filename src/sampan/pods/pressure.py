"""What metrics of a container need of its cgroup's own files: pressure and huge pages. Blocking.

Pressure is counted for a cgroup by version 2 alone; huge pages by both, the most that there were by
version 1 alone. What is not counted is not there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.kernel import cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator

_TREE = "/sys/fs/cgroup"
KINDS = ("cpu", "memory", "io")


def pressure(pid: int) -> dict[tuple[str, str], int]:
    """Microseconds by kind and `some` (waiting) or `full` (stalled) of the process' cgroup."""
    found: dict[tuple[str, str], int] = {}
    if cgroups.mode() != "unified":
        return found
    for _, path in _places(pid):
        for kind in KINDS:
            for line in _read(f"{path}/{kind}.pressure").splitlines():
                words = line.split()
                found[kind, words[0]] = int(words[-1].removeprefix("total="))
    return found


def huge_pages(pid: int) -> dict[str, tuple[int, int]]:
    """Bytes now and at most, by the size of a page as the kernel writes it (2MB)."""
    found: dict[str, tuple[int, int]] = {}
    for controllers, path in _places(pid):
        if controllers and "hugetlb" not in controllers:
            continue
        now, most = ("current", "") if not controllers else ("usage_in_bytes", "max_usage_in_bytes")
        try:
            names = os.listdir(path)
        except OSError:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "hugetlb" and len(parts) == 3 and parts[2] == now:
                before = f"{path}/hugetlb.{parts[1]}"
                highest = _read(f"{before}.{most}") if most else ""
                found[parts[1]] = int(_read(f"{before}.{now}") or 0), int(highest or 0)
    return found


def _places(pid: int) -> Iterator[tuple[list[str], str]]:
    """(controllers, directory) of each cgroup that the process is in; none is version 2."""
    unified = cgroups.mode() == "unified"
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if not names and unified:
            yield [], _TREE + path
        elif names and not unified:
            yield names.split(","), f"{_TREE}/{names}{path}"


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(1 << 16).strip()
    except OSError:
        return ""
