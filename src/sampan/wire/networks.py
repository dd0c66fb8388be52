"""Bodies of the Docker Engine API about networks; `docker.py` says how such structs are meant."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from sampan.wire.docker import Body
from sampan.wire.hostconfig import PortBinding


class EndpointIPAM(Body, kw_only=True):
    """The addresses that a container asks for in a network."""

    ipv4_address: str | UnsetType | None = field(default=UNSET, name="IPv4Address")
    ipv6_address: str | UnsetType | None = field(default=UNSET, name="IPv6Address")
    link_local_ips: list[str] | UnsetType | None = field(default=UNSET, name="LinkLocalIPs")


class EndpointSettings(Body, kw_only=True):
    """What a container asks of a network."""

    ipam_config: EndpointIPAM | None = field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str | None = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int | None = 0


class NetworkingConfig(Body, kw_only=True):
    """The networks of a new container."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


class IPAMConfig(Body, kw_only=True):
    """One subnet."""

    subnet: str | UnsetType | None = UNSET
    ip_range: str | UnsetType | None = field(default=UNSET, name="IPRange")
    gateway: str | UnsetType | None = UNSET
    auxiliary_addresses: dict[str, str] | UnsetType | None = UNSET


class IPAM(Body, kw_only=True):
    """Where the addresses of a network come from."""

    driver: str | None = "default"
    options: dict[str, str] | None = None
    config: list[IPAMConfig] | None = None


class ConfigReference(Body, kw_only=True):
    """Swarm's network that lends its configuration."""

    network: str | None = ""


class NetworkCreate(Body, kw_only=True):
    """Body of POST /networks/create."""

    name: str | None = ""
    driver: str | None = ""
    scope: str | None = ""
    enable_ipv4: bool | None = field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = field(default=None, name="EnableIPv6")
    ipam: IPAM | None = field(default=None, name="IPAM")
    internal: bool | None = False
    attachable: bool | None = False
    ingress: bool | None = False
    config_only: bool | None = False
    config_from: ConfigReference | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkCreated(Body, kw_only=True):
    """Answer of POST /networks/create."""

    id: str
    warning: str = ""


class NetworkConnect(Body, kw_only=True):
    """Body of POST /networks/{id}/connect."""

    container: str | None = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnect(Body, kw_only=True):
    """Body of POST /networks/{id}/disconnect."""

    container: str | None = ""
    force: bool | None = False


class Member(Body, kw_only=True):
    """A container in `network inspect`."""

    name: str
    endpoint_id: str = field(name="EndpointID")
    mac_address: str
    ipv4_address: str = field(name="IPv4Address")
    ipv6_address: str = field(name="IPv6Address")


class SubnetStatus(Body, kw_only=True):
    """How full a subnet is."""

    ips_in_use: int = field(name="IPsInUse")
    dynamic_ips_available: int = field(name="DynamicIPsAvailable")


class IPAMStatus(Body, kw_only=True):
    """How full the subnets of a network are."""

    subnets: dict[str, SubnetStatus]


class NetworkStatus(Body, kw_only=True):
    """What is so of a network now, from 1.52 on."""

    ipam: IPAMStatus = field(name="IPAM")


class Network(Body, kw_only=True):
    """One network."""

    name: str
    id: str
    created: str
    scope: str = "local"
    driver: str
    enable_ipv4: bool = field(name="EnableIPv4")
    enable_ipv6: bool = field(name="EnableIPv6")
    ipam: IPAM = field(name="IPAM")
    internal: bool
    attachable: bool
    ingress: bool = False
    config_from: ConfigReference = field(default_factory=ConfigReference)
    config_only: bool = False
    containers: dict[str, Member] | UnsetType = field(default_factory=dict)
    options: dict[str, str]
    labels: dict[str, str]
    status: NetworkStatus | UnsetType = UNSET


class NetworksPruned(Body, kw_only=True):
    """Answer of POST /networks/prune."""

    networks_deleted: list[str] | None


class PortsChange(Body, kw_only=True):
    """Body of POST /containers/{id}/ports, an extension of ours."""

    add: dict[str, list[PortBinding] | None] | None = None
    remove: dict[str, list[PortBinding] | None] | None = None


class EgressChange(Body, kw_only=True):
    """Body of POST /containers/{id}/egress, an extension of ours; null is no restriction."""

    allow: list[str] | None = None


class OpenPort(Body, kw_only=True):
    """One entry of GET /ports, an extension of ours."""

    container: str
    port: int
    protocol: str
    host_ip: str
    host_port: int
    reach: str
    warning: str


class MemberCheck(Body, kw_only=True):
    """One entry of GET /networks/{id}/check, an extension of ours; `problem` "" is none."""

    container: str
    name: str
    problem: str
