"""The tables, the promises and the files that a run leaves.

A `Promise` is one figure of the specification: ours divided by a peer's, or ours in its unit,
against a limit. It is looked up among the rows; what was not measured is not judged.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import archives
import build
import clients
import commands
import execs
import lifecycle
import memory
import networks
import oci
import pulls
import scale
import store
import traffic

if TYPE_CHECKING:
    from collections.abc import Collection

    from timing import Row

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
_PACKAGES = "docker.io containerd podman runc crun conmon skopeo docker-registry".split()


@dataclass(frozen=True, slots=True)
class Promise:
    """`figure` of `ours` is at most `limit` times the best of `peers`, or at most `limit`.

    `least`: at least, for rates. `turns`: what is compared is the median of the ratios of each
    turn, in which the engines stood side by side.
    """

    text: str
    figure: str
    ours: str
    peers: tuple[str, ...]
    limit: float
    least: bool = False
    turns: bool = False

    def judge(
        self,
        medians: dict[tuple[str, str], float],
        taken: dict[tuple[str, str], tuple[float, ...]],
    ) -> dict[str, Any] | None:
        """What was measured against the limit."""
        mine = medians.get((self.figure, self.ours))
        theirs = [medians[key] for key in self._known(medians)]
        if mine is None or (self.peers and not theirs):
            return None
        best = max if self.least else min
        value = mine / best(theirs) if theirs else mine
        if self.turns:
            own = taken[self.figure, self.ours]
            pairs = [zip(own, taken[key], strict=True) for key in self._known(taken)]
            value = min(median(one / other for one, other in pair) for pair in pairs)
        return {
            "promise": self.text,
            "measured": round(value, 3),
            "limit": f"at least {self.limit:g}" if self.least else round(self.limit, 3),
            "kept": value >= self.limit if self.least else value <= self.limit,
        }

    def _known(self, taken: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        return [key for peer in self.peers if (key := (self.figure, peer)) in taken]


EIGHT = f"{scale.LIVES}, 8 clients"
PROMISES = (
    Promise("life: dockerd's x", lifecycle.FIGURE, "sampan", ("docker",), 1 / 20),
    Promise("life: ms", lifecycle.CALM, "sampan", (), 12),
    Promise("run: docker run's x", commands.FIGURE, "sampan", ("docker",), 1 / 5),
    Promise("run: ctr run's x", commands.FIGURE, "sampan", ("ctr",), 1 / 2),
    Promise("bundle: runc run's x", oci.FIGURE, "sampan-oci", ("runc",), 1.2),
    Promise("bundle: runc exec's x", f"{oci.VERB} exec", "sampan-oci", ("runc",), 1.2),
    Promise("bundle: runc's life in steps x", f"{oci.VERB} life", "sampan-oci", ("runc",), 1.3),
    Promise("exec: ms", execs.CALM, "sampan", (), 5),
    Promise("exec, API and command: docker exec's x", "exec", "sampan", ("docker",), 1 / 15),
    Promise("8 clients: lives a second", scale.LIVES_CALM, "sampan", (), 100, least=True),
    Promise("8 clients: dockerd's x", EIGHT, "sampan", ("docker",), 12, least=True),
    Promise("500 running: ms of the list", scale.ASK, "sampan", (), 50),
    Promise("500 running: podman's start x", scale.START, "sampan", ("podman",), 0.25),
    Promise("500 running: MiB of each", scale.MEMORY, "sampan", (), 0.8),
    Promise("500 running: idle, % of a core", scale.IDLE, "sampan", (), 2),
    Promise("log: podman's x", scale.LOGGED, "sampan", ("podman",), 1.2, least=True),
    Promise("log: docker's x", scale.LOGGED, "sampan", ("docker",), 3, least=True),
    Promise("attach: ctr's x", scale.ATTACHED, "sampan", ("ctr",), 1.0, least=True),
    Promise("probes: % of a core", scale.PROBES_CALM, "sampan", (), 40),
    Promise("memory: MiB per container", memory.FIGURE, "sampan: charged", (), 1.0),
    Promise("memory, the machine's: MiB", memory.FIGURE, "sampan: the machine's", (), 1.0),
    Promise("idle: MiB", memory.IDLE, "sampan, idle again: PSS", (), 70),
    Promise("docker-py, life: dockerd's x", clients.LIFE, "sampan", ("docker",), 1 / 8),
    Promise("docker run --rm: dockerd's x", clients.RUN, "sampan", ("docker",), 1 / 3),
    Promise("docker ps: dockerd's x", clients.PS, "sampan", ("docker",), 1 / 2),
    Promise("docker exec: dockerd's x", clients.EXEC, "sampan", ("docker",), 1 / 4),
    Promise("docker run, attached: dockerd's x", clients.ATTACH, "sampan", ("docker",), 1),
    Promise("docker logs: dockerd's x", clients.LOGS, "sampan", ("docker",), 1),
    Promise(
        "idle: of dockerd and containerd",
        memory.IDLE,
        "sampan, just started: PSS",
        ("docker, just started: PSS",),
        1 / 2,
    ),
    Promise("build, cold: BuildKit's x", build.COLD, "sampan", ("docker, BuildKit",), 1.0),
    Promise("build, cached: BuildKit's x", build.CACHED, "sampan", ("docker, BuildKit",), 1.0),
    Promise("build, cached: s", build.CACHED, "sampan", (), 0.2),
    Promise("build, files sent: s", build.SEND, "sampan", (), 1.0),
    Promise(
        "build, diamond: of the sum of its stages",
        build.DIAMOND,
        "sampan, side by side",
        ("sampan, sum of its stages",),
        0.6,
    ),
    Promise("save: best peer's x", archives.SAVE, "sampan", ("docker", "podman", "ctr"), 1.0),
    Promise("load: best peer's x", archives.LOAD, "sampan", ("docker", "podman", "ctr"), 1.0),
    Promise("push: best peer's x", archives.PUSH, "sampan", ("docker", "podman", "ctr"), 1.0),
    Promise("pull: best peer's x", pulls.FIGURE, "sampan", ("docker", "podman", "ctr"), 0.5),
    Promise("pull of 500 MB: MiB of memory", store.PEAK, "sampan, 500 MB", (), 143),
    Promise("second pull: of the new layer", store.MOVED, "sampan", ("the new layer",), 1.05),
    Promise("200 images: ms", store.LIST, "sampan, over the API", (), 30),
    Promise("run in a bridge: docker run's x", networks.FIGURE, "sampan", ("docker",), 1 / 5),
    Promise("life in a bridge: ms", networks.CALM, "sampan", (), 25),
    Promise("100 with a port: docker's x", networks.MANY, "sampan", ("docker",), 1 / 4),
    *(
        Promise(f"{what}: best peer's x", what, "sampan", ("docker", "podman"), 1.0, True, True)
        for what in traffic.FIGURES
    ),
)


def judge(rows: list[Row]) -> list[dict[str, Any]]:
    """Every promise that can be judged."""
    medians = {(row.figure, row.case): row.median for row in rows}
    taken = {(row.figure, row.case): row.values for row in rows}
    # An exec through our engine is promised against the peer's command.
    medians["exec", "sampan"] = medians.get((execs.FIGURE, "sampan"), float("nan"))
    medians["exec", "docker"] = medians.get((execs.COMMANDS, "docker"), float("nan"))
    judged = [promise.judge(medians, taken) for promise in PROMISES]
    return [entry for entry in judged if entry and entry["measured"] == entry["measured"]]


def line(row: Row) -> str:
    """One row as a line of text."""
    low, high = min(row.values), max(row.values)
    return f"{row.figure:32} {row.case:44} {row.median:9.3f} {low:9.3f} {high:9.3f} {row.unit}"


def tables(rows: list[Row], noise: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """All tables as Markdown."""
    parts = [f"{facts['date']}, {facts['kernel']}, {facts['cpus']} CPUs, {facts['model']}, "]
    parts[0] += f"Python {facts['python']}; " + ", ".join(facts["packages"]) + "."
    head = "| promise | measured | limit | kept |\n|---|--:|--:|---|"
    lines = [
        f"| {e['promise']} | {e['measured']} | {e['limit']} | {'yes' if e['kept'] else '**no**'} |"
        for e in judge(rows)
    ]
    parts.append("\n".join([head, *lines]))
    head = "| figure | case | median | min | max | unit | n |\n|---|---|--:|--:|--:|---|--:|"
    lines = [
        f"| {r.figure} | {r.case} | {r.median:.3g} | {min(r.values):.3g} | {max(r.values):.3g} "
        f"| {r.unit} | {len(r.values)} |"
        for r in rows
    ]
    parts.append("\n".join([head, *lines]))
    head = "| noise | load | CPU loop, best | CPU loop, worst | process |\n|---|--:|--:|--:|--:|"
    lines = [
        f"| {n['when']} | {n['load'][0]} | {n['cpu_ms']} ms | {n['cpu_ms_max']} ms "
        f"| {n['fork_ms']} ms |"
        for n in noise
    ]
    parts.append("\n".join([head, *lines]))
    return "\n\n".join(parts)


def traffic_table(rows: list[Row]) -> str:
    """What passes through networks, a line for each path and figure; the last column is the
    promise's ratio."""
    engines = [name for name in traffic.PORTS if any(row.case == name for row in rows)]
    ratios = {entry["promise"].partition(":")[0]: entry["measured"] for entry in judge(rows)}
    lines = []
    for figure in traffic.FIGURES:
        found = {row.case: row for row in rows if row.figure == figure}
        if found:
            cells = [_span(found[name]) for name in engines]
            lines.append(f"| {figure} | {' | '.join(cells)} | {ratios.get(figure, 0):.2f} |")
    head = f"| path and figure | {' | '.join(engines)} | of the better |"
    return "\n".join([head, "|---|" + "--:|" * (len(engines) + 1), *lines])


