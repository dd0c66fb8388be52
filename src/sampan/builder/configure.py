"""The instructions that change only the image's config: pure, one function for each."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sampan.builder.language import instructions as ast
from sampan.builder.language.failure import DockerfileError
from sampan.builder.scope import expand
from sampan.engine import signals
from sampan.errors import InvalidArgument
from sampan.spec.image import Healthcheck, RunConfig

if TYPE_CHECKING:
    from sampan.builder.language.words import Expander

DEFAULT_SHELL: Final = ("/bin/sh", "-c")
DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_MAX_RANGE: Final = 65_536

Known = (
    ast.Env
    | ast.Label
    | ast.Cmd
    | ast.Entrypoint
    | ast.Shell
    | ast.Volume
    | ast.Expose
    | ast.User
    | ast.StopSignal
    | ast.HealthCheck
    | ast.OnBuild
)


def configure(config: RunConfig, one: Known, words: Expander, *, has_cmd: bool) -> RunConfig:
    """`config` as the instruction changes it; `has_cmd`: this stage had a CMD of its own.

    Raises:
        DockerfileError: a value is wrong.
    """
    match one:
        case ast.Env():
            return replace(config, env=_env(config.env, one, words))
        case ast.Label():
            pairs = {
                _word(one, name, words): _value(one, value, words) for name, value in one.pairs
            }
            return replace(config, labels={**config.labels, **pairs})
        case ast.Cmd():
            return replace(config, cmd=command(config, one.command))
        case ast.Entrypoint():
            kept = config.cmd if has_cmd else ()
            return replace(config, entrypoint=command(config, one.command), cmd=kept)
        case ast.Volume():
            paths = {_word(one, path, words) for path in one.paths}
            return replace(config, volumes=tuple(sorted({*config.volumes, *paths})))
        case ast.Expose():
            return replace(config, exposed_ports=_ports(config.exposed_ports, one, words))
        case _:
            return _single(config, one, words)


def _single(
    config: RunConfig,
    one: ast.Shell | ast.OnBuild | ast.User | ast.StopSignal | ast.HealthCheck,
    words: Expander,
) -> RunConfig:
    match one:
        case ast.Shell():
            return replace(config, shell=one.words)
        case ast.OnBuild():
            return replace(config, on_build=(*config.on_build, one.text))
        case ast.User():
            return replace(config, user=_word(one, one.user, words))
        case ast.StopSignal():
            name = _word(one, one.signal, words)
            try:
                signals.parse(name)
            except InvalidArgument as error:
                raise DockerfileError(str(error), one.origin.place) from None
            return replace(config, stop_signal=name)
        case ast.HealthCheck():
            return replace(config, healthcheck=_healthcheck(one))


def command(config: RunConfig, wanted: ast.Command) -> tuple[str, ...]:
    """A command as the config has it: the shell form behind the shell."""
    if not wanted.is_shell or not wanted.words:
        return wanted.words
    return (*(config.shell or DEFAULT_SHELL), *wanted.words)


def workdir(config: RunConfig, path: str) -> str:
    """The absolute path of a WORKDIR."""
    return posixpath.normpath("/" + posixpath.join(config.working_dir or "/", path).lstrip("/"))


def absolute(config: RunConfig, path: str) -> tuple[str, bool]:
    """A target as an absolute path, and whether it is a directory by its spelling."""
    is_directory = path.endswith("/") or posixpath.basename(path) in (".", "..")
    return workdir(config, path), is_directory


def set_variables(env: tuple[str, ...], pairs: dict[str, str]) -> tuple[str, ...]:
    """`env` with variables replaced where they stand, or added."""
    left = dict(pairs)
    kept = []
    for entry in env:
        name = entry.partition("=")[0]
        kept.append(f"{name}={left.pop(name)}" if name in left else entry)
    return (*kept, *(f"{name}={value}" for name, value in left.items()))


def _env(env: tuple[str, ...], one: ast.Env, words: Expander) -> tuple[str, ...]:
    pairs = {_word(one, name, words): _value(one, value, words) for name, value in one.pairs}
    for name in pairs:
        if not name or "=" in name or "\0" in name:
            raise DockerfileError(f"invalid name of a variable: {name[:80]!r}", one.origin.place)
    return set_variables(env, pairs)


def _value(one: ast.Env | ast.Label, value: str, words: Expander) -> str:
    return _word(one, value, words)


def _word(one: ast.Instruction, text: str, words: Expander) -> str:
    return expand(one, text, words.word)


def _ports(ports: tuple[str, ...], one: ast.Expose, words: Expander) -> tuple[str, ...]:
    found = set(ports)
    for text in one.ports:
        for port in words.split(text):
            found.update(_range(port, one))
    return tuple(sorted(found))


def _range(text: str, one: ast.Expose) -> list[str]:
    match = _PORT.fullmatch(text.rpartition(":")[2])
    if match is None:
        raise DockerfileError(f"invalid containerPort: {text[:80]}", one.origin.place)
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last < _MAX_RANGE:
        raise DockerfileError(f"invalid range of ports: {text[:80]}", one.origin.place)
    protocol = (match[3] or "tcp").lower()
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _healthcheck(one: ast.HealthCheck) -> Healthcheck:
    if one.command is None:
        return Healthcheck(test=("NONE",))
    kind = "CMD-SHELL" if one.command.is_shell else "CMD"
    return Healthcheck(
        test=(kind, *one.command.words),
        interval=one.interval,
        timeout=one.timeout,
        start_period=one.start_period,
        start_interval=one.start_interval,
        retries=one.retries,
    )
