"""containerd's filters: `name==redis,labels."a.b"~=^x`. Commas mean and, several filters or."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Condition = Callable[[Mapping[str, object]], bool]

_MAX: Final = 4096
_PART: Final = re.compile(
    r'(?P<path>[A-Za-z0-9_]+(?:\.(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"))*)'
    r'(?:(?P<op>==|!=|~=)(?P<value>"(?:[^"\\]|\\.)*"|[^,"]*))?(?:,|$)'
)
_STEP: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^."]+')


def matcher(filters: Iterable[str]) -> Condition:
    """Whether an object, as a mapping of its fields, passes one of the filters; all without any.

    Raises:
        InvalidArgument: a filter is malformed.
    """
    alternatives = [_parse(text) for text in filters if text]
    if not alternatives:
        return lambda _: True
    return lambda fields: any(all(part(fields) for part in parts) for parts in alternatives)


def _parse(text: str) -> list[Condition]:
    if len(text) > _MAX:
        raise InvalidArgument(f"filter of {len(text)} characters")
    parts, at = [], 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None or found.end() == at:
            raise InvalidArgument(f"parse filter {text[:80]!r}: not understood from {text[at:]!r}")
        parts.append(_condition(found["path"], found["op"] or "", found["value"] or ""))
        at = found.end()
    return parts


def _condition(path: str, op: str, value: str) -> Condition:
    steps = [_plain(step) for step in _STEP.findall(path)]
    wanted = _plain(value)
    if op == "==":
        return lambda fields: _look(fields, steps) == wanted
    if op == "!=":
        return lambda fields: _look(fields, steps) != wanted
    if op == "~=":
        try:
            pattern = re.compile(wanted)
        except re.error as error:
            raise InvalidArgument(f"parse filter: {wanted!r}: {error}") from error
        return lambda fields: pattern.search(_look(fields, steps) or "") is not None
    return lambda fields: bool(_look(fields, steps))


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _look(fields: Mapping[str, object], steps: list[str]) -> str | None:
    found: object = fields
    for step in steps:
        if not isinstance(found, dict):
            return None
        found = found.get(step)
    return None if found is None else str(found)
