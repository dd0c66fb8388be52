"""The bundle: a directory with config.json and, usually, the root file system."""

from __future__ import annotations

import os

from sampan.jsontext import decode_unique
from sampan.runtime.failure import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_CONFIG = 16 << 20  # bytes


def load(bundle: str) -> dict[str, Any]:
    """config.json of the directory `bundle`.

    Raises:
        InvalidConfig: it is missing, too large or no JSON object.
    """
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_CONFIG + 1)
    except FileNotFoundError as error:
        raise InvalidConfig(f"JSON specification file {path} not found") from error
    return parse(text, path)


def parse(text: bytes, path: str) -> dict[str, Any]:
    """A JSON object without duplicate keys.

    Raises:
        InvalidConfig: `text` is larger than MAX_CONFIG, no JSON, or no object.
    """
    if len(text) > MAX_CONFIG:
        raise InvalidConfig(f"{path} is larger than {MAX_CONFIG} bytes")
    try:
        document = decode_unique(text)
    except ValueError as error:
        raise InvalidConfig(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise InvalidConfig(f"{path}: not a JSON object")
    return document


def directory(path: str) -> str:
    """The absolute directory of `--bundle`, the current one by default."""
    return os.path.abspath(path or ".")
