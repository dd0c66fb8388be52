"""The flags about devices: `--device`, and the rates and weights of block devices."""

from __future__ import annotations

from sampan.cli.flags import FlagError
from sampan.client.sizes import parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parse_device(text: str) -> dict[str, Any]:
    """`/dev/fuse`, `/dev/sda:/dev/xvda:r`, `/dev/sda:rw` as the API has it.

    Raises:
        FlagError: it is none of these.
    """
    parts = text.split(":")
    path, permissions = parts[0], "rwm"
    inside = path
    if len(parts) > 1:
        if _is_mode(parts[1]) and len(parts) == 2:
            permissions = parts[1]
        else:
            inside = parts[1] or path
    if len(parts) == 3:
        permissions = parts[2]
    if not path or len(parts) > 3 or not _is_mode(permissions):
        raise FlagError(f'invalid argument "{text}" for "--device" flag: bad format for path')
    return {"PathOnHost": path, "PathInContainer": inside, "CgroupPermissions": permissions}


def _is_mode(text: str) -> bool:
    return bool(text) and not set(text) - set("rwm") and len(set(text)) == len(text)


def parse_gpus(text: str) -> dict[str, Any]:
    """`all`, `2`, `device=0`, `"device=GPU-1,GPU-2"` or `count=1,driver=nvidia` as the API has it.

    Raises:
        FlagError: it is malformed.
    """
    request: dict[str, Any] = {"Driver": "", "Count": 0, "Capabilities": [["gpu"]]}
    for part in text.strip('"').split(","):
        key, equals, value = part.partition("=")
        if not equals and request.get("DeviceIDs"):
            request["DeviceIDs"].append(part)  # a list of devices has commas as well
        elif key == "device":
            request["DeviceIDs"] = [value]
        elif key == "driver":
            request["Driver"] = value
        elif key == "capabilities":
            request["Capabilities"] = [["gpu", value]]
        else:
            request["Count"] = _count(text, value if key == "count" else part)
    if not request["Count"] and not request.get("DeviceIDs"):
        request["Count"] = 1
    return request


def _count(text: str, word: str) -> int:
    if word == "all":
        return -1
    if not word.isascii() or not word.isdigit():
        raise FlagError(
            f'invalid argument "{text}" for "--gpus" flag: count must be an integer or "all"'
        )
    return int(word)


def parse_rate(flag: str, key: str, text: str) -> dict[str, Any]:
    """`/dev/sda:1mb` as the API has it.

    Raises:
        FlagError: it is malformed.
    """
    path, colon, value = text.rpartition(":")
    try:
        if not colon or not path.startswith("/dev/"):
            raise ValueError("bad format: it must be <device-path>:<number>")
        number = parse_bytes(value) if flag.endswith("-bps") else int(value)
    except ValueError as error:
        raise FlagError(f'invalid argument "{text}" for "--{flag}" flag: {error}') from None
    return {"Path": path, key: number}
