"""Stages: what lies between one FROM and the next, and which stage needs which.

`plan` checks what needs more than one line: that a file begins with FROM (ARG may come before it),
that names of stages are unique, that a stage copies only from stages above it. `needed` is what a
target reaches; everything else is never run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.builder.language import instructions as ast
from sampan.builder.language.failure import DockerfileError, Place, nearest, show
from sampan.builder.language.parse import parse
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNT_FROM = re.compile(r"(?:^|,)from=([^,]*)")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; `end` is the number of its last line."""

    index: int
    base: ast.From
    instructions: tuple[ast.Instruction, ...]

    @property
    def name(self) -> str:
        """Its name in lower case, "" when it has none."""
        return self.base.name

    @property
    def title(self) -> str:
        """A name for people."""
        return self.base.name or f"stage-{self.index}"


@dataclass(frozen=True, slots=True)
class Program:
    """A whole Dockerfile. `globals` are the ARGs in front of the first FROM."""

    file: str
    escape: str
    directives: dict[str, str]
    globals: tuple[ast.Arg, ...]
    stages: tuple[Stage, ...]

    def find(self, name: str, before: int | None = None) -> Stage | None:
        """The stage of a name or number among those in front of stage `before`."""
        usable = self.stages if before is None else self.stages[:before]
        for stage in reversed(usable):
            if stage.name and stage.name == name.lower():
                return stage
        if name.isascii() and name.isdigit() and len(name) < 6 and int(name) < len(usable):
            return usable[int(name)]
        return None

    def target(self, name: str) -> Stage:
        """The stage to build: the last one, or the one of that name or number.

        Raises:
            InvalidArgument: there is none.
        """
        if not name:
            return self.stages[-1]
        found = self.find(name)
        if found is None:
            hint = nearest(name.lower(), [stage.name for stage in self.stages if stage.name])
            raise InvalidArgument(f"target stage {show(name)} could not be found{hint}")
        return found


def plan(content: bytes, file: str = "Dockerfile") -> Program:
    """Parse and group a Dockerfile.

    Raises:
        DockerfileError: it is malformed.
    """
    source, instructions = parse(content, file)
    before: list[ast.Arg] = []
    groups: list[tuple[ast.From, list[ast.Instruction]]] = []
    for instruction in instructions:
        if isinstance(instruction, ast.From):
            groups.append((instruction, []))
        elif groups:
            groups[-1][1].append(instruction)
        elif isinstance(instruction, ast.Arg):
            before.append(instruction)
        else:
            raise DockerfileError(
                "no build stage in current context: the first instruction must be FROM "
                "(or ARG in front of it)",
                instruction.origin.place,
            )
    if not groups:
        raise DockerfileError("the file has no FROM", Place(file, 1))
    stages = tuple(Stage(n, base, tuple(inner)) for n, (base, inner) in enumerate(groups))
    _check_names(stages)
    return Program(file, source.escape, source.directives, tuple(before), stages)


def _check_names(stages: tuple[Stage, ...]) -> None:
    seen: set[str] = set()
    for stage in stages:
        if stage.name and stage.name in seen:
            raise DockerfileError(
                f"duplicate name {stage.name}: another stage has it", stage.base.origin.place
            )
        seen.add(stage.name)


def sources_of(instruction: ast.Instruction) -> Iterator[str]:
    """The names that an instruction takes files from; they may hold variables."""
    if isinstance(instruction, ast.Copy) and instruction.from_:
        yield instruction.from_
    if isinstance(instruction, ast.Run):
        for mount in instruction.mounts:
            if match := _MOUNT_FROM.search(mount):
                yield match[1]
