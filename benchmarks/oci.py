"""`run` of a bundle by the low-level runtimes, cold: a new process each time, no daemon.

All run the same bundle: the configuration that `runc spec` writes, with `true` and no terminal, in
a cgroup of its own. A second bundle has the seccomp filter that engines add. crun sees the machine
without the v2 tree.
"""

from __future__ import annotations

import json
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import lab
from peers import BIN
from timing import Row, interleave, rows

from sampan.engine.profiles import DEFAULT_CAPABILITIES, seccomp_profile

if TYPE_CHECKING:
    from pathlib import Path

    from timing import Runner

FIGURE = "run of a bundle"
RUNTIMES = {"sampan-oci": str(BIN / "sampan-oci"), "runc": "runc", "crun": "crun"}


def bundle(place: Path, rootfs: Path, *, filtered: bool) -> Path:
    """Write a bundle at `place`."""
    place.mkdir(parents=True)
    subprocess.run(["runc", "spec"], cwd=place, check=True)
    file = place / "config.json"
    spec = json.loads(file.read_text())
    spec["root"]["path"] = str(rootfs)
    spec["process"]["terminal"] = False
    spec["process"]["args"] = ["/bin/true"]
    spec["linux"]["cgroupsPath"] = f"{lab.CGROUP}/oci"
    if filtered:
        spec["linux"]["seccomp"] = seccomp_profile(DEFAULT_CAPABILITIES)
    file.write_text(json.dumps(spec))
    return place


def measure(place: Path, rootfs: Path, runners: dict[bool, Runner], rounds: int) -> list[Row]:
    """Every runtime in turns, with and without a filter."""
    found = []
    for filtered in (False, True):
        words = ", with seccomp" if filtered else ""
        folder = bundle(place / f"bundle{filtered:d}", rootfs, filtered=filtered)
        cases = {
            name: partial(runners[name == "crun"], _run(name, program, place, folder))
            for name, program in RUNTIMES.items()
        }
        found += rows(FIGURE + words, "ms", interleave(cases, rounds, warm=2))
    return found


def _run(name: str, program: str, place: Path, folder: Path) -> list[str]:
    return [program, "--root", f"{place}/state-{name}", "run", "--bundle", str(folder), "one"]
