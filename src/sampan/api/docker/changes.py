"""`--change` of import: Dockerfile instructions that end up in the image's config. Pure.

CMD and ENTRYPOINT take a JSON list or a line for the shell; ENV and LABEL `key=value` words or
`key value`; the rest one or more words. Everything else cannot be said about an image without
running something, and is refused.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import InvalidArgument
from sampan.spec.image import RunConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

_decode_words = msgspec.json.Decoder(list[str]).decode
_SHELL = ("/bin/sh", "-c")


def run_config(changes: Iterable[str]) -> RunConfig:
    """The config that the instructions describe.

    Raises:
        InvalidArgument: an instruction is unknown or broken.
    """
    told: dict[str, list[str]] = {}
    for change in changes:
        instruction, _, rest = change.strip().partition(" ")
        name, rest = instruction.upper(), rest.strip()
        if name not in _INSTRUCTIONS or not rest:
            raise InvalidArgument(f"{change[:64]!r} is not a valid change command")
        words = _words(name, rest)
        told[name] = told.get(name, []) + words if name in _GROWING else words
    return RunConfig(
        user=_last(told, "USER"),
        env=tuple(told.get("ENV", ())),
        entrypoint=tuple(told.get("ENTRYPOINT", ())),
        cmd=tuple(told.get("CMD", ())),
        working_dir=_last(told, "WORKDIR"),
        exposed_ports=tuple(
            port if "/" in port else f"{port}/tcp" for port in told.get("EXPOSE", ())
        ),
        volumes=tuple(told.get("VOLUME", ())),
        labels=dict(pair.split("=", 1) for pair in told.get("LABEL", ())),
        stop_signal=_last(told, "STOPSIGNAL") or None,
    )


_GROWING = frozenset(("ENV", "LABEL", "EXPOSE", "VOLUME"))
_INSTRUCTIONS = _GROWING | {"CMD", "ENTRYPOINT", "USER", "WORKDIR", "STOPSIGNAL"}


def _words(name: str, rest: str) -> list[str]:
    if rest.startswith("[") and name in ("CMD", "ENTRYPOINT", "VOLUME"):
        try:
            return _decode_words(rest)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"change {name}: {error}") from error
    if name in ("CMD", "ENTRYPOINT"):
        return [*_SHELL, rest]
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise InvalidArgument(f"change {name}: {error}") from error
    if name in ("ENV", "LABEL"):
        return _pairs(name, words, rest)
    return words


def _pairs(name: str, words: list[str], rest: str) -> list[str]:
    if "=" not in words[0]:
        key, _, value = rest.partition(" ")
        if not value:
            raise InvalidArgument(f"change {name}: {rest!r} has no value")
        return [f"{key}={value.strip()}"]
    for word in words:
        if "=" not in word:
            raise InvalidArgument(f"change {name}: {word!r} is not key=value")
    return words


def _last(told: dict[str, list[str]], name: str) -> str:
    words = told.get(name)
    return words[-1] if words else ""
