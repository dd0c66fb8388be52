"""Words of an instruction as a Dockerfile has them: quotes, backslashes, variables.

Known are `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}`, outside of single quotes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VARIABLE: Final = (
    r"|\$\{(?P<braced>[A-Za-z_]\w*)(?::(?P<operator>[-+])(?P<word>[^}]*))?\}"
    r"|\$(?P<name>[A-Za-z_]\w*)"
)
_OUTSIDE: Final = re.compile(
    r"(?P<space>\s+)|'(?P<single>[^']*)'|(?P<quote>\")|\\(?P<escaped>.)"
    + _VARIABLE
    + r"|[^\s'\"\\$]+|(?P<stray>')|.",
    re.DOTALL | re.ASCII,
)
_INSIDE: Final = re.compile(
    r"(?P<quote>\")|\\(?P<escaped>[\"\\$])" + _VARIABLE + r"|[^\"\\$]+|.", re.DOTALL | re.ASCII
)


def split(text: str, variables: Mapping[str, str]) -> list[str]:
    """The words of `text`.

    Raises:
        ValueError: a quote is not closed.
    """
    words: list[str] = []
    current: list[str] = []
    for piece in (*_pieces(text, variables), None):
        if piece is not None:
            current.append(piece)
        elif current:
            words.append("".join(current))
            current = []
    return words


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` as one word, with single spaces. Raises ValueError as `split`."""
    return "".join(" " if piece is None else piece for piece in _pieces(text, variables))


def _pieces(text: str, variables: Mapping[str, str]) -> Iterator[str | None]:
    """Parts of words, None where one ends."""
    position, is_open = 0, False
    while position < len(text):
        part = (_INSIDE if is_open else _OUTSIDE).match(text, position)
        assert part is not None  # both take any character in the end
        position = part.end()
        found = part.groupdict()
        if found["quote"]:
            is_open = not is_open
            yield ""
        elif found.get("stray"):
            raise ValueError("a quote is not closed")
        elif found.get("space"):
            yield None
        else:
            yield _value(found, part[0], variables)
    if is_open:
        raise ValueError("a quote is not closed")


def _value(found: Mapping[str, str | None], text: str, variables: Mapping[str, str]) -> str:
    name = found["name"] or found["braced"]
    if name is None:
        return next((v for v in (found.get("single"), found["escaped"]) if v is not None), text)
    value = variables.get(name, "")
    word = found["word"] or ""
    if found["operator"] == "-":
        return value or word
    if found["operator"] == "+":
        return word if value else ""
    return value