def _span(row: Row) -> str:
    shape = "{:.1f}" if row.unit == "Gbit/s" else "{:,.0f}"
    median, low, high = (shape.format(v) for v in (row.median, min(row.values), max(row.values)))
    return f"{median} ({low} to {high})"


def facts() -> dict[str, Any]:
    """The machine and the versions."""
    words = ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *_PACKAGES]
    listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "kernel": f"Linux {platform.release()}",
        "cpus": os.cpu_count(),
        "model": _model(),
        "python": platform.python_version(),
        "packages": [entry.split("+")[0].split("~")[0] for entry in listed.splitlines()],
    }


def _model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [entry for entry in lines if entry.startswith("model name")]
    return named[0].partition(":")[2].strip() if named else platform.machine()


def show(
    rows: list[Row], noise: list[dict[str, Any]], document: Path | None, docs: Path | None
) -> None:
    """Print the tables, and write the files that were asked for."""
    about = facts()
    text = tables(rows, noise, about)
    print(text)
    if any(row.figure in traffic.FIGURES for row in rows):
        print(f"\n{traffic_table(rows)}")
    if document:
        whole = {
            **about,
            "noise": noise,
            "promises": judge(rows),
            "rows": [row.document() for row in rows],
        }
        document.write_text(json.dumps(whole, indent=1) + "\n")
    if docs:
        old = docs.read_text()
        before, rest = old.split(BEGIN)
        docs.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")
