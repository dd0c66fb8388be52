"""Links of the default bridge, from before there were networks with names.

`--link db:store` of a container `app` lets `app` find `db` by the name `store`, and gives `db` one
more name, `app/store`, for as long as both are there. The same is spelled `/db:/app/store` where a
container is made of the answer about another one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.network.model import BRIDGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sampan.engine.model import Container


def parts(link: str) -> tuple[str, str]:
    """The name of the other container and what it is called here."""
    name, _, alias = link.partition(":")
    name = name.removeprefix("/")
    return name, alias.rpartition("/")[2] or name


def of(container: Container) -> Iterator[tuple[str, str]]:
    """The links of a container that is in the default bridge, as `parts` of each."""
    if container.host.links and BRIDGE in container.networks:
        yield from map(parts, container.host.links)


def target(container: Container, alias: str) -> str:
    """The name of the container that this one calls `alias`; "" for none."""
    return next((name for name, called in of(container) if called == alias), "")


def names(containers: Iterable[Container]) -> Mapping[str, tuple[str, ...]]:
    """`PARENT/ALIAS` of each link, by the name of the container that it leads to."""
    found: dict[str, tuple[str, ...]] = {}
    for container in containers:
        if container.host.links:
            for name, alias in of(container):
                found[name] = (*found.get(name, ()), f"{container.name}/{alias}")
    return found


def renamed(container: Container, old: str, new: str) -> Container:
    """The container with its links to `old` leading to `new`."""
    pairs = map(parts, container.host.links)
    led = tuple(f"{new if name == old else name}:{alias}" for name, alias in pairs)
    return replace(container, host=replace(container.host, links=led))
