"""The filters of volumes: dangling, driver, label, name; for a prune all and label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.engine.filters import has_labels
from sampan.errors import InvalidArgument
from sampan.volumes.local import DRIVER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sampan.engine.filters import Filters
    from sampan.volumes.local import Volume

    Test = Callable[[Volume], bool]

_TRUE, _FALSE = ("true", "1"), ("false", "0")


def volume_filter(wanted: Filters | None, users: Mapping[str, int]) -> Test:
    """A test for the list; `users` counts those of each volume.

    Raises:
        InvalidArgument: a key is unknown or a value impossible.
    """
    tests: list[Test] = []
    for key, values in (wanted or {}).items():
        if not values:
            continue
        if key == "dangling":
            unused = truth(key, values)
            tests.append(lambda volume, unused=unused: (volume.name in users) is not unused)  # type: ignore[misc]
        elif key == "driver":
            tests.append(lambda _, values=values: DRIVER in values)  # type: ignore[misc]
        elif key == "label":
            tests.append(lambda volume, values=values: has_labels(volume.labels, values))  # type: ignore[misc]
        elif key == "name":
            tests.append(lambda volume, values=values: any(v in volume.name for v in values))  # type: ignore[misc]
        else:
            raise InvalidArgument(f"invalid filter '{key}'")
    return lambda volume: all(test(volume) for test in tests)


def prune_filter(wanted: Filters | None) -> Test:
    """A test for a prune. Raises InvalidArgument for an unknown key or an impossible value."""
    filters = wanted or {}
    if unknown := filters.keys() - {"all", "label", "label!"}:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    everything = truth("all", filters["all"]) if filters.get("all") else False
    labels, without = filters.get("label", ()), filters.get("label!", ())

    def matches(volume: Volume) -> bool:
        if not (everything or volume.anonymous) or not has_labels(volume.labels, labels):
            return False
        return not (without and has_labels(volume.labels, without))

    return matches


def truth(key: str, values: Sequence[str]) -> bool:
    """A filter's value as a boolean. Raises InvalidArgument."""
    if len(set(values)) != 1 or values[0].lower() not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f"invalid filter '{key}={list(values)}'")
    return values[0].lower() in _TRUE
