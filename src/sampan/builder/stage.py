"""One stage: its instructions in order, each making the next state.

What other stages make is waited for where it is needed, so stages that do not need each other run
at the same time. Instructions that change only the config cost nothing, and they count for the
cache where a command can see them: in its environment, its directory, its user and its shell.
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sampan.builder import configure
from sampan.builder.ahead import Ahead
from sampan.builder.cache import key_of
from sampan.builder.copies import Copies
from sampan.builder.language import instructions as ast
from sampan.builder.language.parse import trigger
from sampan.builder.model import NoteKind, State
from sampan.builder.runs import Runs
from sampan.builder.scope import Scope, environment, expand
from sampan.spec.image import History, RunConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sampan.builder.cache import Filled
    from sampan.builder.graph import Build
    from sampan.builder.language.stages import Stage
    from sampan.builder.language.words import Expander
    from sampan.snapshots.base import Mount

COMMENT = "sampan"
SLOW = (ast.Run, ast.Copy, ast.Workdir)
"""Instructions that may change files, and so take time."""


class StageWork:
    """Carries out one stage of one build."""

    def __init__(self, build: Build, stage: Stage, first: int) -> None:
        """`first` is the number of its FROM among the steps of the build."""
        self.build = build
        self.stage = stage
        self.scope = Scope(build.globals)
        self.number = first
        self.executed = 0
        self.cached = 0
        self._has_cmd = False
        self._slow = 1
        self._slow_total = 1 + sum(isinstance(one, SLOW) for one in stage.instructions)
        self._use_cache = not build.options.no_cache and (
            stage.title not in build.options.no_cache_filter
        )
        self._copies = Copies(self)
        self._runs = Runs(self)
        self.ahead = Ahead(self, self._copies)

    async def run(self) -> State:
        """All instructions; the state behind the last one."""
        try:
            return await self._run()
        finally:
            await self.ahead.aclose()

    async def _run(self) -> State:
        base = self.stage.base
        self._copies.fetch_ahead(self.stage.instructions)
        self._begin(base)
        state = await self.build.bases.state_of(self.stage, self)
        shown = state.key if self.build.bases.parent_of(self.stage) else state.image
        triggers = state.config.on_build
        config = _with_path(replace(state.config, on_build=()))
        state = replace(state, config=config)
        self.note(NoteKind.DONE, shown)
        for text in triggers:
            state = await self._one(state, trigger(text, "\\", base.origin.place), counted=False)
        for place, one in enumerate(self.stage.instructions):
            self.ahead.following = self.stage.instructions[place + 1 :]
            state = await self._one(state, one)
        return state

    async def label(self, state: State, labels: dict[str, str]) -> State:
        """The labels that the caller wants, as one more step."""
        text = " ".join(f"{name}={value}" for name, value in labels.items())
        self.number += 1
        self.note(NoteKind.STARTED, f"LABEL {text}")
        config = replace(state.config, labels={**state.config.labels, **labels})
        return await self._noted(state, config, ["label", labels], f"LABEL {text}")

    # what the kinds of steps share

    def note(self, kind: NoteKind, text: str = "", **more: Any) -> None:
        """Tell what happens in the current step."""
        title = self.stage.name if self.build.is_single else self.stage.title
        title = f"{self.build.label} {title}".strip()
        self.build.tell(kind, self.number, title, text, **more)

    def _begin(self, one: ast.Instruction) -> None:
        """Say that an instruction begins."""
        line, place = one.origin, ""
        if isinstance(one, ast.From):
            place = f"1/{self._slow_total}"
        elif isinstance(one, SLOW):
            self._slow += 1
            place = f"{self._slow}/{self._slow_total}"
        text = f"{line.word} {line.rest}"
        self.note(NoteKind.STARTED, text, place=place, lines=(line.place.line, line.last))

    def words(self, state: State) -> Expander:
        """What expands the words of an instruction at this state."""
        return self.scope.expander(environment(state.config.env))

    async def files_step(
        self,
        state: State,
        parts: list[Any],
        title: str,
        work: Callable[[str, Mount], Awaitable[None]],
        apart: Callable[[], Awaitable[Filled]] | None = None,
    ) -> State:
        """A step that may change files; `parts` are what it is made of, `apart` makes the files
        where they do not depend on what is below."""
        build = self.build

        async def make() -> Filled:
            self.ahead.begin(state, self.scope)
            if apart is not None:
                return await apart()
            return await build.cache.filled(state, build.lease, work)

        made, hit = await build.cache.step(
            state,
            key_of(state.key, *parts),
            title,
            make,
            lease=build.lease,
            made_s=build.epoch(state),
            use=self._use_cache,
        )
        self.executed += 1
        self.cached += hit
        if hit:
            self.note(NoteKind.CACHED)
        changed = made.results != state.results
        if changed:
            build.want_layer(self.stage, made.results[-1])
        made = self._recorded(made, title, changed=changed)
        self.note(NoteKind.DONE, made.key)
        return made

    async def _noted(self, state: State, config: RunConfig, parts: list[Any], title: str) -> State:
        """A step that changes the config only."""
        key = key_of("config", state.key, config.document(), *parts)
        made_s, hit = await self.build.cache.note(state, key, title, self.build.epoch(state))
        if hit and self._use_cache:
            self.note(NoteKind.CACHED)
        else:
            made_s = self.build.epoch(state)
            self.note(NoteKind.RUNNING, key[:12])
        state = self._recorded(replace(state, config=config, made_s=made_s), title, changed=False)
        self.note(NoteKind.DONE, key)
        return state

    def _recorded(self, state: State, title: str, *, changed: bool) -> State:
        """The state with one more line of history."""
        line = History(
            created=timestamp(state.made_s or 0),
            created_by=title,
            author=state.author,
            comment=COMMENT,
            empty_layer=not changed,
        )
        return replace(state, history=(*state.history, line), created=line.created)

    async def _one(self, state: State, one: ast.Instruction, *, counted: bool = True) -> State:
        if counted:
            self.number += 1
            self._begin(one)
        match one:
            case ast.Run():
                return await self._runs.run(state, one)
            case ast.Copy():
                return await self._copies.copy(state, one)
            case ast.Workdir():
                return await self._workdir(state, one)
            case _:
                return await self._config_step(state, one)

    async def _config_step(self, state: State, one: ast.Instruction) -> State:
        title = f"{one.origin.name} {one.origin.rest}"
        config = state.config
        if isinstance(one, ast.Arg):
            self.scope.declare(one, environment(config.env))
            return await self._noted(state, config, ["arg", self.scope.values], title)
        if isinstance(one, ast.Maintainer):
            state = replace(state, author=expand(one, one.name, self.words(state).word))
            return await self._noted(state, config, ["maintainer", state.author], title)
        assert isinstance(one, configure.Known)
        words = self.words(state)
        config = configure.configure(config, one, words, has_cmd=self._has_cmd)
        if isinstance(one, ast.Cmd):
            self._has_cmd = True
        for name in sorted(words.unset):
            self.build.warn(f"{one.origin.place}: the variable ${name} is not set")
        return await self._noted(state, config, [], title)

    async def _workdir(self, state: State, one: ast.Workdir) -> State:
        path = expand(one, one.path, self.words(state).word)
        target = configure.workdir(state.config, path)
        user = state.config.user
        state = replace(state, config=replace(state.config, working_dir=target))

        async def work(_: str, mount: Mount) -> None:
            await self._copies.make_directory(target, user, mount)

        parts = ["workdir", target, user]
        return await self.files_step(state, parts, f"WORKDIR {path}", work)


def timestamp(seconds: int) -> str:
    """Seconds since 1970 as RFC 3339."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _with_path(config: RunConfig) -> RunConfig:
    if any(entry.startswith("PATH=") for entry in config.env):
        return config
    return replace(config, env=(*config.env, configure.DEFAULT_PATH))
