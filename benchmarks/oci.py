"""The low-level runtimes, cold: a new process for each verb, no daemon.

All run the same bundle: the configuration that `runc spec` writes, with `true` and no terminal, in
a cgroup of its own. A second bundle has the seccomp filter that engines add. crun sees the machine
without the v2 tree. Beside `run`, each verb of a life in steps is timed, the life as their sum, and
`exec` of `true` in a container that runs all the while.
"""

from __future__ import annotations

import json
import subprocess
import time
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
VERB = "verb of a bundle:"
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


def measure_verbs(place: Path, rootfs: Path, runners: dict[bool, Runner], rounds: int) -> list[Row]:
    """Every runtime in turns, verb by verb."""
    lives: dict[str, dict[str, list[float]]] = {}
    calls = {}
    for name, program in RUNTIMES.items():
        folders = []
        for number, kind in enumerate(("life", "long")):
            folder = bundle(place / f"{name}-{kind}", rootfs, filtered=False)
            spec = json.loads((folder / "config.json").read_text())
            spec["process"]["args"] = ["/bin/sleep", "1000"]
            spec["linux"]["cgroupsPath"] = f"{lab.CGROUP}/oci-{name}-{number}"
            (folder / "config.json").write_text(json.dumps(spec))
            folders.append(str(folder))
        base = [program, "--root", f"{place}/state-{name}"]
        calls[name] = partial(_life, runners[name == "crun"], base, folders[0])
        runners[name == "crun"]([*base, "run", "--detach", "--bundle", folders[1], "long"])
    for number in range(rounds + 1):
        for name, call in calls.items():
            taken = call()
            for verb, value in taken.items() if number else ():  # the first round is warm-up
                lives.setdefault(verb, {}).setdefault(name, []).append(value)
    for name, program in RUNTIMES.items():
        base = [program, "--root", f"{place}/state-{name}"]
        runners[name == "crun"]([*base, "delete", "--force", "long"])
    return [row for verb, taken in lives.items() for row in rows(f"{VERB} {verb}", "ms", taken)]


def _life(runner: Runner, base: list[str], folder: str) -> dict[str, float]:
    """The time of each verb, and of a life."""
    taken = {"exec": runner([*base, "exec", "long", "/bin/true"])}
    steps = (
        ("create", ["--bundle", folder, "one"]),
        ("start", ["one"]),
        ("state", ["one"]),
        ("kill", ["one", "KILL"]),
        ("delete", ["one"]),
    )
    for verb, words in steps:
        if verb == "delete":
            time.sleep(0.02)  # what was killed ends; no runtime waits for it
        taken[verb] = runner([*base, verb, *words])
    taken["life"] = sum(taken[verb] for verb, _ in steps)
    return taken


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
