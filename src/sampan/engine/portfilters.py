"""The filters `publish` and `expose` of container lists: a port, or a range of them.

`publish` asks for ports of the host, which a container has only while it runs; `expose` for ports
of the container, whether they are published or not. Without a protocol they are of TCP.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.network.ports import parse_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sampan.engine.model import Container
    from sampan.network.model import Published

    Test = Callable[[Container], bool]
    Span = tuple[int, int, str]

_SPAN = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([a-z]{1,8}))?", re.ASCII)


def publishes(values: Iterable[str], published: Callable[[str], Sequence[Published]]) -> Test:
    """Whether one of the ports of the host leads to the container."""
    spans = [_span("publish", value) for value in values]
    return lambda c: any(_within(spans, p.host_port, p.protocol) for p in published(c.id))


def exposes(values: Iterable[str]) -> Test:
    """Whether the container has one of the ports."""
    spans = [_span("expose", value) for value in values]
    return lambda c: any(_within(spans, *port) for port in _ports(c))


def _ports(container: Container) -> Iterable[tuple[int, str]]:
    yield from map(parse_port, container.config.exposed_ports)
    yield from ((binding.port, binding.protocol) for binding in container.host.ports)


def _within(spans: Iterable[Span], port: int, protocol: str) -> bool:
    return any(first <= port <= last and kind == protocol for first, last, kind in spans)


def _span(key: str, value: str) -> Span:
    match = _SPAN.fullmatch(value)
    if match is None or int(match[1]) > int(match[2] or match[1]):
        raise InvalidArgument(f"invalid filter '{key}={value[:80]}': a port or a range is expected")
    return int(match[1]), int(match[2] or match[1]), match[3] or "tcp"
