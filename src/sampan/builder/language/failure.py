"""What is wrong with a Dockerfile, and where: file, line, column, and the word that was meant."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file; both numbers count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class DockerfileError(InvalidArgument):
    """A Dockerfile is wrong. `place` is where, `reason` the sentence without the place."""

    def __init__(self, reason: str, place: Place) -> None:
        super().__init__(f"dockerfile parse error: {place}: {reason}")
        self.reason = reason
        self.place = place


def show(text: str) -> str:
    """`text` for a message: quoted, on one line, and short."""
    return repr(text[:_SHOWN] + ("..." if len(text) > _SHOWN else ""))


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the known word that is nearest, or nothing."""
    found = difflib.get_close_matches(word[:64], sorted(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""
