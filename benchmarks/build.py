"""Builds as commands, daemons running: ten steps with a COPY of 5,000 files, without and with the
cache; sending the files; and six stages that need each other as a diamond does.

Commands of RUN have no network, with every builder. Docker builds twice: by BuildKit, which
Debian's client drives without a plug-in, and by the classic builder. Where podman is measured,
buildah is too, which is what podman builds with; it keeps layers only when it is told to.
"""

from __future__ import annotations

import json
import os
import random
from datetime import datetime
from typing import TYPE_CHECKING

from commands import runner_of
from peers import BUSYBOX, Podman
from timing import Row, rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peers import Engine
    from timing import Runner

COLD = "build, ten steps, no cache"
CACHED = "build, the same, all cached"
SEND = "build, 5,000 new files sent and keyed"
DIAMOND = "build, diamond of six stages"
BUILDERS = ("sampan", "docker")
FILES = 5000
STEPS = f"""\
FROM {BUSYBOX}
ENV a=b
RUN echo one > /one
RUN mkdir -p /x/y && echo two > /x/y/two
WORKDIR /app
COPY src /app/src
RUN find /app/src -type f | wc -l > /count
RUN echo three > /three
COPY Dockerfile /app/
CMD ["cat", "/count"]
"""
LOOP = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done"
MIDDLE = ("left", "right", "up", "down")


class Buildah(Podman):
    """buildah, which has no daemon either; its images are its own, its runtime is runc."""

    name = "buildah"
    hide_v2 = False

    def command(self, *words: str) -> list[str]:
        """With directories of its own; `build` as our other builders mean it."""
        places = ["buildah", "--root", f"{self.place}/root", "--runroot", f"{self.place}/run"]
        if words[0] != "build":
            return [*places, *words]
        kept = ["--runtime", "runc", "--layers", "--format", "docker"]
        return [*places, "bud", *kept, *words[1:]]


def measure(
    kinds: tuple[type[Engine], ...], place: Path, runners: dict[bool, Runner], rounds: int
) -> list[Row]:
    """Every builder in turns."""
    place.mkdir()
    context = write_context(place / "context")
    chosen = [kind for kind in kinds if kind.name in BUILDERS]
    chosen += [Buildah] if Podman in kinds else []
    engines = [kind(place / kind.name) for kind in chosen]
    taken: dict[str, dict[str, list[float]]] = {COLD: {}, CACHED: {}, SEND: {}, DIAMOND: {}}
    try:
        for engine in engines:
            engine.start()
            runner_of(engine, runners)(engine.pull(BUSYBOX))
        for number in range(rounds):
            for engine in engines:
                for name, build in builders(engine, runners):
                    _round(taken, name, build, context, place / f"new-{name}-{number}")
                if engine.name == "sampan":
                    _diamond(taken[DIAMOND], engine, runner_of(engine, runners), place / "diamond")
    finally:
        for engine in engines:
            engine.stop()
    return [row for figure, found in taken.items() for row in rows(figure, "s", found)]


def builders(engine: Engine, runners: dict[bool, Runner]) -> list[tuple[str, Callable[..., float]]]:
    """How an engine builds: names, and functions of flags that give seconds."""
    run = runner_of(engine, runners)

    def by(*before: str) -> Callable[..., float]:
        def build(*flags: str) -> float:
            words = engine.command("build", "-q", "--network", "none", *flags)
            return run([*before, *words]) / 1e3

        return build

    if engine.name != "docker":
        return [(engine.name, by())]
    return [
        ("docker, BuildKit", by("env", "DOCKER_BUILDKIT=1")),
        ("docker, classic", by("env", "DOCKER_BUILDKIT=0")),
    ]


def _round(
    taken: dict[str, dict[str, list[float]]],
    name: str,
    build: Callable[..., float],
    context: Path,
    fresh: Path,
) -> None:
    os.sync()
    tag = f"bench-{name.rsplit(maxsplit=1)[-1].lower()}"
    steps = ("-t", tag, str(context))
    taken[COLD].setdefault(name, []).append(build("--no-cache", *steps))
    build(*steps)
    taken[CACHED].setdefault(name, []).append(build(*steps))
    if name != "sampan":
        return  # BuildKit would leave out what no instruction reads: another figure
    write_context(fresh, "FROM scratch\nCOPY Dockerfile /\nLABEL a=b\n")
    taken[SEND].setdefault(name, []).append(build("-t", tag, str(fresh)))


def _diamond(taken: dict[str, list[float]], engine: Engine, run: Runner, place: Path) -> None:
    """The whole, the sum of what its commands took meanwhile, and the same work in one stage.

    The sum is of the same moments as the whole: two processors of a virtual machine that are one
    core's threads make each other slower, so the work alone says nothing of who was at work.
    """
    place.mkdir(exist_ok=True)
    words = engine.command("build", "--network", "none", "--no-cache", "--progress", "rawjson")
    for case, text in (("side by side", diamond()), ("one after the other", chain())):
        (place / "Dockerfile").write_text(text)
        log = place / "log"
        seconds = run(["sh", "-c", 'exec "$@" 2> "$0"', str(log), *words, str(place)]) / 1e3
        taken.setdefault(f"sampan, {case}", []).append(seconds)
        if text == diamond():
            taken.setdefault("sampan, sum of its stages", []).append(_of_commands(log.read_text()))


def _of_commands(log: str) -> float:
    """Seconds that the RUN steps of a build took, one by one."""
    vertexes = [one for line in log.splitlines() for one in json.loads(line).get("vertexes", ())]
    return sum(
        (_time(one["completed"]) - _time(one["started"])).total_seconds()
        for one in vertexes
        if " RUN " in one["name"] and "completed" in one
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def write_context(place: Path, dockerfile: str = STEPS) -> Path:
    """5,000 files of 0.2 to 10 KiB that gzip can halve, the same in every run."""
    noise = random.Random(5)
    place.mkdir()
    (place / "Dockerfile").write_text(dockerfile)
    for number in range(FILES):
        folder = place / f"src/d{number % 50}"
        folder.mkdir(parents=True, exist_ok=True)
        size = noise.randrange(100, 5000)
        (folder / f"f{number}").write_text(noise.randbytes(size).hex())
    return place


def diamond() -> str:
    """A first stage, four that go on from it, and one that takes from all four."""
    lines = [f"FROM {BUSYBOX} AS top", "RUN echo top > /top"]
    for name in MIDDLE:
        lines += [f"FROM top AS {name}", f"RUN {LOOP}; echo {name} > /{name}"]
    lines += ["FROM top", *(f"COPY --from={name} /{name} /{name}" for name in MIDDLE)]
    return "\n".join([*lines, "RUN cat /top", ""])


def chain() -> str:
    """The same work in one stage: the sum of all stages."""
    lines = [f"FROM {BUSYBOX}", "RUN echo top > /top"]
    lines += [f"RUN {LOOP}; echo {name} > /{name}" for name in MIDDLE]
    return "\n".join([*lines, "RUN cat /top", ""])
