"""The words of networks: what was asked for, what there is. All frozen.

Addresses are text, as people and APIs write them; `ipv4` and `ipv6` of an endpoint are without the
prefix length. A network's `name` is unique; `bridge`, `host` and `none` always exist.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec resolves it at run time
from dataclasses import field
from enum import StrEnum

from sampan.records import dataclass

BRIDGE, HOST, NONE = "bridge", "host", "none"
PREDEFINED = (BRIDGE, HOST, NONE)

BRIDGE_NAME = "com.docker.network.bridge.name"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
TALK = "com.docker.network.bridge.enable_icc"
BINDING = "com.docker.network.bridge.host_binding_ipv4"
MTU = "com.docker.network.driver.mtu"
CONFLIST = "conflist"
"""The option of a network of CNI plugins: the path of its configuration list."""

DEFAULT_MTU = 1500
EVERY4, EVERY6 = "0.0.0.0", "::"  # noqa: S104 - Docker's words for every address of the host


class Driver(StrEnum):
    """How a network is made."""

    BRIDGE = "bridge"
    MACVLAN = "macvlan"
    CNI = "cni"
    HOST = "host"
    NULL = "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Addresses of a network. `reserved` are names and addresses that nobody gets."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    reserved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network. `created_at` is in nanoseconds."""

    id: str
    name: str
    driver: Driver = Driver.BRIDGE
    created_at: int = 0
    pools: tuple[Pool, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    ipam_options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_predefined(self) -> bool:
        """Whether it always exists."""
        return self.name in PREDEFINED

    @property
    def has_names(self) -> bool:
        """Whether its containers find each other by name: in all but the default bridge."""
        return self.driver in (Driver.BRIDGE, Driver.MACVLAN) and self.name != BRIDGE

    @property
    def interface(self) -> str:
        """The name of its bridge."""
        return self.options.get(BRIDGE_NAME) or f"sb-{self.id[:12]}"

    @property
    def mtu(self) -> int:
        """The largest packet, in bytes."""
        return int(self.options.get(MTU) or DEFAULT_MTU)

    @property
    def masquerades(self) -> bool:
        """Whether what leaves gets the host's address."""
        return not self.internal and self.options.get(MASQUERADE, "true") == "true"

    @property
    def talks(self) -> bool:
        """Whether its containers reach each other."""
        return self.options.get(TALK, "true") == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """What is asked of a new network; what is left open is chosen."""

    name: str
    driver: str = Driver.BRIDGE
    pools: tuple[Pool, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    ipam_options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """What a container asks of one network; "" where it leaves it open."""

    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    gateway_priority: int = 0
    link_local: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A container in a network, while it runs. `link` is the host's end of its interface; rates and
    bursts are bytes a second and bytes, 0 where there is no limit."""

    id: str
    network: str
    network_name: str
    owner: str
    interface: str
    link: str = ""
    mac: str = ""
    ipv4: str = ""
    prefix4: int = 0
    gateway4: str = ""
    ipv6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    names: tuple[str, ...] = ()
    rate_in: int = 0
    burst_in: int = 0
    rate_out: int = 0
    burst_out: int = 0
    link_local: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A port to be published. `host_first` to `host_last` are the ports it may get; `host_first` 0
    is any, `host_last` 0 is no more than the first."""

    port: int
    protocol: str = "tcp"
    host: str = ""
    host_first: int = 0
    host_last: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A port that is published. `host` is an address, 0.0.0.0 or ::."""

    port: int
    protocol: str
    host: str
    host_port: int
