"""Progress of pull, push and import: JSON objects, one per line, ended by CR LF.

The words of `status` are Docker's own, because its CLI draws bars for "Downloading" and
"Extracting" and prints the rest. An answer that has begun with 200 can only fail inside of the
stream: `failure` is that line. `progress` holds the bar as text for clients that do not draw.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, field

_BAR_WIDTH = 50
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Detail(msgspec.Struct, kw_only=True):
    """How far an item is, in bytes, and how fast it goes (of our own); left out where nothing is
    counted."""

    current: int | UnsetType = UNSET
    total: int | UnsetType = UNSET
    rate: int | UnsetType = UNSET


class ErrorDetail(msgspec.Struct, kw_only=True):
    """Why the stream ends here."""

    code: int | UnsetType = UNSET
    message: str
    status: int | UnsetType = UNSET
    """The HTTP status that an answer would have had; only in streams of our own."""


class Line(msgspec.Struct, kw_only=True):
    """One line of a progress stream."""

    stream: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    detail: Detail | UnsetType = field(default=UNSET, name="progressDetail")
    progress: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    aux: dict[str, Any] | UnsetType = UNSET
    error_detail: ErrorDetail | UnsetType = field(default=UNSET, name="errorDetail")
    error: str | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Line).decode


def message(status: str, id: str | None = None) -> bytes:  # noqa: A002 - the member's name
    """A line that says something; about the item `id` where one is given."""
    return _encode(Line(status=status, id=id or UNSET)) + b"\r\n"


def text(stream: str) -> bytes:
    """A line that is printed as it is, as load and build have them."""
    return _encode(Line(stream=stream)) + b"\r\n"


def step(
    item: str, status: str, current: int | None = None, total: int | None = None, rate: int = 0
) -> bytes:
    """A line about how far `item` is; `rate` in bytes a second."""
    if not current and not total:
        return _encode(Line(status=status, detail=Detail(), id=item or UNSET)) + b"\r\n"
    line = Line(
        status=status,
        detail=Detail(current=current or 0, total=total or UNSET, rate=rate or UNSET),
        progress=bar(current or 0, total or 0),
        id=item or UNSET,
    )
    return _encode(line) + b"\r\n"


def aux(content: dict[str, Any]) -> bytes:
    """The line with which a push tells its result."""
    return _encode(Line(detail=Detail(), aux=content)) + b"\r\n"


def line(content: msgspec.Struct) -> bytes:
    """A line of a stream of another shape."""
    return _encode(content) + b"\r\n"


def built(image_id: str) -> bytes:
    """The line with which a build tells the id of its image."""
    return _encode(Line(aux={"ID": image_id})) + b"\r\n"


def failure(text: str, code: int | None = None, status: int | None = None) -> bytes:
    """The last line of a stream that failed."""
    detail = ErrorDetail(
        code=UNSET if code is None else code,
        message=text,
        status=UNSET if status is None else status,
    )
    return _encode(Line(error_detail=detail, error=text)) + b"\r\n"


def bar(current: int, total: int) -> str:
    """`[==>   ]  36.45kB/1.07MB`, as dockerd draws it for a wide terminal."""
    if total <= 0:
        return f"{size(current):>8}"
    done = min(_BAR_WIDTH, int(current / total * 100) // 2)
    box = f"[{'=' * done}>{' ' * (_BAR_WIDTH - done)}] "
    if current > total:
        return f"{box}{size(current):>8}"
    return f"{box}{size(current):>8}/{size(total)}"


def size(count: int) -> str:
    """Bytes for people, four significant digits, powers of 1000."""
    amount = float(count)
    unit = 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount /= 1000
        unit += 1
    return f"{amount:.4g}{_UNITS[unit]}"
