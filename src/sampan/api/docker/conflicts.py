"""What contradicts the namespaces that a request asks for, in dockerd's sentences.

Only what the request itself says counts: an image's exposed ports contradict nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.engine.model import ContainerConfig, HostConfig

_UNDEFINED = "can't be used with links. This would result in undefined behavior"


def check(config: ContainerConfig, host: HostConfig) -> None:
    """Raises InvalidArgument for the first contradiction."""
    if host.network_mode in ("container", "container:"):
        raise InvalidArgument("invalid container format container:<name|id>")
    for sentence in _found(config, host):
        raise InvalidArgument(f"conflicting options: {sentence}")


def _found(config: ContainerConfig, host: HostConfig) -> Iterator[str]:
    if host.uts_mode == "host" and config.hostname:
        yield "hostname and the UTS mode"
    if host.network_mode == "host" and host.links:
        yield f"host type networking {_UNDEFINED}"
    if not host.network_mode.startswith("container:"):
        return
    if config.hostname:
        yield "hostname and the network mode"
    if host.links:
        yield f"container type network {_UNDEFINED}"
    if host.dns:
        yield "dns and the network mode"
    if host.extra_hosts:
        yield "custom host-to-IP mapping and the network mode"
    if host.ports or host.publish_all:
        yield "port publishing and the container type network mode"
    if config.exposed_ports:
        yield "port exposing and the container type network mode"
