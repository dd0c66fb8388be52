"""Which variables an instruction sees: build arguments, their defaults, and the environment.

Arguments in front of the first FROM are for the FROM lines; a stage sees one when it declares it
again. A stage sees what it declared itself, from there on; a variable of the environment hides an
argument of its name. Proxies need no declaration, reach only the commands of RUN, and count for
neither cache nor history. The platform's arguments are known in FROM, and elsewhere once declared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sampan.builder.language.failure import DockerfileError, Place
from sampan.builder.language.words import Expander, WordError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sampan.builder.language.instructions import Arg, Instruction
    from sampan.spec.platform import Platform

PROXIES: Final = frozenset(
    name
    for base in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (base, base.lower())
)


def platform_arguments(target: Platform, build: Platform) -> dict[str, str]:
    """TARGETPLATFORM and its kin."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


class Globals:
    """The arguments of a whole build; remembers which of the caller's were used."""

    def __init__(
        self,
        declared: tuple[Arg, ...],
        given: Mapping[str, str | None],
        platforms: Mapping[str, str],
        escape: str,
    ) -> None:
        self.given = given
        self.platforms = platforms
        self.escape = escape
        self.values: dict[str, str] = {}
        self.used: set[str] = set()
        for arg in declared:
            for name, default in arg.pairs:
                self._declare(arg, name, default)

    def _declare(self, arg: Arg, name: str, default: str | None) -> None:
        known = {**self.platforms, **self.values}
        if (value := self.take(name)) is not None:
            self.values[name] = value
        elif default is not None:
            self.values[name] = expand(arg, default, Expander(known, self.escape).word)
        elif name in self.platforms:
            self.values[name] = self.platforms[name]

    def take(self, name: str) -> str | None:
        """The value that the caller gave."""
        value = self.given.get(name)
        if name in self.given:
            self.used.add(name)
        return value

    def expander(self) -> Expander:
        """For FROM lines."""
        return Expander({**self.platforms, **self.values}, self.escape)

    def proxies(self) -> dict[str, str]:
        """The proxies that the caller gave; commands get them."""
        return {name: value for name, value in self.given.items() if name in PROXIES and value}

    def unused(self) -> list[str]:
        """The caller's arguments that nobody declared."""
        return sorted(self.given.keys() - self.used - PROXIES - self.platforms.keys())


class Scope:
    """The arguments of one stage."""

    def __init__(self, globals_: Globals) -> None:
        self._globals = globals_
        self.values: dict[str, str] = {}

    def copy(self) -> Scope:
        """The same, to be changed apart."""
        made = Scope(self._globals)
        made.values = dict(self.values)
        return made

    def declare(self, arg: Arg, env: Mapping[str, str]) -> None:
        """An ARG of the stage."""
        for name, default in arg.pairs:
            value = self._globals.take(name)
            if value is None and default is not None:
                value = expand(arg, default, self.expander(env).word)
            if value is None:
                value = self._globals.values.get(name, self._globals.platforms.get(name))
            if value is not None:
                self.values[name] = value

    def expander(self, env: Mapping[str, str]) -> Expander:
        """For the words of an instruction."""
        return Expander({**self.values, **env}, self._globals.escape)

    def for_commands(self, env: Mapping[str, str]) -> dict[str, str]:
        """The arguments that a command sees beside the environment; they count for the cache."""
        return {name: value for name, value in sorted(self.values.items()) if name not in env}


def environment(env: tuple[str, ...]) -> dict[str, str]:
    """`A=b` entries as a mapping."""
    return {name: value for name, _, value in (entry.partition("=") for entry in env)}


def expand(instruction: Instruction, text: str, how: Callable[[str], str]) -> str:
    """`text` expanded; an error gets the place of the instruction."""
    try:
        return how(text)
    except WordError as error:
        place = instruction.origin.place
        line = instruction.origin.original.split("\n", 1)[0]
        column = line.find(text) + 1 + error.column if text in line else place.column
        raise DockerfileError(
            f"failed to process {text[:80]!r}: {error}", Place(place.file, place.line, column)
        ) from None
