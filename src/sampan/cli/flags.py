"""Flags: a command's help text is the table that its arguments are parsed by.

Each line `  -e, --env list    Set environment variables` declares a flag: a short and a long name,
and a word for the kind of value; no word means a switch. The rules are those of docker's parser
(pflag): `--name value`, `--name=value`, `-it`, `-eA=b`, `-m=64m`, and `--` ends the flags. Where a
command runs another one, flags end at the first word that is none. So are its sentences.
"""

from __future__ import annotations

from sampan.cli.units import parse_bool, parse_cpus, parse_duration, parse_int
from sampan.client.sizes import parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CONVERT: dict[str, Callable[[str], Any]] = {
    "": parse_bool,
    "bytes": parse_bytes,
    "decimal": parse_cpus,
    "duration": parse_duration,
    "int": parse_int,
    "uint16": parse_int,
}
_MANY = frozenset(("list", "map", "mount", "ulimit", "filter"))


class FlagError(Exception):
    """The flags are wrong; the text says how."""


class HelpWanted(Exception):
    """Help was asked for: the text is the command it is about, or nothing for the one at hand."""


class Flag:
    """One flag: its names, and the kind of value it takes ("" for a switch)."""

    __slots__ = ("kind", "long", "short")

    def __init__(self, short: str, long: str, kind: str) -> None:
        self.short = short
        self.long = long
        self.kind = kind

    @property
    def title(self) -> str:
        """Both names, as messages give them."""
        return f"-{self.short}, --{self.long}" if self.short else f"--{self.long}"


class Values:
    """The values of a command's flags; a flag that was not given has the default asked for."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def has(self, name: str) -> bool:
        """Whether the flag was given."""
        return name in self._values

    def on(self, name: str, default: bool = False) -> bool:  # noqa: FBT001, FBT002, RUF100
        """The value of a switch."""
        return bool(self._values.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        """The value of a flag that takes text."""
        value = self._values.get(name, default)
        return value if isinstance(value, str) else str(value)

    def number(self, name: str) -> int | None:
        """The value of a flag that takes a number, a size or a duration."""
        value = self._values.get(name)
        return value if isinstance(value, int) else None

    def many(self, name: str) -> list[str]:
        """The values of a flag that may be given many times."""
        return self._values.get(name) or []


def declared(options: str) -> dict[str, Flag]:
    """The flags of a help text, by each of their names."""
    flags: dict[str, Flag] = {}
    for line in options.split("\n"):
        if not line.startswith(("  -", "      --")):
            continue
        names = line.strip().split("  ", 1)[0].split(" ")
        short = names.pop(0)[1:-1] if names[0].endswith(",") else ""
        flag = Flag(short, names[0][2:], names[1] if len(names) > 1 else "")
        flags[flag.long] = flag
        if short:
            flags[short] = flag
    return flags


class _Parser:
    """Consumes arguments from the left."""

    def __init__(self, options: str, arguments: list[str]) -> None:
        self.flags = declared(options)
        self.rest = arguments[::-1]
        self.values: dict[str, Any] = {}

    def long(self, word: str) -> None:
        name, equals, value = word[2:].partition("=")
        if not name or name.startswith("-"):
            raise FlagError(f"bad flag syntax: {word}")
        if name == "help":
            raise HelpWanted
        flag = self.flags.get(name) if len(name) > 1 else None
        if flag is None:
            raise FlagError(f"unknown flag: --{name}")
        if equals:
            self.store(flag, value)
        elif not flag.kind:
            self.store(flag, "true")
        elif self.rest:
            self.store(flag, self.rest.pop())
        else:
            raise FlagError(f"flag needs an argument: --{name}")

    def short(self, word: str) -> None:
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self.flags.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpWanted
                raise FlagError(f"unknown shorthand flag: {letter!r} in {word}")
            if letters.startswith("="):
                return self.store(flag, letters[1:])
            if not flag.kind:
                self.store(flag, "true")
            elif letters or self.rest:
                return self.store(flag, letters or self.rest.pop())
            else:
                raise FlagError(f"flag needs an argument: {letter!r} in {word}")
        return None

    def store(self, flag: Flag, value: str) -> None:
        if flag.kind in _MANY:
            self.values.setdefault(flag.long, []).append(value)
            return
        convert = _CONVERT.get(flag.kind)
        try:
            self.values[flag.long] = convert(value) if convert else value
        except ValueError as error:
            raise FlagError(
                f'invalid argument "{value}" for "{flag.title}" flag: {error}'
            ) from None


def parse(
    options: str, arguments: list[str], *, interspersed: bool = True
) -> tuple[Values, list[str]]:
    """The values of the flags among `arguments`, and the other arguments.

    Raises:
        FlagError: a flag is unknown, or its value is missing or wrong.
        HelpWanted: one of them is --help.
    """
    parser = _Parser(options, arguments)
    words: list[str] = []
    while parser.rest:
        word = parser.rest.pop()
        if word == "--":
            words += parser.rest[::-1]
            break
        if word.startswith("--"):
            parser.long(word)
        elif word.startswith("-") and word != "-":
            parser.short(word)
        else:
            words.append(word)
            if not interspersed:
                words += parser.rest[::-1]
                break
    return Values(parser.values), words
