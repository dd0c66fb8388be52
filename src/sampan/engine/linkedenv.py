"""The variables that a container on the default bridge gets of those that it is linked to.

`--link db:store` is from before there were networks with names. Programs of that time look for the
other container in their environment, by the alias in capitals: STORE_NAME, STORE_PORT, for each
exposed port STORE_PORT_5432_TCP with its parts, and the other's own variables as STORE_ENV_...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.network.ports import parse_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.engine.model import Container

_NOT_TOLD = frozenset(("HOME", "PATH"))


def variables(name: str, alias: str, other: Container, address: str) -> list[str]:
    """What the container `name` is told of `other`, which has `address`."""
    prefix = alias.upper().replace("-", "_")
    ports = sorted(map(parse_port, other.config.exposed_ports), key=lambda one: (one[0], one[1]))
    told = []
    if ports:
        told.append(f"{prefix}_PORT={_url(address, *ports[0])}")
    for port, protocol in ports:
        told += _port(f"{prefix}_PORT_{port}_{protocol.upper()}", address, port, protocol)
    told.append(f"{prefix}_NAME=/{name}/{alias}")
    return [*told, *_own(prefix, other)]


def _port(prefix: str, address: str, port: int, protocol: str) -> list[str]:
    return [
        f"{prefix}={_url(address, port, protocol)}",
        f"{prefix}_ADDR={address}",
        f"{prefix}_PORT={port}",
        f"{prefix}_PROTO={protocol}",
    ]


def _url(address: str, port: int, protocol: str) -> str:
    return f"{protocol}://{address}:{port}"


def _own(prefix: str, other: Container) -> Iterator[str]:
    for entry in other.config.env:
        name, equals, value = entry.partition("=")
        if equals and name not in _NOT_TOLD:
            yield f"{prefix}_ENV_{name}={value}"
