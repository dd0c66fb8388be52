"""OCI hooks that the host's administrator wants in containers: the JSON files of oci-hooks(5).

A file of version 1.0.0 names a program (`hook`, the runtime specification's words), the points of a
container's life where it runs (`stages`), and which containers get it (`when`: always, annotations,
commands, hasBindMounts; all that are said must be true, and one must be said). The files are read
at each start, so a change needs no restart of the daemon. A name that is in several directories
counts in the last of them; hooks run in the order of the lower-case names.

A file that cannot be understood fails the start of every container: a hook that was meant to guard
something must not be left out in silence. Nothing of this is a user's or an image's to say, but the
annotations and the command are what `when` looks at.

Hooks take their time, and the spawner has none: a container with hooks is made by our runtime as a
program of its own (`PROGRAM`), the way in which foreign runtimes are called.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

import sampan
from sampan.engine.model import MountType
from sampan.errors import InvalidArgument, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.engine.model import Container

STAGES = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from sampan.runtime.__main__ import start; start()"
)
PROGRAM = (
    sys.executable,
    *("-I", "-S", "-B", "-c", _BOOT),
    os.path.dirname(os.path.dirname(os.path.abspath(sampan.__file__))),
)
"""`sampan-oci`, wherever this package was installed."""

NAME = "sampan-oci"
_VERSION = "1.0.0"
_MAX_FILE = 1 << 20
_CLASSES = {  # of POSIX expressions, which re does not know
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:space:]": r"\s",
    "[:upper:]": "A-Z",
    "[:xdigit:]": "0-9A-Fa-f",
}


class _Entry(msgspec.Struct):
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class _When(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    always: bool | None = None
    annotations: dict[str, str] = {}
    commands: list[str] = []
    has_bind_mounts: bool | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: str
    hook: _Entry
    when: _When
    stages: list[str]


_decode = msgspec.json.Decoder(_File).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What `when` looks at."""

    command: str
    annotations: Mapping[str, str]
    has_bind_mounts: bool


def add(spec: dict[str, Any], directories: Sequence[str], container: Container) -> None:
    """Put the hooks that are for this container into its configuration.

    Raises:
        InvalidArgument: a file makes no sense. PermissionDenied: others than root may change it.
    """
    facts = Facts(
        command=spec["process"]["args"][0],
        annotations=spec.get("annotations") or {},
        has_bind_mounts=any(mount.type is MountType.BIND for mount in container.mounts),
    )
    for stage, hooks in matching(directories, facts).items():
        spec.setdefault("hooks", {}).setdefault(stage, []).extend(hooks)


def matching(directories: Sequence[str], facts: Facts) -> dict[str, list[dict[str, Any]]]:
    """The `hooks` of a configuration; empty when no file is for this container.

    Raises:
        InvalidArgument: a file makes no sense. PermissionDenied: others than root may change it.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in _paths(directories):
        file = _read(path)
        if _matches(file.when, facts, path):
            entry = {key: value for key, value in msgspec.to_builtins(file.hook).items() if value}
            for stage in dict.fromkeys(file.stages):
                found.setdefault(stage, []).append(entry)
    return found


def _paths(directories: Sequence[str]) -> list[str]:
    """The files in their order. A directory that is not there has none."""
    named: dict[str, str] = {}
    for directory in directories:
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InvalidArgument(f"hooks directory {directory}: {error.strerror}") from error
        named.update({name: f"{directory}/{name}" for name in names if name.endswith(".json")})
    return [named[name] for name in sorted(named, key=lambda name: (name.lower(), name))]


def _read(path: str) -> _File:
    try:
        with open(path, "rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid:
                raise PermissionDenied(f"hooks file {path}: others than root may write it")
            content = stream.read(_MAX_FILE)
        file = _decode(content)
    except OSError as error:
        raise InvalidArgument(f"hooks file {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"hooks file {path}: {error}") from error
    if problem := _problem(file):
        raise InvalidArgument(f"hooks file {path}: {problem}")
    return file


def _problem(file: _File) -> str:
    if file.version != _VERSION:
        return f"version {file.version!r} is not known, {_VERSION} is"
    if not file.hook.path.startswith("/"):
        return f"hook.path {file.hook.path!r} must be absolute"
    if file.when == _When():
        return "when: at least one condition is needed"
    if unknown := [stage for stage in file.stages if stage not in STAGES]:
        return f"stages: {unknown[0]!r} is none of {', '.join(STAGES)}"
    return "" if file.stages else "stages: at least one is needed"


def _matches(when: _When, facts: Facts, path: str) -> bool:
    if when.always is False or (when.has_bind_mounts and not facts.has_bind_mounts):
        return False
    if when.has_bind_mounts is False and facts.has_bind_mounts:
        return False
    try:
        if when.commands and not any(_search(one, facts.command) for one in when.commands):
            return False
        return all(_has(facts.annotations, *pair) for pair in when.annotations.items())
    except re.error as error:
        raise InvalidArgument(f"hooks file {path}: when: {error}") from error


def _has(annotations: Mapping[str, str], name: str, value: str) -> bool:
    return any(_search(name, key) and _search(value, said) for key, said in annotations.items())


def _search(pattern: str, text: str) -> bool:
    for name, members in _CLASSES.items():
        pattern = pattern.replace(name, members)
    return re.search(pattern, text) is not None
