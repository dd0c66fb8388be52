"""The two flags with a grammar of their own: `--mount` and `--ulimit`."""

from __future__ import annotations

import os

from sampan.cli.flags import FlagError
from sampan.cli.units import parse_bool
from sampan.client.sizes import parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
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


def parse_mount(text: str) -> dict[str, Any]:
    """`type=bind,src=/a,dst=/b,readonly` as the API has it.

    Raises:
        FlagError: a field is unknown or wrong, or one is missing.
    """
    mount: dict[str, Any] = {"Type": "volume"}
    try:
        for field in text.split(","):
            _field(mount, field)
        if not mount.get("Target"):
            raise ValueError("target is required")
    except ValueError as error:
        raise FlagError(f'invalid argument "{text}" for "--mount" flag: {error}') from None
    return mount


def _field(mount: dict[str, Any], field: str) -> None:
    name, equals, value = field.partition("=")
    name = name.lower()
    if name in ("readonly", "ro"):
        mount["ReadOnly"] = parse_bool(value) if equals else True
        return
    if not equals:
        raise ValueError(f"invalid field '{field}' must be a key=value pair")
    if name in _NAMES:
        if name in ("source", "src") and value.startswith("."):
            value = os.path.abspath(value)
        mount[_NAMES[name]] = value
    elif name == "bind-propagation":
        mount.setdefault("BindOptions", {})["Propagation"] = value
    elif name == "tmpfs-size":
        mount.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_bytes(value)
    elif name == "tmpfs-mode":
        mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
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
