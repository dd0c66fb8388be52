"""The filters of list calls: a key, and values of which any may match; all keys must.

Docker's grammar: `name` is a regular expression searched for in the name, `id` a prefix, `label` a
key or `key=value` where all values must match, `status`, `exited`, `ancestor`, `before`, `since`,
`network`, `volume`, `publish`, `expose`, `until`. An unknown key is refused: a typing error must
not mean everything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sampan.engine import portfilters
from sampan.engine.model import HealthStatus, Status
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.model import Container, Event
    from sampan.network.model import Published

Filters = Mapping[str, Sequence[str]]
Test = Callable[["Container"], bool]

MAX_PATTERN = 256
_SPAN = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_OBJECTS = ("container", "network", "volume")
_EVENT_KEYS = frozenset(
    ("type", "event", "action", "container", "image", "network", "volume", "label", "scope", "id")
)


def _nothing(_: str) -> Sequence[Published]:
    return ()


def container_filter(
    wanted: Filters | None,
    find: Callable[[str], Container],
    published: Callable[[str], Sequence[Published]] = _nothing,
) -> Callable[[Container], bool]:
    """A test for containers; `find` resolves the reference of `before` and `since`, `published`
    gives the ports of the host that lead to an id.

    Raises:
        InvalidArgument: an unknown key or an impossible value.
        ContainerNotFound: `before` or `since` name none.
    """
    asked = {key: tuple(values) for key, values in (wanted or {}).items() if values}
    tests = [_test(key, values, find) for key, values in asked.items() if key != "publish"]
    if "publish" in asked:
        tests.append(portfilters.publishes(asked["publish"], published))
    return lambda container: all(test(container) for test in tests)


def event_filter(wanted: Filters | None) -> Callable[[Event], bool]:
    """A test for events. Raises InvalidArgument for an unknown key."""
    filters = {key: tuple(values) for key, values in (wanted or {}).items() if values}
    if unknown := filters.keys() - _EVENT_KEYS:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    return lambda event: all(_event_has(event, key, values) for key, values in filters.items())


def has_labels(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """Whether every `key` or `key=value` of `wanted` is among `labels`."""
    for entry in wanted:
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _event_has(event: Event, key: str, values: tuple[str, ...]) -> bool:
    attributes = event.attributes
    if key in ("event", "action"):
        return any(
            event.action == value or event.action.startswith(value + ":") for value in values
        )
    if key == "type":
        return event.type in values
    if key == "label":
        return has_labels(attributes, values)
    if key == "scope":
        return "local" in values
    if key == "image":
        image = event.actor_id if event.type == "image" else attributes.get("image", "")
        return any(image == value or image.split(":")[0] == value for value in values)
    if key in _OBJECTS and event.type != key:
        return False
    name = attributes.get("name")
    return any(event.actor_id.startswith(value) or name == value for value in values)


def _test(key: str, values: tuple[str, ...], find: Callable[[str], Container]) -> Test:
    simple = {
        "id": lambda c: any(c.id.startswith(value) for value in values),
        "label": lambda c: has_labels({**c.image_labels, **c.config.labels}, values),
        "ancestor": lambda c: any(_descends(c, value) for value in values),
        "volume": lambda c: any(v in (m.source, m.target) for m in c.mounts for v in values),
        "network": lambda c: any(v in c.networks or v == c.host.network_mode for v in values),
    }
    if key in simple:
        return simple[key]
    if key == "name":
        patterns = [_pattern(value) for value in values]
        return lambda c: any(p.search(c.name) or p.search("/" + c.name) for p in patterns)
    if key == "status":
        states = {_status(value) for value in values}
        return lambda c: c.status in states
    if key == "exited":
        codes = {_integer(key, value) for value in values}
        return lambda c: c.status is Status.EXITED and c.state.exit_code in codes
    if key == "expose":
        return portfilters.exposes(values)
    if key == "health":
        return _health(values)
    if key in ("before", "since"):
        return _age(key, find(values[0]))
    if key == "until":
        limit = moment(values[0])
        return lambda c: c.created_at <= limit
    raise InvalidArgument(f"invalid filter '{key}'")


def moment(text: str) -> int:
    """Unix seconds, RFC 3339, or a span before now (`24h`, `1h30m`), in nanoseconds since 1970.

    Raises:
        InvalidArgument: it is none of these.
    """
    if _is_number(text):
        return int(float(text) * 1e9)
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return _date(text)
    return time.time_ns() - sum(int(number) * _UNITS[unit] for number, unit in parts) * 10**9


def _date(text: str) -> int:
    try:
        date = datetime.fromisoformat(text)
        return int(date.replace(tzinfo=date.tzinfo or UTC).timestamp() * 1e9)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"invalid filter 'until={text}': it must be unix seconds, a date, or a span like 24h"
        ) from None


def _health(values: tuple[str, ...]) -> Test:
    if unknown := [value for value in values if value not in ("none", *HealthStatus)]:
        raise InvalidArgument(f"invalid filter 'health={unknown[0]}'")
    return lambda c: (c.state.health.status if c.state.health else "none") in values


def _age(key: str, other: Container) -> Test:
    if key == "before":
        return lambda c: c.created_at < other.created_at
    return lambda c: c.created_at > other.created_at


def _descends(container: Container, value: str) -> bool:
    if not container.image_id:
        return False
    bare = container.image_id.removeprefix("sha256:")
    name = container.image_name
    short = value.removeprefix("sha256:")
    return value in (name, name.rpartition(":")[0], container.image_id) or (
        len(short) >= 4 and bare.startswith(short)
    )


def _pattern(value: str) -> re.Pattern[str]:
    if len(value) > MAX_PATTERN:
        raise InvalidArgument("invalid filter 'name': the pattern is too long")
    try:
        return re.compile(value)
    except re.error as error:
        raise InvalidArgument(f"invalid filter 'name={value}': {error}") from error


def _status(value: str) -> Status:
    try:
        return Status(value)
    except ValueError:
        raise InvalidArgument(f"invalid filter 'status={value}'") from None


def _integer(key: str, value: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", value, re.ASCII):
        raise InvalidArgument(f"invalid filter '{key}={value}'")
    return int(value)


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", value, re.ASCII) is not None
