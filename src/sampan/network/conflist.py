"""CNI configuration lists: found in a directory, read, checked.

A list has a name and plugins that run one after the other; a file with a single plugin (`.conf`,
`.json`) counts as a list of one. A name or a plugin's type becomes part of a path, so both are held
to one path component (CVE-2021-20206).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

NEWEST = (1, 1, 0)
MAX_FILE = 1 << 20
_ENDINGS = (".conflist", ".conf", ".json")
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflist:
    """One configuration list. `version` decides which verbs its plugins know."""

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False
    path: str = ""

    @property
    def number(self) -> tuple[int, ...]:
        """The version, to be compared."""
        return version_number(self.version)


def load_conflists(directory: str) -> list[Conflist]:
    """Every list in `directory`, in the order of the files' names; none when it is not there.

    Raises:
        InvalidArgument: a file is no configuration; the message names it.
    """
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    paths = [os.path.join(directory, name) for name in names if name.endswith(_ENDINGS)]
    return [_read(path) for path in paths]


def parse(text: bytes | str, where: str = "") -> Conflist:
    """A list, or a single plugin's configuration as a list of one.

    Raises:
        InvalidArgument: it is neither.
    """
    label = where or "CNI configuration"
    try:
        content = msgspec.json.decode(text)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"{label}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidArgument(f"{label}: not a JSON object")
    plugins = content.get("plugins")
    if plugins is None:
        plugins = [content]
    if not isinstance(plugins, list) or not plugins:
        raise InvalidArgument(f"{label}: no plugins")
    name, version = content.get("name"), content.get("cniVersion", "0.2.0")
    _check_version(version, label)
    return Conflist(
        name=check_word(name, f"{label}: name"),
        version=version,
        plugins=tuple(_plugin(plugin, label) for plugin in plugins),
        disable_check=bool(content.get("disableCheck")),
        disable_gc=bool(content.get("disableGC")),
        path=where,
    )


def check_word(word: object, what: str) -> str:
    """Return `word` when it may be one component of a path.

    Raises:
        InvalidArgument: it may not.
    """
    if isinstance(word, str) and 0 < len(word) <= 255 and word[0] in _FIRST and set(word) <= _REST:
        return word
    raise InvalidArgument(f"{what}: {word!r} is not a word of [a-zA-Z0-9_.-]")


def version_number(version: str) -> tuple[int, ...]:
    """`1.0.0` as numbers."""
    return tuple(int(part) for part in version.split("."))


def _read(path: str) -> Conflist:
    try:
        with open(path, "rb") as file:
            return parse(file.read(MAX_FILE), path)
    except OSError as error:
        raise InvalidArgument(f"read {path}: {error.strerror}") from error


def _check_version(version: object, label: str) -> None:
    parts = version.split(".") if isinstance(version, str) else []
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise InvalidArgument(f"{label}: cniVersion {version!r} is no version")
    if tuple(map(int, parts)) > NEWEST:
        newest = ".".join(map(str, NEWEST))
        raise InvalidArgument(f"{label}: cniVersion {version} is newer than {newest}")


def _plugin(plugin: object, label: str) -> Mapping[str, Any]:
    if not isinstance(plugin, dict):
        raise InvalidArgument(f"{label}: a plugin is not a JSON object")
    check_word(plugin.get("type"), f"{label}: type of a plugin")
    return plugin
