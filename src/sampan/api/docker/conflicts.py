"""What dockerd refuses of a request that the engine itself could do, in dockerd's sentences.

That is what contradicts the namespaces that are asked for (only what the request itself says
counts: an image's exposed ports contradict nothing), and less memory than runc would need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.engine.model import ContainerConfig, HostConfig

SMALLEST_MEMORY: Final = 6 << 20
_UNDEFINED = "can't be used with links. This would result in undefined behavior"


def check(config: ContainerConfig, host: HostConfig) -> None:
    """Raises InvalidArgument for the first contradiction."""
    check_memory(host.memory, host.memory_reservation)
    if host.network_mode in ("container", "container:"):
        raise InvalidArgument("invalid container format container:<name|id>")
    for sentence in _found(config, host):
        raise InvalidArgument(f"conflicting options: {sentence}")


def check_memory(limit: int, reservation: int) -> None:
    """Raises InvalidArgument for less than dockerd grants; 0 is not given.

    Our own start needs 512 KiB only, and gets them from the engine; but who speaks Docker's API
    tests for this sentence, and scripts for dockerd do not ask for less.
    """
    for bytes_, what in ((limit, "limit"), (reservation, "reservation")):
        if 0 < bytes_ < SMALLEST_MEMORY:
            raise InvalidArgument(f"Minimum memory {what} allowed is 6MB")


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
