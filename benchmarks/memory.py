"""Memory per running container, everything counted, and of the engine alone.

N sleeping containers are started. Two counts hold everything: what the lab's cgroup is charged for
without the page cache (processes, page tables, kernel objects; neighbours do not disturb it), and
what `MemAvailable` of the whole machine lost (also what the kernel charges to nobody, such as parts
of a network namespace; believe it on a quiet machine only). Beside them stands what the processes
that came have dirtied for themselves, by their names, and what the daemons gained.

An idle engine is all its processes: resident memory, where pages that several share count several
times, and proportional memory, where they count once.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import lab
from peers import BUSYBOX
from timing import Row, rows

if TYPE_CHECKING:
    from peers import Engine
    from timing import Runner

FIGURE = "memory per container"
IDLE = "memory of the idle engine"
_SAMPLES = 5
_CALM = 32  # seconds; what was kept warm for a pull has ended by then
_MIB = 1024


@dataclass(frozen=True, slots=True)
class Use:
    """KiB of one process."""

    name: str
    rss: int
    pss: int
    private: int
    dirty: int


def uses() -> dict[int, Use]:
    """Every process of the lab but those of the benchmark itself."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                found[int(entry)] = _use(entry)
            except (OSError, KeyError):
                continue  # it ended meanwhile, or it is the kernel's
    return found


def _use(pid: str) -> Use:
    with open(f"/proc/{pid}/comm") as file:
        name = file.read().strip()
    with open(f"/proc/{pid}/smaps_rollup") as file:
        lines = [line.split() for line in file.readlines()[1:]]
    kib = {words[0]: int(words[1]) for words in lines}
    dirty = kib["Private_Dirty:"]
    return Use(name, kib["Rss:"], kib["Pss:"], dirty + kib["Private_Clean:"], dirty)


def available() -> int:
    """KiB that could be given to new processes, on the whole machine."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))


def charged() -> int:
    """KiB that the lab is charged for, without what only caches files."""
    folder = Path(lab.memory_cgroup())
    old = (folder / "memory.usage_in_bytes").exists()
    usage = folder / ("memory.usage_in_bytes" if old else "memory.current")
    prefix = "total_" if old else ""
    lines = (folder / "memory.stat").read_text().splitlines()
    stat = {name: int(value) for name, value in (line.split() for line in lines)}
    cache = stat[f"{prefix}inactive_file"] + stat[f"{prefix}active_file"]
    return (int(usage.read_text()) - cache) // 1024


def _settled() -> tuple[int, int]:
    """Both counts: the medians of a few samples."""
    os.sync()
    found = []
    for _ in range(_SAMPLES):
        time.sleep(0.4)
        found.append((charged(), available()))
    return (int(median(a for a, _ in found)), int(median(b for _, b in found)))


def measure(
    kinds: tuple[type[Engine], ...],
    place: Path,
    runners: dict[bool, Runner],
    count: int,
) -> list[Row]:
    """One engine after the other, each in new directories."""
    found: list[Row] = []
    place.mkdir()
    for kind in kinds:
        engine = kind(place / kind.name)
        before = uses()
        engine.start()
        try:
            found += _of(engine, before, runners[engine.hide_v2], count)
        finally:
            engine.stop()
    return found


def _of(engine: Engine, before: dict[int, Use], run: Runner, count: int) -> list[Row]:
    found = rows(IDLE, "MiB", _idle(engine.name, "just started", before))
    run(engine.pull(BUSYBOX))
    run(engine.run("true"))
    if found:
        time.sleep(_CALM)
    found += rows(IDLE, "MiB", _idle(engine.name, "idle again", before))
    names = [f"m{number}" for number in range(count)]
    start, first = uses(), _settled()
    try:
        for name in names:
            run(engine.detach(name, "sleep", "1000000"))
        last = _settled()
        grown = _growth(start, uses(), count)
    finally:
        run(engine.remove(*names), check=False)
    everything = {
        f"{engine.name}: charged": [(last[0] - first[0]) / count / _MIB],
        f"{engine.name}: the machine's": [(first[1] - last[1]) / count / _MIB],
    }
    parts = {f"{engine.name}: {what}": [value] for what, value in grown.items()}
    return found + rows(FIGURE, "MiB", {**everything, **parts})


def _idle(name: str, when: str, before: dict[int, Use]) -> dict[str, list[float]]:
    """Resident and proportional memory of all processes that the engine has."""
    new = [use for pid, use in uses().items() if pid not in before]
    if not new:
        return {}
    return {
        f"{name}, {when}: RSS": [sum(use.rss for use in new) / _MIB],
        f"{name}, {when}: PSS": [sum(use.pss for use in new) / _MIB],
    }


def _growth(start: dict[int, Use], end: dict[int, Use], count: int) -> dict[str, float]:
    """Per container: what new processes have, by name, and what old ones gained."""
    found: dict[str, float] = {}
    for pid, use in end.items():
        old = start.get(pid)
        if old is None:
            kind = f"{use.name}, private dirty each"
            found[kind] = found.get(kind, 0.0) + use.dirty / count / _MIB
        else:
            gained = (use.private - old.private) / count / _MIB
            found["growth of the daemons"] = found.get("growth of the daemons", 0.0) + gained
    return {what: value for what, value in found.items() if abs(value) >= 0.0005}
