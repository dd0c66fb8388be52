"""Connect and disconnect: a container, running or not, and one more or one less network.

The container's own row says what it asks of each network, and so what it joins at its next start.
Where it runs, the interface comes and goes at once, and the names in its /etc/hosts follow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.engine import etcfiles, joining, linked, links
from sampan.engine.config import reach
from sampan.errors import Conflict, NotFound, PermissionDenied, SampanError
from sampan.network import egress
from sampan.network.model import HOST, NONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.engine.containers import Entry
    from sampan.engine.filters import Filters
    from sampan.engine.services import Services
    from sampan.network.model import Binding, EndpointRequest


class Membership:
    """Changes which networks containers are in."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def connect(self, entry: Entry, ref: str, wish: EndpointRequest) -> None:
        """See Engine.connect."""
        networks = self._services.networks
        async with entry.lock:
            network = networks.find(ref)
            container = entry.container
            _check_mode(container.host.network_mode, network.name)
            if network.name in container.networks:
                raise PermissionDenied(
                    f"endpoint with name {container.name} already exists in network {network.name}"
                )
            if network.name == container.host.network_mode and not wish.mac:
                wish = replace(wish, mac=container.config.mac_address)
            joining.check(network, wish)
            if container.host.egress is not None:
                joining.check_egress([network])
            changed = replace(container, networks={**container.networks, network.name: wish})
            if container.status.is_running:
                had = networks.has_resolver(entry.id)
                await networks.connect(changed, network, wish)
                if networks.has_resolver(entry.id) and not had:
                    directory = self._services.layout.container(entry.id)
                    etcfiles.turn_to_own_resolver(directory, container)
                reach(self._services.config, "network-connected")
            await self._services.containers.change(entry, changed)
            self._tell_names(entry)

    async def disconnect(self, entry: Entry, ref: str) -> None:
        """See Engine.disconnect."""
        networks = self._services.networks
        async with entry.lock:
            network = networks.find(ref)
            container = entry.container
            if HOST in (network.name, container.host.network_mode):
                raise PermissionDenied(
                    "container cannot be disconnected from host network or connected to host "
                    "network"
                )
            if network.name not in container.networks:
                raise PermissionDenied(
                    f"container {container.id} is not connected to network {network.name}"
                )
            left = {name: one for name, one in container.networks.items() if name != network.name}
            changed = replace(container, networks=left)
            # The row first: what a kill interrupts is finished by it.
            await self._services.containers.change(entry, changed)
            try:
                if container.status.is_running:
                    await networks.disconnect(changed, network)
            except SampanError:  # a plugin could not do it, so the container is still in there
                await self._services.containers.change(entry, container)
                raise
            self._tell_names(entry)

    async def unlink(self, entry: Entry, alias: str) -> None:
        """See Engine.unlink."""
        async with entry.lock:
            container = entry.container
            left = tuple(one for one in container.host.links if links.parts(one)[1] != alias)
            if left == container.host.links:
                raise NotFound(f"Could not get link: {container.name} has none that is {alias}")
            host = replace(container.host, links=left)
            await self._services.containers.change(entry, replace(container, host=host))
            self._tell_names(entry)

    async def publish(self, entry: Entry, add: Sequence[Binding], drop: Sequence[Binding]) -> None:
        """See Engine.publish."""
        async with entry.lock:
            container = entry.container
            if joining.is_shared(container.host.network_mode):
                raise Conflict(f"container {container.name} has no network of its own")
            if container.status.is_running:
                await self._services.networks.ports.drop(container, drop)
                await self._services.networks.ports.add(container, add)
            kept = [one for one in container.host.ports if not any(_covers(d, one) for d in drop)]
            host = replace(container.host, ports=(*kept, *add))
            await self._services.containers.change(entry, replace(container, host=host))

    async def restrict(self, entry: Entry, rules: Sequence[str] | None) -> None:
        """See Engine.restrict."""
        if rules is not None:
            egress.parse(rules)
        async with entry.lock:
            networks = self._services.networks
            container = entry.container
            if joining.is_shared(container.host.network_mode):
                raise Conflict(f"container {container.name} has no network of its own")
            if rules is not None:
                joining.check_egress(networks.find(name) for name in container.networks)
            wanted = None if rules is None else tuple(rules)
            changed = replace(container, host=replace(container.host, egress=wanted))
            await self._services.containers.change(entry, changed)
            if container.status.is_running:
                await networks.restrict(changed)

    async def prune(self, wanted: Filters | None) -> Sequence[str]:
        """See Engine.prune_networks."""
        used = {name for entry in self._services.containers for name in entry.container.networks}
        return await self._services.networks.prune(wanted, used)

    def _tell_names(self, entry: Entry) -> None:
        """Write the container's hosts file again: it has other addresses now."""
        if not entry.container.status.is_running:
            return
        linked.write_names(self._services, entry.container)


def _covers(dropped: Binding, asked: Binding) -> bool:
    """Whether what was asked for is what is withdrawn."""
    if (dropped.port, dropped.protocol) != (asked.port, asked.protocol):
        return False
    if dropped.host and dropped.host != asked.host:
        return False
    return dropped.host_first in (0, asked.host_first) or asked.host_first == 0


def _check_mode(mode: str, name: str) -> None:
    if HOST in (name, mode):
        raise PermissionDenied(
            "container cannot be disconnected from host network or connected to host network"
        )
    if joining.is_shared(mode):
        raise PermissionDenied(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
    if NONE in (mode, name):
        raise PermissionDenied(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )
