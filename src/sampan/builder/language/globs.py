"""Shell patterns of `*` and `?` against text, in linear time.

A pattern is cut at its stars into pieces of fixed length; each piece is looked for once. So a
hostile pattern cannot make a matcher go back and forth for minutes, as a regular expression may.
"""

from __future__ import annotations

import re


class Glob:
    """A pattern; `parts` are literal texts, "?" for any character and "*" for any text.

    A literal "?" or "*" comes as `("?",)`, so that the two cannot be confused.
    """

    def __init__(self, parts: list[str | tuple[str]]) -> None:
        pieces: list[list[str]] = [[]]
        for part in parts:
            if part == "*":
                pieces.append([])
            elif part == "?":
                pieces[-1].append(".")
            else:
                pieces[-1].append(re.escape(part if isinstance(part, str) else part[0]))
        self._pieces = [_piece(piece) for piece in pieces]
        self._backward = [_piece(_reversed(piece)) for piece in reversed(pieces)]
        self.is_empty = pieces == [[]]

    def search(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """The leftmost match from `start` on, and the longest one there."""
        first = self._pieces[0].search(text, start)
        if first is None:
            return None
        end = _ends(self._pieces[1:], text, first.end(), longest=True)
        return None if end is None else (first.start(), end)

    def prefix(self, text: str, *, longest: bool) -> int | None:
        """How long the shortest or longest prefix is that matches."""
        return _anchored(self._pieces, text, longest=longest)

    def suffix(self, text: str, *, longest: bool) -> int | None:
        """How long the shortest or longest suffix is that matches."""
        return _anchored(self._backward, text[::-1], longest=longest)


def _piece(parts: list[str]) -> re.Pattern[str]:
    return re.compile("".join(parts), re.DOTALL)


def _reversed(parts: list[str]) -> list[str]:
    """The same characters backwards; each part is one any-character or an escaped literal."""
    return [part if part == "." else re.escape(_unescape(part)[::-1]) for part in reversed(parts)]


def _unescape(pattern: str) -> str:
    return re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)


def _anchored(pieces: list[re.Pattern[str]], text: str, *, longest: bool) -> int | None:
    first = pieces[0].match(text)
    return None if first is None else _ends(pieces[1:], text, first.end(), longest=longest)


def _ends(pieces: list[re.Pattern[str]], text: str, at: int, *, longest: bool) -> int | None:
    """Where the match ends when `pieces`, any text before each, follow position `at`."""
    for number, piece in enumerate(pieces, 1):
        found = piece.search(text, at)
        if found is None:
            return None
        if number == len(pieces) and longest:
            width = found.end() - found.start()
            for start in range(len(text) - width, found.start(), -1):
                if piece.match(text, start):
                    return start + width
        at = found.end()
    return at
