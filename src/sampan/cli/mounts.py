"""The two flags with a grammar of their own: `--mount` and `--ulimit`."""

from __future__ import annotations

import os

from sampan.cli.flags import FlagError
from sampan.cli.units import parse_bool
from sampan.client.sizes import parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending "
    "stack".split()
)
_NAMES = {
    "type": "Type",
    "source": "Source",
    "src": "Source",
    "target": "Target",
    "dst": "Target",
    "destination": "Target",
}


_SWITCHES = frozenset(("volume-nocopy", "bind-nonrecursive", "bind-create-src"))


def _bind(mount: dict[str, Any]) -> dict[str, Any]:
    return mount.setdefault("BindOptions", {})  # type: ignore[no-any-return]


def _volume(mount: dict[str, Any]) -> dict[str, Any]:
    return mount.setdefault("VolumeOptions", {})  # type: ignore[no-any-return]


def _tmpfs(mount: dict[str, Any]) -> dict[str, Any]:
    return mount.setdefault("TmpfsOptions", {})  # type: ignore[no-any-return]


def _recursive(mount: dict[str, Any], value: str) -> None:
    """`bind-recursive`: whether mounts below the source come along, and may be written."""
    words: dict[str, dict[str, bool]] = {
        "enabled": {},
        "disabled": {"NonRecursive": True},
        "writable": {"ReadOnlyNonRecursive": True},
        "readonly": {"ReadOnlyForceRecursive": True},
    }
    if value not in words:
        raise ValueError(f"invalid value for bind-recursive: {value!r}")
    _bind(mount).update(words[value])


def _label(mount: dict[str, Any], value: str) -> None:
    name, _, text = value.partition("=")
    _volume(mount).setdefault("Labels", {})[name] = text


def _driver(mount: dict[str, Any]) -> dict[str, Any]:
    return _volume(mount).setdefault("DriverConfig", {})  # type: ignore[no-any-return]


def _driver_option(mount: dict[str, Any], value: str) -> None:
    name, _, text = value.partition("=")
    _driver(mount).setdefault("Options", {})[name] = text


_OPTIONS: dict[str, Callable[[dict[str, Any], str], object]] = {
    "bind-propagation": lambda mount, value: _bind(mount).update(Propagation=value),
    "bind-nonrecursive": lambda m, value: _bind(m).update(NonRecursive=parse_bool(value)),
    "bind-create-src": lambda m, value: _bind(m).update(CreateMountpoint=parse_bool(value)),
    "bind-recursive": _recursive,
    "consistency": lambda mount, value: mount.update(Consistency=value),
    "image-subpath": lambda m, v: m.setdefault("ImageOptions", {}).update(Subpath=v),
    "volume-driver": lambda mount, value: _driver(mount).update(Name=value),
    "volume-label": _label,
    "volume-nocopy": lambda mount, value: _volume(mount).update(NoCopy=parse_bool(value)),
    "volume-opt": _driver_option,
    "volume-subpath": lambda mount, value: _volume(mount).update(Subpath=value),
    "tmpfs-size": lambda mount, value: _tmpfs(mount).update(SizeBytes=parse_bytes(value)),
    "tmpfs-mode": lambda mount, value: _tmpfs(mount).update(Mode=int(value, 8)),
}


def parse_mount(text: str) -> dict[str, Any]:
    """`type=bind,src=/a,dst=/b,readonly` as the API has it.

    Raises:
        FlagError: a field is unknown or wrong, or one is missing.
    """
    mount: dict[str, Any] = {"Type": "volume"}
    try:
        for field in _fields(text):
            _field(mount, field)
        if not mount.get("Target"):
            raise ValueError("target is required")
    except ValueError as error:
        raise FlagError(f'invalid argument "{text}" for "--mount" flag: {error}') from None
    return mount


def _fields(text: str) -> list[str]:
    """The comma-separated fields of `text`; one in double quotes may contain commas."""
    fields: list[str] = []
    rest = text
    while rest:
        if rest.startswith('"'):
            field, quote, rest = rest[1:].partition('"')
            if not quote or rest[:1] not in ("", ","):
                raise ValueError("a quoted field does not end")
            rest = rest[1:]
        else:
            field, _, rest = rest.partition(",")
        fields.append(field)
    return fields


def _field(mount: dict[str, Any], field: str) -> None:
    name, equals, value = field.partition("=")
    name = name.lower()
    if name in ("readonly", "ro"):
        mount["ReadOnly"] = parse_bool(value) if equals else True
        return
    if name in _SWITCHES and not equals:
        value, equals = "true", "="
    if not equals:
        raise ValueError(f"invalid field '{field}' must be a key=value pair")
    if name in _NAMES:
        if name in ("source", "src") and value.startswith("."):
            value = os.path.abspath(value)
        mount[_NAMES[name]] = value
    elif name in _OPTIONS:
        _OPTIONS[name](mount, value)
    else:
        raise ValueError(f"unexpected key '{name}' in '{field}'")


def parse_ulimit(text: str) -> dict[str, Any]:
    """`nofile=1024:2048` as the API has it.

    Raises:
        FlagError: the limit is unknown or its values are wrong.
    """
    name, equals, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    try:
        if not equals:
            raise ValueError(f"invalid ulimit argument: {text}")
        if name not in _ULIMITS:
            raise ValueError(f"invalid ulimit type: {name}")
        low = int(soft)
        high = int(hard) if colon else low
        if high != -1 and (low > high or low == -1):
            raise ValueError(
                f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}"
            )
    except ValueError as error:
        raise FlagError(f'invalid argument "{text}" for "--ulimit" flag: {error}') from None
    return {"Name": name, "Soft": low, "Hard": high}
