"""Every figure of Sampan side by side with its peers, in one run. Needs root.

    python benchmarks/run.py [--rounds N] [--only FIGURE ...] [--json FILE] [--docs FILE]

Figures are life, commands, networks, traffic, ports, oci, execs, clients, lives, streams, density,
probes, pulls, archives, build and memory. The table and the promises go to standard output,
everything that was taken to the JSON file, and the tables into the docs between their two marks.
The code is 0 also when a promise is not kept: this measures, tests judge.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import archives
import build
import calm
import clients
import commands
import execs
import image
import lab
import lifecycle
import memory
import networks
import noise
import oci
import pulls
import report
import scale
import store
import traffic
from peers import BUSYBOX, ENGINES, LARGE, TOOLS, Engine
from source import Registry, archive, busybox, tools
from timing import Row, Runner

_SCALE = ("lives", "streams", "density", "probes")
_SHARED = ("life", "commands", "networks", "ports", "execs", "clients", *_SCALE)
FIGURES = (*_SHARED, "traffic", "oci", "pulls", "archives", "images", "build", "memory")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(description="measure Sampan and its peers")
    made.add_argument("--rounds", type=int, default=15, help="turns of each figure of milliseconds")
    made.add_argument("--pulls", type=int, default=3, help="turns of the pull of the large image")
    made.add_argument("--containers", type=int, default=100, help="for memory per container")
    made.add_argument("--dense", type=int, default=500, help="running containers for density")
    made.add_argument(
        "--calm", type=float, default=float("inf"), help="the calm loop's best ms of earlier runs"
    )
    made.add_argument(
        "--patience", type=float, default=120, help="seconds to wait for calm turns, a figure"
    )
    made.add_argument("--only", nargs="+", choices=FIGURES, default=FIGURES)
    made.add_argument("--engines", nargs="+", choices=[kind.name for kind in ENGINES])
    made.add_argument("--paths", nargs="+", choices=traffic.PATHS, default=traffic.PATHS)
    made.add_argument("--image", type=Path, help="an OCI layout that image.py wrote")
    made.add_argument(
        "--directory", default="/var/tmp", help="where the stores are, on a real disk"
    )
    made.add_argument("--json", type=Path, help="write everything here")
    made.add_argument("--docs", type=Path, help="replace the tables of this file")
    return made


class Bench:
    """One run inside of the lab."""

    def __init__(self, options: argparse.Namespace, place: Path) -> None:
        self.options = options
        self.place = place
        environ = lab.environ(place)
        self.runners = {hide: Runner(environ, hide_v2=hide) for hide in (False, True)}
        wanted = options.engines or [kind.name for kind in ENGINES]
        self.kinds = tuple(kind for kind in ENGINES if kind.name in wanted)
        self.registry = Registry(place / "registry")
        self.gauge = calm.Gauge(options.patience, options.calm)
        self.noise: list[dict[str, Any]] = []
        self.rows: list[Row] = []

    def run(self) -> int:
        """Everything that was asked for."""
        self.rootfs = busybox(self.place)
        self.registry.start()
        self.registry.push(self.place / "layout", BUSYBOX)
        self._sample("start")
        try:
            self._with_engines()
            self._without_engines()
        finally:
            self.registry.stop()
            for runner in self.runners.values():
                runner.close()
        report.show(self.rows, self.noise, self.options.json, self.options.docs)
        return 0

    def _with_engines(self) -> None:
        """The figures that share one set of running engines."""
        wanted = [name for name in _SHARED if name in self.options.only]
        if not wanted:
            return
        engines: dict[str, Engine] = {}
        try:
            for kind in self.kinds:
                engines[kind.name] = engine = kind(self.place / kind.name)
                engine.start()
                self.runners[engine.hide_v2](engine.pull(BUSYBOX))
            for name in wanted:
                self._took(name, self._shared(name, engines))
        finally:
            for engine in engines.values():
                engine.stop()

    def _shared(self, name: str, engines: dict[str, Engine]) -> list[Row]:
        rounds = self.options.rounds
        if name == "life":
            return lifecycle.measure(engines, self.gauge, rounds)
        if name == "clients":
            return clients.measure(engines, self.runners[False], rounds)
        if name in _SCALE:
            return self._scale(name, engines)
        if name == "ports":
            return networks.many(engines, self.runners)
        if name == "commands":
            return commands.measure(engines, self.runners, rounds)
        idle = {"networks": networks, "execs": execs}[name]
        return idle.measure(engines, self.runners, self.gauge, rounds)

    def _traffic(self) -> list[Row]:
        if not traffic.is_possible():
            return []
        file, place = self.place / "tools.tar", self.place / "t"
        archive(tools(self.place, self.rootfs), TOOLS, file)
        kinds = [kind for kind in self.kinds if kind.name in traffic.PORTS]
        rounds, paths = max(3, self.options.rounds // 3), self.options.paths
        return traffic.measure(kinds, place, file, self.runners, rounds, paths)

    def _scale(self, name: str, engines: dict[str, Engine]) -> list[Row]:
        """Many at once. Density is of our own engine and podman: others need minutes to start."""
        if name == "lives":
            return scale.lives(engines, self.gauge)
        if name == "streams":
            return scale.streams(engines, self.runners)
        if name == "probes":
            one = engines.get("sampan")
            return scale.probes(one, self.runners, self.gauge) if one else []
        dense = [engines[name] for name in ("sampan", "podman") if name in engines]
        count = self.options.dense
        return [
            row for one in dense for row in scale.density(one, self.runners[one.hide_v2], count)
        ]

    def _without_engines(self) -> None:
        only, options = self.options.only, self.options
        if "traffic" in only:
            self._took("traffic", self._traffic())
        if "oci" in only:
            measured = oci.measure(self.place / "oci", self.rootfs, self.runners, options.rounds)
            self._took("oci", measured)
            measured = oci.measure_verbs(
                self.place / "verbs", self.rootfs, self.runners, options.rounds
            )
            self._took("oci", measured)
        if "memory" in only:
            place = self.place / "memory"
            measured = memory.measure(self.kinds, place, self.runners, options.containers)
            self._took("memory", measured)
        if "build" in only:
            place = self.place / "b"
            self._took("build", build.measure(self.kinds, place, self.runners, options.pulls))
        if "pulls" in only:
            self.registry.push(self._large(), LARGE)
            place, rounds = self.place / "pulls", options.pulls
            measured = pulls.measure(self.kinds, place, self.registry, self.runners, rounds)
            self._took("pulls", measured)
        if "images" in only:
            layout = self._large()
            self.registry.push(layout, LARGE)
            place = self.place / "i"
            measured = store.measure(self.kinds, place, layout, self.registry, self.runners)
            self._took("images", measured)
        if "archives" in only:
            self.registry.push(self._large(), LARGE)
            place, rounds = self.place / "a", options.pulls  # podman takes 50 characters
            measured = archives.measure(self.kinds, place, self.registry, self.runners, rounds)
            self._took("archives", measured)

    def _large(self) -> Path:
        if self.options.image:
            return self.options.image
        print("writing the large image", file=sys.stderr)
        layout = self.place / "large"
        image.make_image(layout, size=500_000_000, files=10_000)
        return layout

    def _took(self, name: str, rows: list[Row]) -> None:
        self.rows += rows
        self._sample(f"after {name}")
        for row in rows:
            print(f"  {report.line(row)}", file=sys.stderr)

    def _sample(self, when: str) -> None:
        self.gauge.calm()
        self.noise.append({**noise.sample(when), "calm_ms": round(self.gauge.best, 3)})
        print(f"{when}: {json.dumps(self.noise[-1])}", file=sys.stderr)


def main() -> int:
    """The command line; inside of the lab the same again."""
    options = parser().parse_args()
    for name in ("json", "docs", "image"):
        if path := getattr(options, name):
            setattr(options, name, path.absolute())
    if os.geteuid() != 0:
        print("benchmarks need root", file=sys.stderr)
        return 1
    place = lab.base()
    if place is None:
        return lab.enter([os.path.abspath(__file__), *sys.argv[1:]], options.directory)
    return lab.serve(lambda: Bench(options, place).run())


if __name__ == "__main__":
    sys.exit(main())
