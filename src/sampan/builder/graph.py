"""One build: which stages it needs, all of them at work at the same time, and the image.

`Build` holds what the parts of one build share. A stage becomes a task when the target needs it;
tasks wait for each other where an instruction takes something from another stage. The layers that
the image will have are made as soon as their files are there, beside the steps that follow.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sampan.builder.bases import SCRATCH, Bases
from sampan.builder.cache import key_of
from sampan.builder.language.stages import Stage, sources_of
from sampan.builder.model import Note, NoteKind, State
from sampan.builder.scope import Globals, platform_arguments
from sampan.builder.stage import StageWork
from sampan.errors import InvalidArgument
from sampan.spec.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sampan.builder.cache import Cache
    from sampan.builder.commands import Commands
    from sampan.builder.files.service import Context, FileWork
    from sampan.builder.language.stages import Program
    from sampan.builder.model import BuildOptions, Report
    from sampan.builder.runmounts import RunMounts
    from sampan.engine.engine import Engine
    from sampan.snapshots.base import Mount


IMAGE = "docker-image://"


class Build:
    """One build. `run` gives the state of the target."""

    def __init__(
        self,
        *,
        engine: Engine,
        files: FileWork,
        cache: Cache,
        commands: Commands,
        run_mounts: RunMounts,
        program: Program,
        options: BuildOptions,
        context: Context | None,
        report: Report,
        lease: str,
        place: tuple[int, str] = (0, ""),
    ) -> None:
        """`place`: how many steps were carried out before, for other platforms, and what is shown
        in front of the names of stages."""
        self.engine = engine
        self.files = files
        self.cache = cache
        self.commands = commands
        self.run_mounts = run_mounts
        self.program = program
        self.options = options
        self.context = context
        self.lease = lease
        self.warnings: list[str] = []
        self.platform, platforms = _platforms(options, engine.images.platform)
        self.globals = Globals(program.globals, options.args, platforms, program.escape)
        self.bases = Bases(self)
        self.works: list[StageWork] = []
        self._report = report
        self._stages: dict[int, asyncio.Task[State]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._exported: frozenset[int] = frozenset()
        self._firsts: dict[int, int] = {}
        self._fetched: dict[str, asyncio.Task[Context]] = {}
        self._before, self.label = place
        self.total = self._before
        self.is_single = False

    async def run(self, target: Stage) -> State:
        """Carry out what the target needs; its state.

        Raises what the steps raise, in a group.
        """
        self._exported = frozenset(self._line_of(target))
        needed = sorted(self._needed(target))
        self._count(needed)
        self.is_single = len(needed) == 1
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for index in needed:
                self._task(self.program.stages[index])
            state = await self.state(target)
            if self.options.labels:
                work = next(work for work in self.works if work.stage is target)
                state = await work.label(state, dict(self.options.labels))
        return state

    def _line_of(self, target: Stage) -> list[int]:
        """The stages whose layers the image has."""
        line = [target.index]
        parent = self.bases.parent_of(target)
        while parent is not None:
            line.append(parent.index)
            parent = self.bases.parent_of(parent)
        return line

    def _needed(self, target: Stage) -> set[int]:
        found: set[int] = set()
        waiting = [target]
        while waiting:
            stage = waiting.pop()
            if stage.index in found:
                continue
            found.add(stage.index)
            parent = self.bases.parent_of(stage)
            names = [name for one in stage.instructions for name in sources_of(one)]
            others = [self.program.find(name, stage.index) for name in names]
            waiting += [other for other in (parent, *others) if other is not None]
        return found

    def _count(self, needed: list[int]) -> None:
        """Number the steps: every instruction of the stages that are carried out."""
        number = 1 + self._before
        for index in needed:
            self._firsts[index] = number
            number += 1 + len(self.program.stages[index].instructions)
        self.total = number - 1 + bool(self.options.labels)

    def _task(self, stage: Stage) -> asyncio.Task[State]:
        task = self._stages.get(stage.index)
        if task is None:
            assert self._tasks is not None
            work = StageWork(self, stage, self._firsts.get(stage.index, self.total))
            self.works.append(work)
            task = self._tasks.create_task(work.run(), name=f"stage {stage.title}")
            self._stages[stage.index] = task
        return task

    async def state(self, stage: Stage) -> State:
        """The state of a stage, when it is done."""
        return await asyncio.shield(self._task(stage))

    async def source(self, name: str, work: StageWork) -> tuple[Context | Mount | None, str]:
        """Where `--from=name` takes files from ("" is the context), and its part of a key, which is
        "" where only the files themselves say what they are."""
        if not name:
            return self.context, "context"
        given = self.options.contexts.get(name)
        if given is not None and not isinstance(given, str):
            return given, "context"
        if given is not None:
            if not given.startswith(IMAGE):
                return await self.remote(given), "context"
            state = await self.bases.image(given.removeprefix(IMAGE), self.platform, work)
            return await self.cache.tree(state), _identity(state)
        stage = self.program.find(name, work.stage.index)
        if stage is not None:
            state = await self.state(stage)
        elif (later := self.program.find(name)) is not None and later.name:
            what = "itself" if later.index == work.stage.index else f"the later stage {later.name}"
            raise InvalidArgument(
                f"stage {work.stage.title} takes files from {what}: only stages above it are there"
            )
        elif name == SCRATCH:
            return None, SCRATCH
        else:
            state = await self.bases.image(name, self.platform, work)
        return await self.cache.tree(state), _identity(state)

    async def remote(self, where: str) -> Context:
        """A named context that has to be fetched, once."""
        return await asyncio.shield(self.fetching(where, lambda: self.files.remote(where)))

    def fetching(
        self, key: str, fetch: Callable[[], Coroutine[Any, Any, Context]]
    ) -> asyncio.Task[Context]:
        """What is fetched for `key`: begun now, or by whoever wanted the same before."""
        task = self._fetched.get(key)
        if task is None:
            assert self._tasks is not None
            task = self._fetched[key] = self._tasks.create_task(fetch(), name=f"fetch {key[:80]}")
        return task

    def close(self) -> None:
        """Let go of what was fetched."""
        for task in self._fetched.values():
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().close()

    def states(self) -> dict[int, State]:
        """What every stage came to that has files of its own, by the stage's number."""
        done = {index: task.result() for index, task in self._stages.items() if task.done()}
        return {index: state for index, state in sorted(done.items()) if state.results}

    def want_layer(self, stage: Stage, result: int) -> None:
        """Make the layer of a result beside what follows, when the image will have it."""
        if stage.index in self._exported and self._tasks is not None:
            self._tasks.create_task(self.cache.layer(result, self.lease))

    def epoch(self, state: State) -> int:
        """The newest time that something made now may have."""
        if self.options.epoch is not None:
            return self.options.epoch
        if self.context is not None and self.context.newest:
            return self.context.newest
        return _seconds(state.created)

    def tell(self, kind: NoteKind, number: int, stage: str, text: str, **more: Any) -> None:
        """Report something."""
        self._report(
            Note(kind=kind, number=number, total=self.total, stage=stage, text=text, **more)
        )

    def warn(self, text: str) -> None:
        """Report something that is allowed and probably wrong, once."""
        if text not in self.warnings:
            self.warnings.append(text)


def _identity(state: State) -> str:
    """What the files of a state count as. An image's are what its digests say; what was built may
    be something else the next time, as with a command that stores the date."""
    return "" if state.results else key_of("state", state.key)


def _platforms(options: BuildOptions, host: Platform) -> tuple[Platform, dict[str, str]]:
    """The platform that is built for, and the arguments that tell of it."""
    wanted = Platform.parse(options.platform) if options.platform else host
    return wanted, platform_arguments(wanted, host)


def _seconds(text: str | None) -> int:
    """A time of an image's config in seconds since 1970, 0 where it has none."""
    from datetime import datetime

    try:
        return max(0, int(datetime.fromisoformat((text or "")[:19] + "+00:00").timestamp()))
    except ValueError:
        return 0
