"""The library's networks: `engine.networks.create("back", internal=True)`, and the same awaited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - of annotations that are read
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from sampan.client import network_calls
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    import builtins
    from typing import Self, Unpack

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


class CreateOptions(TypedDict, total=False):
    """What a network may be given: `gateways`, `ip_ranges` and `reserved` (names and addresses that
    nobody gets) belong to the subnet that they lie in."""

    driver: str
    subnets: Sequence[str]
    gateways: Sequence[str]
    ip_ranges: Sequence[str]
    reserved: Mapping[str, str]
    internal: bool
    attachable: bool
    ipv4: bool
    ipv6: bool
    labels: Mapping[str, str]
    options: Mapping[str, str]
    ipam_options: Mapping[str, str]


class ConnectOptions(TypedDict, total=False):
    """What a container may ask of a network. `links` are `NAME` or `NAME:ALIAS`, `options` those of
    the driver (`sampan.rate-in`); the default route goes to the highest `gateway_priority`."""

    aliases: Sequence[str]
    links: Sequence[str]
    ip: str
    ip6: str
    link_local_ips: Sequence[str]
    mac_address: str
    options: Mapping[str, str]
    gateway_priority: int


def create_body(name: str, given: CreateOptions) -> dict[str, Any]:
    """The body of POST /networks/create. Raises InvalidArgument."""
    _refuse_unknown("create network", given, CreateOptions)
    try:
        pools = network_calls.pools(
            given.get("subnets", ()),
            given.get("gateways", ()),
            given.get("ip_ranges", ()),
            given.get("reserved"),
        )
    except ValueError as error:
        raise InvalidArgument(f"create network: {error}") from error
    options = dict(given.get("ipam_options") or {})
    return {
        "Name": name,
        "Driver": given.get("driver", "bridge"),
        "IPAM": {"Driver": "default", "Options": options, "Config": pools},
        "Internal": given.get("internal", False),
        "Attachable": given.get("attachable", False),
        "EnableIPv4": given.get("ipv4", True),
        "EnableIPv6": given.get("ipv6", False),
        "Labels": dict(given.get("labels") or {}),
        "Options": dict(given.get("options") or {}),
    }


def connect_body(container: str, given: ConnectOptions) -> dict[str, Any]:
    """The body of POST /networks/{id}/connect. Raises InvalidArgument."""
    return {"Container": container, "EndpointConfig": endpoint(given)}


def endpoint(given: ConnectOptions) -> dict[str, Any]:
    """What is asked of a network, in the API's words. Raises InvalidArgument."""
    _refuse_unknown("join network", given, ConnectOptions)
    addresses = {"IPv4Address": given.get("ip"), "IPv6Address": given.get("ip6")}
    own: dict[str, Any] = {name: value for name, value in addresses.items() if value}
    if given.get("link_local_ips"):
        own["LinkLocalIPs"] = list(given["link_local_ips"])
    found: dict[str, Any] = {
        "Aliases": list(given.get("aliases") or ()),
        "IPAMConfig": own,
        "MacAddress": given.get("mac_address"),
        "Links": list(given.get("links") or ()),
        "DriverOpts": dict(given.get("options") or {}),
        "GwPriority": given.get("gateway_priority"),
    }
    return {name: value for name, value in found.items() if value}


def _refuse_unknown(what: str, given: Mapping[str, object], known: type) -> None:
    unknown = sorted(set(given) - set(known.__annotations__))
    if unknown:
        raise InvalidArgument(f"{what}: unknown option {unknown[0]!r}")


class Networks:
    """The networks of one engine."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, name: str, **options: Unpack[CreateOptions]) -> Network:
        """Make a network. Raises AlreadyExists when the name is taken, InvalidArgument."""
        body = create_body(name, options)
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

    def connect(self, name: str, container: str, **options: Unpack[ConnectOptions]) -> None:
        """Put a container, running or not, into a network."""
        body = connect_body(container, options)
        self._client.call(network_calls.connect(name, body))

    def disconnect(self, name: str, container: str, *, force: bool = False) -> None:
        """Take a container out of a network."""
        body = {"Container": container, "Force": force}
        self._client.call(network_calls.disconnect(name, body))

    def check(self, name: str) -> dict[str, str]:
        """What the plugins of a CNI network find wrong with each container in it, by the
        containers' names; "" is nothing. Raises InvalidArgument for a network of another kind."""
        answer = self._client.call(network_calls.check(name))
        return {one["Name"]: one["Problem"] for one in answer}

    def prune(self, filters: Filters | None = None) -> tuple[str, ...]:
        """Remove the networks that no container names; the names of those that went."""
        answer = self._client.call(network_calls.prune(filters))
        return tuple(answer.get("NetworksDeleted") or ())


class AsyncNetworks:
    """The same, awaited."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, name: str, **options: Unpack[CreateOptions]) -> Network:
        """Make a network. Raises AlreadyExists when the name is taken, InvalidArgument."""
        body = create_body(name, options)
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

    async def connect(self, name: str, container: str, **options: Unpack[ConnectOptions]) -> None:
        """Put a container, running or not, into a network."""
        body = connect_body(container, options)
        await self._client.call(network_calls.connect(name, body))

    async def disconnect(self, name: str, container: str, *, force: bool = False) -> None:
        """Take a container out of a network."""
        body = {"Container": container, "Force": force}
        await self._client.call(network_calls.disconnect(name, body))

    async def check(self, name: str) -> dict[str, str]:
        """What the plugins of a CNI network find wrong with each container in it, by the
        containers' names; "" is nothing. Raises InvalidArgument for a network of another kind."""
        answer = await self._client.call(network_calls.check(name))
        return {one["Name"]: one["Problem"] for one in answer}

    async def prune(self, filters: Filters | None = None) -> tuple[str, ...]:
        """Remove the networks that no container names; the names of those that went."""
        answer = await self._client.call(network_calls.prune(filters))
        return tuple(answer.get("NetworksDeleted") or ())
