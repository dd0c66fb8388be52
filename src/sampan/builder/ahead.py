"""Instructions of a stage that are done ahead of their turn: COPY and ADD with --link.

Such an instruction reads nothing of its own stage. So as soon as a step of the stage has to be
carried out, the linked instructions behind it begin, beside it, in snapshots above nothing. In its
turn each is put above what the stage has come to by then, as the layers of a pulled image are.

Nothing is done ahead while the cache answers, and what fails ahead is done again in its turn, where
its error belongs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.builder import configure
from sampan.builder.copies import is_linked
from sampan.builder.language import instructions as ast
from sampan.builder.language.failure import DockerfileError
from sampan.builder.scope import environment, expand
from sampan.errors import SampanError
from sampan.images.failures import finish

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sampan.builder.cache import Filled
    from sampan.builder.copies import Copies, Order
    from sampan.builder.model import State
    from sampan.builder.scope import Scope
    from sampan.builder.stage import StageWork

    Made = tuple[Filled, list[object]]


class Ahead:
    """The linked instructions of one stage. `following` are the instructions whose turn is yet to
    come."""

    def __init__(self, stage: StageWork, copies: Copies) -> None:
        self.following: Sequence[ast.Instruction] = ()
        self._stage = stage
        self._copies = copies
        self._tasks: dict[int, asyncio.Task[Made | None]] = {}

    def begin(self, state: State, scope: Scope) -> None:
        """Begin what follows and can be done now; `state` and `scope` are those of the moment."""
        with suppress(DockerfileError):  # which is told in its turn
            for one, seen, known in _foreseen(self.following, state, scope):
                if id(one) not in self._tasks:
                    made = self._made(one, seen, known)
                    self._tasks[id(one)] = asyncio.create_task(made, name="ahead")

    async def take(self, one: ast.Copy, order: Order) -> Filled | None:
        """The files of an instruction whose turn has come, if they were made as ordered."""
        task = self._tasks.get(id(one))
        made = None if task is None else await task
        if made is None or made[1] != order.parts:
            return None
        del self._tasks[id(one)]
        return made[0]

    async def aclose(self) -> None:
        """End what nobody took."""
        for task in self._tasks.values():
            task.cancel()
        await finish(self._discard())

    async def _discard(self) -> None:
        for made in await asyncio.gather(*self._tasks.values(), return_exceptions=True):
            if isinstance(made, tuple):
                await self._stage.build.cache.discard(made[0].active)

    async def _made(self, one: ast.Copy, state: State, scope: Scope) -> Made | None:
        words = scope.expander(environment(state.config.env))
        try:
            async with self._copies.ordered(state, one, words) as order:
                if not is_linked(one, order.job):
                    return None
                return await self._copies.apart(order), order.parts
        except SampanError:
            return None


def _foreseen(
    instructions: Sequence[ast.Instruction], state: State, scope: Scope
) -> Iterator[tuple[ast.Copy, State, Scope]]:
    """The linked instructions, each with the config and the arguments that it will see."""
    scope = scope.copy()
    for one in instructions:
        words = scope.expander(environment(state.config.env))
        config = state.config
        match one:
            case ast.Copy() if one.link:
                yield one, state, scope.copy()
            case ast.Copy() | ast.Run() | ast.Maintainer():
                pass
            case ast.Arg():
                scope.declare(one, environment(config.env))
            case ast.Workdir():
                path = expand(one, one.path, words.word)
                config = replace(config, working_dir=configure.workdir(config, path))
            case _:
                assert isinstance(one, configure.Known)
                config = configure.configure(config, one, words, has_cmd=False)
        state = replace(state, config=config)
