"""The library's networks: `engine.networks.create("back", internal=True)`, and the same awaited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.client import network_calls

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence
    from typing import Self

    from sampan.client.aio import AsyncClient
    from sampan.client.sync import Client

    Filters = dict[str, builtins.list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network. `containers` has the names of those in it, where one network was asked for."""

    id: str
    name: str
    driver: str
    internal: bool
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    labels: dict[str, str]
    containers: tuple[str, ...]
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From an answer of /networks."""
        pools = (answer.get("IPAM") or {}).get("Config") or ()
        return cls(
            id=answer["Id"],
            name=answer["Name"],
            driver=answer["Driver"],
            internal=bool(answer.get("Internal")),
            subnets=tuple(pool["Subnet"] for pool in pools),
            gateways=tuple(pool["Gateway"] for pool in pools if pool.get("Gateway")),
            labels=answer.get("Labels") or {},
            containers=tuple(one["Name"] for one in (answer.get("Containers") or {}).values()),
            raw=answer,
        )


def create_body(
    name: str,
    driver: str,
    subnets: Sequence[str],
    labels: Mapping[str, str] | None,
    options: Mapping[str, str] | None,
    **switches: bool,
) -> dict[str, Any]:
    """The body of POST /networks/create."""
    return {
        "Name": name,
        "Driver": driver,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": text} for text in subnets]},
        "Internal": switches["internal"],
        "EnableIPv6": switches["ipv6"],
        "Labels": dict(labels or {}),
        "Options": dict(options or {}),
    }


def connect_body(
    container: str, aliases: Sequence[str], ip: str, ip6: str, mac_address: str
) -> dict[str, Any]:
    """The body of POST /networks/{id}/connect."""
    return {
        "Container": container,
        "EndpointConfig": endpoint(aliases, ip, ip6, mac_address),
    }


def endpoint(aliases: Sequence[str], ip: str, ip6: str, mac_address: str) -> dict[str, Any]:
    """What is asked of a network, in the API's words; only what was said."""
    addresses = {"IPv4Address": ip, "IPv6Address": ip6}
    found: dict[str, Any] = {
        "Aliases": list(aliases),
        "IPAMConfig": {name: value for name, value in addresses.items() if value},
        "MacAddress": mac_address,
    }
    return {name: value for name, value in found.items() if value}


class Networks:
    """The networks of one engine."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: Sequence[str] = (),
        internal: bool = False,
        ipv6: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Network:
        """Make a network. Raises AlreadyExists when the name is taken, InvalidArgument."""
        body = create_body(name, driver, subnets, labels, options, internal=internal, ipv6=ipv6)
        return self.get(self._client.call(network_calls.create(body))["Id"])

    def list(self, filters: Filters | None = None) -> builtins.list[Network]:
        """Networks; filters: driver, id, label, name, scope, type, dangling."""
        return [Network.parse(one) for one in self._client.call(network_calls.listing(filters))]

    def get(self, name: str) -> Network:
        """One network by name or id, with its containers. Raises NotFound."""
        return Network.parse(self._client.call(network_calls.inspect(name)))

    def remove(self, name: str) -> None:
        """Remove a network. Raises PermissionDenied while a container is in it."""
        self._client.call(network_calls.remove(name))

    def connect(
        self,
        name: str,
        container: str,
        *,
        aliases: Sequence[str] = (),
        ip: str = "",
        ip6: str = "",
        mac_address: str = "",
    ) -> None:
        """Put a container, running or not, into a network."""
        body = connect_body(container, aliases, ip, ip6, mac_address)
        self._client.call(network_calls.connect(name, body))

    def disconnect(self, name: str, container: str, *, force: bool = False) -> None:
        """Take a container out of a network."""
        body = {"Container": container, "Force": force}
        self._client.call(network_calls.disconnect(name, body))

    def prune(self, filters: Filters | None = None) -> tuple[str, ...]:
        """Remove the networks that no container names; the names of those that went."""
        answer = self._client.call(network_calls.prune(filters))
        return tuple(answer.get("NetworksDeleted") or ())


class AsyncNetworks:
    """The same, awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: Sequence[str] = (),
        internal: bool = False,
        ipv6: bool = False,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Network:
        """Make a network. Raises AlreadyExists when the name is taken, InvalidArgument."""
        body = create_body(name, driver, subnets, labels, options, internal=internal, ipv6=ipv6)
        return await self.get((await self._client.call(network_calls.create(body)))["Id"])

    async def list(self, filters: Filters | None = None) -> builtins.list[Network]:
        """Networks; filters: driver, id, label, name, scope, type, dangling."""
        return [
            Network.parse(one) for one in await self._client.call(network_calls.listing(filters))
        ]

    async def get(self, name: str) -> Network:
        """One network by name or id, with its containers. Raises NotFound."""
        return Network.parse(await self._client.call(network_calls.inspect(name)))

    async def remove(self, name: str) -> None:
        """Remove a network. Raises PermissionDenied while a container is in it."""
        await self._client.call(network_calls.remove(name))

    async def connect(
        self,
        name: str,
        container: str,
        *,
        aliases: Sequence[str] = (),
        ip: str = "",
        ip6: str = "",
        mac_address: str = "",
    ) -> None:
        """Put a container, running or not, into a network."""
        body = connect_body(container, aliases, ip, ip6, mac_address)
        await self._client.call(network_calls.connect(name, body))

    async def disconnect(self, name: str, container: str, *, force: bool = False) -> None:
        """Take a container out of a network."""
        body = {"Container": container, "Force": force}
        await self._client.call(network_calls.disconnect(name, body))

    async def prune(self, filters: Filters | None = None) -> tuple[str, ...]:
        """Remove the networks that no container names; the names of those that went."""
        answer = await self._client.call(network_calls.prune(filters))
        return tuple(answer.get("NetworksDeleted") or ())
