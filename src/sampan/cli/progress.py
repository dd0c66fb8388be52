"""The progress of a pull, a push or an import: bars on a terminal, plain lines elsewhere.

On a terminal each layer has a line that is drawn again in place; elsewhere a line is printed when a
layer's state changes, and none for the bytes in between, as docker's client does. An error in the
stream ends the command.
"""

from __future__ import annotations

import os

from sampan.cli.session import Failed, write
from sampan.cli.units import decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def show(messages: Iterable[dict[str, Any]], fd: int, *, quiet: bool = False) -> None:
    """Draw `messages` on `fd` until they end.

    Raises:
        Failed: one of them is an error.
    """
    drawn: dict[str, int] = {}
    terminal = os.isatty(fd)
    for message in messages:
        if message.get("error"):
            raise Failed(str((message.get("errorDetail") or {}).get("message") or message["error"]))
        if quiet or not ("status" in message or "stream" in message):
            continue
        if terminal:
            _draw(fd, message, drawn)
        else:
            _print(fd, message)


def _text(message: dict[str, Any], *, bar: bool) -> str:
    if "stream" in message:
        return str(message["stream"]).removesuffix("\n")
    prefix = f"{message['id']}: " if message.get("id") else ""
    detail = message.get("progressDetail") or {}
    text = f"{prefix}{message['status']}"
    if not (bar and detail.get("current")):
        return text
    rate = detail.get("rate") or 0
    return f"{text} {_bar(detail)}" + (f"  {decimal_size(rate, 3)}/s" if rate else "")


def _print(fd: int, message: dict[str, Any]) -> None:
    if (message.get("progressDetail") or {}).get("current"):
        return
    write(fd, (_text(message, bar=False) + "\n").encode())


def _bar(detail: dict[str, Any]) -> str:
    current, total = detail.get("current") or 0, detail.get("total") or 0
    size = decimal_size(current)
    if total <= 0:
        return f"{size:>8}"
    part = min(50, 50 * current // total)
    fill = "=" * part + ">" + " " * (50 - part) if part < 50 else "=" * 50 + ">"
    if current > total:
        return f"[{fill}] {size:>8}"
    return f"[{fill}] {size:>8}/{decimal_size(total)}"


def _draw(fd: int, message: dict[str, Any], drawn: dict[str, int]) -> None:
    """Draw a message on the line of its layer; a new layer gets a new line at the end."""
    name = message.get("id")
    line = _text(message, bar=True).encode()
    if not name or not ("progressDetail" in message or name in drawn):
        write(fd, line + b"\n")
        for other in drawn:
            drawn[other] += 1
        return
    if name not in drawn:
        for other in drawn:
            drawn[other] += 1
        drawn[name] = 1
        write(fd, line + b"\n")
        return
    up = drawn[name]
    write(fd, b"\x1b[%dA\x1b[2K\r%b\r\x1b[%dB" % (up, line, up))
