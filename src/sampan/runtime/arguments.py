"""Parsing of the command line of `sampan-oci`, by the tables of `commands`.

By hand: a start of this program is counted in milliseconds. `--name value` and `--name=value` mean
the same, and one dash does as well as two. Flags may follow a command's argument, except where the
rest of the line belongs to another program (`exec`, `ps`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class UsageError(ValueError):
    """The command line is wrong; the message says how."""


class Parsed:
    """`flags` by their long name and the `rest` of the words."""

    __slots__ = ("flags", "rest")

    def __init__(self) -> None:
        self.flags: dict[str, Any] = {}
        self.rest: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """A text flag."""
        value: str = self.flags.get(name, default)
        return value

    def on(self, name: str) -> bool:
        """A boolean flag."""
        return bool(self.flags.get(name))

    def number(self, name: str) -> int:
        """A number flag, 0 by default."""
        return int(self.flags.get(name, 0))

    def list(self, name: str) -> list[str]:
        """A flag that may be repeated."""
        return list(self.flags.get(name, []))


def parse(words: list[str], table: dict[str, str], *, open_ended: bool = True) -> Parsed:
    """The flags of `words` by `table`.

    `open_ended` stops at the first word that is no flag; what follows is `rest` as it stands.

    Raises:
        UsageError: a flag is unknown, lacks its value, or has one of the wrong kind.
    """
    parsed = Parsed()
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            parsed.rest += words[position + 1 :]
            return parsed
        if not word.startswith("-") or word == "-":
            if open_ended:
                parsed.rest += words[position:]
                return parsed
            parsed.rest.append(word)
            position += 1
            continue
        position = _take_flag(parsed.flags, words, position, table)
    return parsed


def _take_flag(
    flags: dict[str, Any], words: list[str], position: int, table: dict[str, str]
) -> int:
    """Store the flag at `position`; the position of the word after it and its value."""
    word = words[position]
    name, equals, value = word.lstrip("-").partition("=")
    kind = table.get(name)
    if kind is not None and kind.startswith("="):
        name, kind = kind[1:], table[kind[1:]]
    if kind is None:
        raise UsageError(f"flag provided but not defined: {word.partition('=')[0]}")
    kind = kind.lstrip("~")
    if kind == "bool":
        flags[name] = _truth(name, value) if equals else True
        return position + 1
    if not equals:
        position += 1
        if position == len(words):
            raise UsageError(f"flag needs an argument: {word}")
        value = words[position]
    _store(flags, name, kind, value)
    return position + 1


def _truth(name: str, value: str) -> bool:
    if value not in _TRUE and value not in _FALSE:
        raise UsageError(f'invalid boolean value "{value}" for flag -{name}')
    return value in _TRUE


def _store(flags: dict[str, Any], name: str, kind: str, value: str) -> None:
    if kind == "list":
        flags.setdefault(name, []).append(value)
    elif kind == "number":
        if not (value.isascii() and value.isdigit()):
            raise UsageError(f'invalid value "{value}" for flag -{name}: not a number')
        flags[name] = int(value)
    else:
        flags[name] = value
