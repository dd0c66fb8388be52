"""Names in networks: who is called what, as seen by one container, and where it asks else.

A container finds the others in the networks that it shares with them, by name, alias, short id, and
each with the network's name behind a dot. The default bridge has no names, as Docker has it. What
is unknown goes to the container's own servers, or to the host's as they are now; a container
whose networks are all internal asks nobody.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sampan.engine import joining, linkedenv, links
from sampan.errors import ContainerNotFound, InvalidArgument, SampanError
from sampan.network import dns, resolv
from sampan.network.model import BRIDGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from sampan.engine.containers import Containers
    from sampan.engine.model import Container
    from sampan.engine.networks import Member, Registry
    from sampan.engine.wiring import Joined
    from sampan.network.denials import Denied
    from sampan.network.egress import Policy
    from sampan.network.model import Endpoint

log = logging.getLogger(__name__)


class Naming:
    """What the name server knows."""

    def __init__(
        self, registry: Registry, joined: Mapping[str, Joined], containers: Containers
    ) -> None:
        self._registry = registry
        self._joined = joined
        self._containers = containers
        self._policies: dict[str, Policy] = {}
        self.teach: Callable[[str, Sequence[tuple[str, int]]], Awaitable[None]] | None = None
        """What is told of the addresses of names that a restricted container may ask for."""

    def set_policy(self, owner: str, policy: Policy | None) -> bool:
        """Restrict which names a container may ask for; whether it is or was restricted."""
        before = self._policies.pop(owner, None)
        if policy is not None:
            self._policies[owner] = policy
        return before is not None or policy is not None

    def permits(self, owner: str, name: str) -> bool:
        """Whether a container may ask others for a name."""
        policy = self._policies.get(owner)
        if policy is None or policy.permits(name):
            return True
        log.warning("egress of %s denied: name %s", owner[:12], name)
        return False

    def find(self, owner: str, name: str) -> Sequence[str] | None:
        """The addresses of a name as `owner` sees it; None when it is no name of ours."""
        container = self.container(owner)
        found = [
            address
            for member in self._members(owner)
            for called in [_linked(container, member.network.name).get(name, name)]
            for endpoint in member.endpoints.values()
            if _is_called(endpoint, member, called)
            for address in (endpoint.ipv4, endpoint.ipv6)
            if address
        ]
        return found or None

    def name_of(self, owner: str, address: str) -> str:
        """The name of an address in the networks of `owner`; "" when it has none."""
        for member in self._members(owner):
            for endpoint in member.endpoints.values():
                if address in (endpoint.ipv4, endpoint.ipv6) and endpoint.names:
                    return f"{endpoint.names[0]}.{member.network.name}"
        return ""

    def servers(self, owner: str) -> Sequence[str]:
        """Where `owner` asks for what we do not know; none: nowhere."""
        joined = self._joined.get(owner)
        if joined is None or self._is_closed(joined):
            return ()
        container = self.container(owner)
        own = container.host.dns if container is not None else ()
        return own or resolv.read_host().servers

    def denied(self, one: Denied) -> None:
        """Tell the log what a restricted container was denied."""
        for owner, joined in self._joined.items():
            if any(one.source in (e.ipv4, e.ipv6) for e in joined.endpoints):
                where = f"{one.destination} port {one.port}" if one.port else one.destination
                log.warning("egress of %s denied: %s to %s", owner[:12], one.protocol, where)

    async def learned(self, owner: str, name: str, message: bytes) -> None:
        """An answer is about to be given to `owner`: what it names may be reached."""
        if owner in self._policies and self.teach is not None:
            try:
                found = dns.addresses(message)
                if found:
                    await self.teach(owner, found)
            except SampanError as error:
                log.warning("egress of %s: %s: %s", owner[:12], name, error)

    def linked(self, container: Container) -> list[tuple[str, str]]:
        """(address, names) of the containers that this one was linked to, where there is no name
        server for them: on the default bridge. One that does not run is left out."""
        return [
            (address, " ".join(dict.fromkeys((alias, other.config.hostname, other.name))))
            for alias, other, address in self._links(container)
        ]

    def linked_variables(self, container: Container) -> tuple[str, ...]:
        """What the container is told of them in its environment."""
        told: list[str] = []
        for alias, other, address in self._links(container):
            told += linkedenv.variables(container.name, alias, other, address)
        return tuple(told)

    def _links(self, container: Container) -> Iterator[tuple[str, Container, str]]:
        for name, alias in links.of(container):
            other = self.container(name)
            joined = self._joined.get(other.id) if other is not None else None
            for endpoint in joined.endpoints if joined is not None else ():
                if endpoint.network_name == BRIDGE and other is not None:
                    yield alias, other, endpoint.ipv4

    def needs_resolver(self, container: Container) -> bool:
        """Whether a container must ask us: it has names to find, or the host's servers are out of
        its reach."""
        mode = container.host.network_mode
        if not joining.has_networks(mode):
            return False
        if any(self._registry.find(name).network.has_names for name in container.networks):
            return True
        if container.host.egress is not None:
            return True
        return not container.host.dns and not resolv.reachable(resolv.read_host().servers)

    def _members(self, owner: str) -> Iterator[Member]:
        joined = self._joined.get(owner)
        for endpoint in joined.endpoints if joined is not None else ():
            member = self._registry.find(endpoint.network)
            if member.network.has_names:
                yield member

    def _is_closed(self, joined: Joined) -> bool:
        networks = [self._registry.find(one.network).network for one in joined.endpoints]
        return bool(networks) and all(network.internal for network in networks)

    def container(self, owner: str) -> Container | None:
        """The container of an id or a name; None for a pod's, or for nobody's."""
        try:
            return self._containers.find(owner).container
        except (ContainerNotFound, InvalidArgument):
            return None


def _linked(container: Container | None, network: str) -> dict[str, str]:
    """What a container calls others in a network on its own account: `--link NAME:ALIAS`."""
    wish = container.networks.get(network) if container is not None else None
    asked = wish.links if wish is not None else ()
    return {alias.lower(): name.lower() for name, alias in map(links.parts, asked)}


def _is_called(endpoint: Endpoint, member: Member, name: str) -> bool:
    return any(
        name in (one.lower(), f"{one}.{member.network.name}".lower()) for one in endpoint.names
    )
