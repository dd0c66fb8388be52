"""Dockerfile instructions that set a part of an image's config: `--change` of import and commit.

One instruction a text: CMD ENTRYPOINT ENV EXPOSE LABEL USER VOLUME WORKDIR STOPSIGNAL SHELL, each
with the two forms that it has in a Dockerfile (`CMD ["a", "b"]` or `CMD a b`). Variables are those
of the environment so far.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.images import shellwords
from sampan.spec.documents import checked_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sampan.spec.image import RunConfig


def apply(config: RunConfig, changes: Iterable[str]) -> RunConfig:
    """`config` with the changes made, in their order.

    Raises:
        InvalidArgument: an instruction is unknown or malformed.
    """
    changes = tuple(changes)
    named = {change.strip().partition(" ")[0].upper() for change in changes}
    if "ENTRYPOINT" in named and "CMD" not in named:
        config = replace(config, cmd=())  # it was meant for the other program
    for change in changes:
        name, _, rest = change.strip().partition(" ")
        try:
            config = _change(config, name.upper(), rest.strip(), change)
        except ValueError as error:
            raise _invalid(change, str(error)) from None
    return config


def _change(config: RunConfig, name: str, rest: str, change: str) -> RunConfig:
    if not rest:
        raise _invalid(change, "it has no value")
    variables = dict(entry.split("=", 1) for entry in config.env if "=" in entry)
    match name:
        case "CMD":
            return replace(config, cmd=_command(config, rest, change))
        case "ENTRYPOINT":
            return replace(config, entrypoint=_command(config, rest, change))
        case "ENV":
            return replace(config, env=_with_env(config.env, _pairs(rest, variables, change)))
        case "LABEL":
            labels = _pairs(rest, variables, change)
            return replace(config, labels={**config.labels, **labels})
        case "EXPOSE":
            words = shellwords.expand(rest, variables).split()
            ports = (port if "/" in port else f"{port}/tcp" for port in words)
            return replace(config, exposed_ports=_joined(config.exposed_ports, ports))
        case "VOLUME":
            listed = _json_list(rest, change)
            volumes = listed or shellwords.expand(rest, variables).split()
            return replace(config, volumes=_joined(config.volumes, volumes))
        case "SHELL":
            return replace(config, shell=_json_list(rest, change))
        case _:
            return _text(config, name, shellwords.expand(rest, variables), change)


def _text(config: RunConfig, name: str, rest: str, change: str) -> RunConfig:
    match name:
        case "USER":
            return replace(config, user=rest)
        case "WORKDIR":
            return replace(config, working_dir=rest)
        case "STOPSIGNAL":
            return replace(config, stop_signal=rest)
        case "ONBUILD":
            return replace(config, on_build=(*config.on_build, rest))
        case _:
            raise _invalid(change, f"{name[:40]} is not an instruction that can be used here")


def _command(config: RunConfig, rest: str, change: str) -> tuple[str, ...]:
    if rest.startswith("["):
        return _json_list(rest, change)
    return (*(config.shell or ("/bin/sh", "-c")), rest)


def _json_list(rest: str, change: str) -> tuple[str, ...]:
    """The strings of a JSON list; empty when it does not look like one."""
    if not rest.startswith("["):
        return ()
    try:
        values = json.loads(rest)
    except (ValueError, RecursionError):
        raise _invalid(change, "the list is not valid JSON") from None
    return tuple(checked_text(value, f"change {change[:80]!r}") for value in values)


def _pairs(rest: str, variables: Mapping[str, str], change: str) -> dict[str, str]:
    """`a=b "c=d e"`, or the old form `a b c`, which is one pair."""
    name, _, value = rest.partition(" ")
    if "=" not in name:
        return {name: shellwords.expand(value.strip(), variables)}
    pairs: dict[str, str] = {}
    for word in shellwords.split(rest, variables):
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise _invalid(change, f"{word[:80]!r} is not name=value")
        pairs[key] = value
    return pairs


def _with_env(env: tuple[str, ...], pairs: dict[str, str]) -> tuple[str, ...]:
    kept = (entry for entry in env if entry.partition("=")[0] not in pairs)
    return (*kept, *(f"{key}={value}" for key, value in pairs.items()))


def _joined(old: tuple[str, ...], new: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*old, *new}))


def _invalid(change: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"change {change[:160]!r}: {why}")
