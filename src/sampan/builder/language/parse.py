"""Logical lines to instructions: flags, JSON and shell forms, and what each instruction demands.

Every refusal is a DockerfileError with the place of the line; words that nearly are a known
instruction, flag or value say which one.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sampan.builder.language import instructions as ast
from sampan.builder.language.durations import parse_duration
from sampan.builder.language.failure import DockerfileError, Place, nearest, show
from sampan.builder.language.lines import Line, Source, read, shell_words, unknown_instruction

if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS: Final = {
    "FROM": {"platform": "text"},
    "RUN": {"mount": "many", "network": "text", "security": "text"},
    "COPY": {
        "from": "text",
        "chown": "text",
        "chmod": "text",
        "link": "switch",
        "parents": "switch",
        "exclude": "many",
    },
    "ADD": {
        "chown": "text",
        "chmod": "text",
        "link": "switch",
        "checksum": "text",
        "keep-git-dir": "switch",
        "exclude": "many",
        "unpack": "switch",
    },
    "HEALTHCHECK": {
        "interval": "text",
        "timeout": "text",
        "start-period": "text",
        "start-interval": "text",
        "retries": "text",
    },
}
_STAGE_NAME: Final = re.compile(r"[a-z][a-z0-9-_.]*", re.ASCII)
_NETWORKS: Final = ("default", "host", "none")
_SECURITIES: Final = ("insecure", "sandbox")
_PROBES: Final = ("CMD", "NONE")


def parse(content: bytes, file: str = "Dockerfile") -> tuple[Source, tuple[ast.Instruction, ...]]:
    """The lines and instructions of a Dockerfile.

    Raises:
        DockerfileError: it is malformed.
    """
    source = read(content, file)
    return source, tuple(instruction(line, source.escape) for line in source.lines)


def trigger(text: str, escape: str, place: Place) -> ast.Instruction:
    """The instruction of an ONBUILD, as an image's config has it.

    Raises:
        DockerfileError: it is malformed.
    """
    found = read(text.encode("utf-8", "replace"), place.file).lines
    if len(found) != 1:
        raise DockerfileError("an ONBUILD trigger has more than one instruction", place)
    return instruction(replace(found[0], place=place), escape)


def instruction(line: Line, escape: str) -> ast.Instruction:
    """One instruction."""
    maker = _MAKERS.get(line.name)
    if maker is None:
        raise unknown_instruction(line, tuple(_MAKERS))
    call = _Call(line, escape)
    if not call.rest and line.name not in ("CMD", "ENTRYPOINT", "RUN", "SHELL"):
        raise call.wrong(f"{line.name} requires at least one argument")
    return maker(call)


class _Call:
    """One line with its flags taken off."""

    def __init__(self, line: Line, escape: str) -> None:
        self.line = line
        self.escape = escape
        self.flags: dict[str, list[str]] = {}
        self.rest = line.rest
        if line.name in _FLAGS:
            self._take_flags(_FLAGS[line.name])
        elif line.rest.startswith("--") and line.name not in ("ONBUILD", "CMD", "ENTRYPOINT"):
            word = line.rest.split()[0]
            raise self.wrong(f"unknown flag: {word[:64]}: {line.name} has no flags", word)

    def _take_flags(self, known: dict[str, str]) -> None:
        while self.rest.startswith("--"):
            raw = shell_words(self.rest, self.escape)[0]
            self.rest = self.rest[self.rest.index(raw) + len(raw) :].lstrip()
            if raw == "--":
                return
            name, equals, value = raw[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                hint = nearest(name, known)
                raise self.wrong(
                    f"unknown flag: --{name[:64]}{hint.replace('mean ', 'mean --')}", raw
                )
            self._keep(name, kind, self._bare(value) if equals else None, raw)

    def _keep(self, name: str, kind: str, value: str | None, raw: str) -> None:
        if kind == "switch":
            if value is None:
                value = "true"
            if value.lower() not in ("true", "false"):
                raise self.wrong(
                    f"expecting boolean value for flag --{name}, not {show(value)}", raw
                )
            value = value.lower()
        if value is None or (not value and kind != "many"):
            raise self.wrong(f"missing a value on flag: --{name}", raw)
        if name in self.flags and kind != "many":
            raise self.wrong(f"duplicate flag specified: --{name}", raw)
        self.flags.setdefault(name, []).append(value)

    def _bare(self, value: str) -> str:
        """A flag's value without the quotes that kept its blanks together."""
        parts: list[str] = []
        quote = ""
        position = 0
        while position < len(value):
            char = value[position]
            if char == self.escape and position + 1 < len(value) and value[position + 1] in "\"' ":
                parts.append(value[position + 1])
                position += 2
                continue
            if quote and char == quote:
                quote = ""
            elif not quote and char in "\"'":
                quote = char
            else:
                parts.append(char)
            position += 1
        return "".join(parts)

    def flag(self, name: str) -> str:
        """The value of a flag, "" when it was not given."""
        return self.flags.get(name, [""])[-1]

    def many(self, name: str) -> tuple[str, ...]:
        """The values of a flag that may be repeated."""
        return tuple(self.flags.get(name, ()))

    def on(self, name: str) -> bool:
        """The value of a switch."""
        return self.flag(name) == "true"

    def wrong(self, reason: str, at: str = "") -> DockerfileError:
        """An error at `at`, or at the line's start."""
        place = self.line.place
        first = self.line.original.split("\n", 1)[0]
        column = first.find(at) + 1 if at else 0
        return DockerfileError(reason, Place(place.file, place.line, column or place.column))

    def json(self) -> tuple[str, ...] | None:
        """The strings of a JSON list, None when it is none (and so something for the shell)."""
        if not self.rest.startswith("["):
            return None
        try:
            values = json.loads(self.rest)
        except (ValueError, RecursionError):
            return None
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            return None
        if any("\0" in value for value in values):
            raise self.wrong("a NUL character is not allowed")
        return tuple(values)

    def command(self) -> ast.Command:
        """Either form of a command."""
        words = self.json()
        if words is not None:
            return ast.Command(words, is_shell=False)
        return ast.Command((self.rest,) if self.rest else (), is_shell=True)

    def words(self) -> tuple[str, ...]:
        """A JSON list, or words at blanks."""
        found = self.json()
        return tuple(self.rest.split()) if found is None else found

    def choice(self, name: str, known: tuple[str, ...], default: str) -> str:
        """The value of a flag with a closed set of values."""
        value = self.flag(name) or default
        if value not in known and "$" not in value:
            raise self.wrong(
                f"invalid value {show(value)} for flag --{name}{nearest(value, known)}: "
                f"use one of {', '.join(known)}",
                f"--{name}",
            )
        return value


