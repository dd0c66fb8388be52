"""`LogConfig` of a request in the engine's words, and back: drivers and their options.

The drivers are json-file, local and none; whoever wants another gets dockerd's sentence. Nothing
that is written ever waits for a reader, so both modes of delivery are the same here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sampan.engine import model
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.wire import hostconfig as wire

_DRIVERS = {one.value: one for one in model.LogDriver if one is not model.LogDriver.CRI}
_SIZES = frozenset(("max-size", "max-file", "compress", "mode", "max-buffer-size"))
_ATTRIBUTES = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
_OPTIONS = {
    model.LogDriver.JSON_FILE: _SIZES | _ATTRIBUTES,
    model.LogDriver.LOCAL: _SIZES,
    model.LogDriver.NONE: frozenset[str](),
}
_MODES = ("", "blocking", "non-blocking")
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}


def log_config(body: wire.LogConfig | None) -> model.LogConfig:
    """How output is kept.

    Raises:
        InvalidArgument: there is no such driver, it has no such option, or a value is wrong.
    """
    if body is None:
        return model.LogConfig()
    driver = _DRIVERS.get(body.type or "json-file")
    if driver is None:
        raise InvalidArgument(f"logger: no log driver named '{body.type}' is registered")
    options = {str(name): str(value) for name, value in (body.config or {}).items()}
    if unknown := options.keys() - _OPTIONS[driver]:
        raise InvalidArgument(f"unknown log opt '{min(unknown)}' for {driver} log driver")
    _check_mode(options)
    return model.LogConfig(
        driver=driver,
        max_size=_bytes(options.get("max-size", ""), "max-size"),
        max_file=_count(options.get("max-file", "0")),
        compress=_boolean(options.get("compress", "")),
        labels=_patterns(options, "labels"),
        env=_patterns(options, "env"),
        tag=options.get("tag", ""),
        options=options,
    )


def log_answer(log: model.LogConfig) -> dict[str, str]:
    """The options, as they were asked for."""
    return dict(log.options)


def details(attributes: Mapping[str, str]) -> bytes:
    """Attributes of a record as `logs --details` shows them before it: `a=1,b=2 `."""
    if not attributes:
        return b" "
    return ",".join(f"{name}={attributes[name]}" for name in sorted(attributes)).encode() + b" "


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in _MODES:
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    size = options.get("max-buffer-size", "")
    _bytes(size, "max-buffer-size")
    if size and mode != "non-blocking":
        raise InvalidArgument(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        )


def _patterns(options: Mapping[str, str], kind: str) -> tuple[str, ...]:
    """Names that are listed, and an expression, as expressions of whole names or parts."""
    listed = [f"^{re.escape(name)}$" for name in options.get(kind, "").split(",") if name]
    expression = options.get(f"{kind}-regex", "")
    try:
        re.compile(expression)
    except re.error as error:
        raise InvalidArgument(f"invalid log opt {kind}-regex={expression!r}: {error}") from error
    return (*listed, *([expression] if expression else []))


def _boolean(text: str) -> bool | None:
    if text not in ("", "true", "false"):
        raise InvalidArgument(f"invalid log opt compress={text!r}: true or false is wanted")
    return None if not text else text == "true"


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 <= int(text[:9]) <= 999:
        raise InvalidArgument(f"invalid log opt max-file={text!r}: a number up to 999 is wanted")
    return int(text)


def _bytes(text: str, name: str) -> int:
    """`10m`, `64kb`, `1g`, `-1`: bytes by powers of 1024; 0 for nothing and for -1."""
    number = text.lower().removesuffix("b").removesuffix("i")
    unit = _UNITS.get(number[-1:], 0)
    number = number[:-1] if unit else number
    if text in ("", "-1"):
        return 0
    if not (number.isascii() and number.isdigit()) or len(number) > 15:
        raise InvalidArgument(f"invalid log opt {name}={text!r}")
    return int(number) << unit