def _from(call: _Call) -> ast.Instruction:
    words = call.rest.split()
    if len(words) == 1:
        name = ""
    elif len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
        if _STAGE_NAME.fullmatch(name) is None:
            raise call.wrong(
                f"invalid name for build stage: {show(words[2])}: it begins with a letter and goes "
                "on with letters, digits, '-', '_' and '.'",
                words[2],
            )
    else:
        hint = nearest(words[1].upper(), ("AS",)) if len(words) == 3 else ""
        raise call.wrong(f"FROM requires either one or three arguments{hint}")
    return ast.From(origin=call.line, image=words[0], name=name, platform=call.flag("platform"))


def _arg(call: _Call) -> ast.Instruction:
    pairs: list[tuple[str, str | None]] = []
    for word in shell_words(call.rest, call.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise call.wrong(f"ARG names can not be blank: {show(word)}", word)
        pairs.append((name, value if equals else None))
    return ast.Arg(origin=call.line, pairs=tuple(pairs))


def _pairs(call: _Call) -> tuple[ast.Pairs, bool]:
    """`a=b c="d e"`, or the legacy form `a b c`, which is one pair."""
    words = shell_words(call.rest, call.escape)
    if "=" not in words[0]:
        parts = call.rest.split(None, 1)
        if len(parts) < 2:
            raise call.wrong(f"{call.line.name} must have two arguments", call.rest)
        return ((parts[0], parts[1]),), True
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise call.wrong(
                f"syntax error - can't find = in {show(word)}: must be of the form: name=value",
                word,
            )
        if not name:
            raise call.wrong(f"{call.line.name} names can not be blank", word)
        pairs.append((name, value))
    return tuple(pairs), False


def _env(call: _Call) -> ast.Instruction:
    pairs, legacy = _pairs(call)
    return ast.Env(origin=call.line, pairs=pairs, legacy=legacy)


def _label(call: _Call) -> ast.Instruction:
    pairs, legacy = _pairs(call)
    return ast.Label(origin=call.line, pairs=pairs, legacy=legacy)


def _run(call: _Call) -> ast.Instruction:
    command = call.command()
    if not command.words:
        raise call.wrong("RUN requires at least one argument")
    return ast.Run(
        origin=call.line,
        command=command,
        mounts=call.many("mount"),
        network=call.choice("network", _NETWORKS, "default"),
        security=call.choice("security", _SECURITIES, "sandbox"),
        heredocs=call.line.heredocs,
    )


def _cmd(call: _Call) -> ast.Instruction:
    return ast.Cmd(origin=call.line, command=call.command())


def _entrypoint(call: _Call) -> ast.Instruction:
    return ast.Entrypoint(origin=call.line, command=call.command())


def _shell(call: _Call) -> ast.Instruction:
    words = call.json()
    if not words:
        raise call.wrong("SHELL requires the arguments to be in JSON form")
    return ast.Shell(origin=call.line, words=words)


def _files(call: _Call) -> tuple[tuple[str, ...], str]:
    words = call.words()
    name = call.line.name
    if len(words) < 2:
        raise call.wrong(
            f"{name} requires at least two arguments, but only {len(words)} provided. "
            "Destination could not be determined"
        )
    return words[:-1], words[-1]


def _copy(call: _Call) -> ast.Instruction:
    sources, target = _files(call)
    return ast.Copy(
        origin=call.line,
        sources=sources,
        target=target,
        from_=call.flag("from"),
        chown=call.flag("chown"),
        chmod=call.flag("chmod"),
        link=call.on("link"),
        parents=call.on("parents"),
        exclude=call.many("exclude"),
        heredocs=call.line.heredocs,
    )


def _add(call: _Call) -> ast.Instruction:
    sources, target = _files(call)
    unpack = call.flag("unpack")
    return ast.Add(
        origin=call.line,
        sources=sources,
        target=target,
        chown=call.flag("chown"),
        chmod=call.flag("chmod"),
        link=call.on("link"),
        exclude=call.many("exclude"),
        heredocs=call.line.heredocs,
        checksum=call.flag("checksum"),
        keep_git_dir=call.on("keep-git-dir"),
        unpack=None if not unpack else unpack == "true",
    )


def _volume(call: _Call) -> ast.Instruction:
    paths = call.words()
    if not all(path.strip() for path in paths) or not paths:
        raise call.wrong("VOLUME specified can not be an empty string")
    return ast.Volume(origin=call.line, paths=paths)


def _expose(call: _Call) -> ast.Instruction:
    return ast.Expose(origin=call.line, ports=tuple(call.rest.split()))


def _one(call: _Call) -> str:
    return call.rest


def _user(call: _Call) -> ast.Instruction:
    return ast.User(origin=call.line, user=_one(call))


def _workdir(call: _Call) -> ast.Instruction:
    return ast.Workdir(origin=call.line, path=_one(call))


def _stop_signal(call: _Call) -> ast.Instruction:
    if len(call.rest.split()) != 1:
        raise call.wrong("STOPSIGNAL requires exactly one argument")
    return ast.StopSignal(origin=call.line, signal=_one(call))


def _maintainer(call: _Call) -> ast.Instruction:
    return ast.Maintainer(origin=call.line, name=_one(call))


def _health_check(call: _Call) -> ast.Instruction:
    kind, _, rest = call.rest.partition(" ")
    if kind.upper() not in _PROBES:
        hint = nearest(kind.upper(), _PROBES)
        raise call.wrong(f"unknown type {show(kind)} in HEALTHCHECK (try CMD){hint}", kind)
    call.rest = rest.strip()
    if kind.upper() == "NONE":
        if call.rest or call.flags:
            raise call.wrong("HEALTHCHECK NONE takes no arguments")
        return ast.HealthCheck(origin=call.line, command=None)
    command = call.command()
    if not command.words:
        raise call.wrong("missing command after HEALTHCHECK CMD")
    return ast.HealthCheck(
        origin=call.line,
        command=command,
        interval=_duration(call, "interval"),
        timeout=_duration(call, "timeout"),
        start_period=_duration(call, "start-period"),
        start_interval=_duration(call, "start-interval"),
        retries=_retries(call),
    )


def _duration(call: _Call, name: str) -> int:
    text = call.flag(name)
    if not text:
        return 0
    value = parse_duration(text)
    if value is None:
        raise call.wrong(f"invalid duration {show(text)} for --{name}: as in 1m30s", f"--{name}")
    if value != 0 and value < 1_000_000:
        raise call.wrong(f"interval {show(text)} cannot be less than 1ms", f"--{name}")
    return value


def _retries(call: _Call) -> int:
    text = call.flag("retries")
    if not text:
        return 0
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) is None:
        raise call.wrong(f"--retries must be a number that is not negative, not {show(text)}")
    return int(text)


def _on_build(call: _Call) -> ast.Instruction:
    inner = call.rest.split(None, 1)[0].upper()
    if inner == "ONBUILD":
        raise call.wrong("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if inner in ("FROM", "MAINTAINER"):
        raise call.wrong(f"{inner} isn't allowed as an ONBUILD trigger")
    text = call.rest
    for heredoc in call.line.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    trigger(text, call.escape, call.line.place)  # refused now, not when somebody builds on it
    return ast.OnBuild(origin=call.line, text=text)


_MAKERS: Final[dict[str, Callable[[_Call], ast.Instruction]]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _health_check,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _on_build,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
