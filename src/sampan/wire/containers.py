"""Bodies of the Docker Engine API about containers.

See `docker.py` for how these structs are meant.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from sampan.wire import hostconfig, networks
from sampan.wire.docker import NO_TIME, Body

Arguments = list[str] | str | None
"""A command; Docker takes a bare string as a command of one word."""


class ContainerCreate(Body, kw_only=True):
    """Body of POST /containers/create."""

    hostname: str | None = ""
    domainname: str | None = ""
    user: str | None = ""
    attach_stdin: bool | None = False
    attach_stdout: bool | None = False
    attach_stderr: bool | None = False
    exposed_ports: dict[str, dict[str, Any] | None] | None = None
    tty: bool | None = False
    open_stdin: bool | None = False
    stdin_once: bool | None = False
    env: list[str] | None = None
    cmd: Arguments = None
    healthcheck: hostconfig.Healthcheck | None = None
    image: str | None = ""
    volumes: dict[str, dict[str, Any] | None] | None = None
    working_dir: str | None = ""
    entrypoint: Arguments = None
    network_disabled: bool | None = False
    labels: dict[str, str] | None = None
    stop_signal: str | None = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None
    runtime: str | None = ""  # where docker-py puts it; Docker's own place is the HostConfig
    host_config: hostconfig.HostConfig | None = None
    networking_config: networks.NetworkingConfig | None = None
    mac_address: str | None = ""
    # An extension of ours: a directory of the host in place of an image, or `DIR:O` for an
    # overlay above it. dockerd ignores the member and asks for an image.
    rootfs: str | None = ""


class Created(Body, kw_only=True):
    """A container was made."""

    id: str
    warnings: list[str] = field(default_factory=list)


class WaitError(Body, kw_only=True):
    """Why a wait ended without an exit."""

    message: str


class WaitResult(Body, kw_only=True):
    """The exit code that a wait waited for."""

    error: WaitError | UnsetType = UNSET
    status_code: int


class HealthResult(Body, kw_only=True):
    """One health check."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(Body, kw_only=True):
    """The health in `inspect`."""

    status: str
    failing_streak: int
    log: list[HealthResult]


class State(Body, kw_only=True):
    """The state in `inspect`."""

    status: str
    running: bool
    paused: bool
    restarting: bool
    oom_killed: bool = field(name="OOMKilled")
    dead: bool
    pid: int
    exit_code: int
    error: str
    started_at: str = NO_TIME
    finished_at: str = NO_TIME
    health: Health | UnsetType = UNSET


class Endpoint(Body, kw_only=True):
    """A container in one network."""

    ipam_config: dict[str, Any] | None = field(default=None, name="IPAMConfig")
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = field(default="", name="NetworkID")
    endpoint_id: str = field(default="", name="EndpointID")
    gateway: str = ""
    ip_address: str = field(default="", name="IPAddress")
    ip_prefix_len: int = field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = field(default="", name="IPv6Gateway")
    global_ipv6_address: str = field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = field(default=0, name="GlobalIPv6PrefixLen")
    dns_names: list[str] | None = field(default=None, name="DNSNames")


class NetworkSettings(Body, kw_only=True):
    """The networks in `inspect`. Those that may be left out are of versions before 1.52, which
    had what the container has in the default bridge here too."""

    bridge: str | UnsetType = UNSET
    sandbox_id: str = field(default="", name="SandboxID")
    sandbox_key: str = ""
    ports: dict[str, list[hostconfig.PortBinding] | None] = field(default_factory=dict)
    hairpin_mode: bool | UnsetType = UNSET
    link_local_ipv6_address: str | UnsetType = field(default=UNSET, name="LinkLocalIPv6Address")
    link_local_ipv6_prefix_len: int | UnsetType = field(
        default=UNSET, name="LinkLocalIPv6PrefixLen"
    )
    secondary_ip_addresses: list[Any] | UnsetType | None = field(
        default=UNSET, name="SecondaryIPAddresses"
    )
    secondary_ipv6_addresses: list[Any] | UnsetType | None = field(
        default=UNSET, name="SecondaryIPv6Addresses"
    )
    endpoint_id: str | UnsetType = field(default=UNSET, name="EndpointID")
    gateway: str | UnsetType = UNSET
    global_ipv6_address: str | UnsetType = field(default=UNSET, name="GlobalIPv6Address")
    global_ipv6_prefix_len: int | UnsetType = field(default=UNSET, name="GlobalIPv6PrefixLen")
    ip_address: str | UnsetType = field(default=UNSET, name="IPAddress")
    ip_prefix_len: int | UnsetType = field(default=UNSET, name="IPPrefixLen")
    ipv6_gateway: str | UnsetType = field(default=UNSET, name="IPv6Gateway")
    mac_address: str | UnsetType = UNSET
    networks: dict[str, Endpoint] = field(default_factory=dict)


class MountPoint(Body, kw_only=True):
    """One mount in `inspect` and `ps`."""

    type: str
    name: str | UnsetType = UNSET
    source: str
    destination: str
    driver: str | UnsetType = UNSET
    mode: str = ""
    rw: bool = field(default=True, name="RW")
    propagation: str = ""


class GraphDriver(Body, kw_only=True):
    """Where the file system of a container or an image is."""

    data: dict[str, str] | None = None
    name: str = "overlay"


class Snapshot(Body, kw_only=True):
    """A snapshot, by the name of what keeps it."""

    name: str = "overlay"


class RootStorage(Body, kw_only=True):
    """What the root file system is."""

    snapshot: Snapshot = field(default_factory=Snapshot)


class Storage(Body, kw_only=True):
    """Where the root file system is, from 1.52 on in the place of `GraphDriver`."""

    root_fs: RootStorage = field(default_factory=RootStorage, name="RootFS")


class ContainerConfig(Body, kw_only=True):
    """The container's own half of the configuration, in `inspect`."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | UnsetType = UNSET
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: hostconfig.Healthcheck | UnsetType = UNSET
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | None = None
    mac_address: str | UnsetType = UNSET
    on_build: list[str] | UnsetType | None = UNSET
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str | UnsetType = UNSET
    stop_timeout: int | UnsetType = UNSET
    shell: list[str] | UnsetType = UNSET


class ContainerInspect(Body, kw_only=True):
    """Answer of GET /containers/{id}/json."""

    id: str
    created: str
    path: str
    args: list[str]
    state: State
    image: str
    resolv_conf_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    log_path: str = ""
    name: str
    restart_count: int = 0
    driver: str = "overlay"
    platform: str = "linux"
    mount_label: str = ""
    process_label: str = ""
    app_armor_profile: str = ""
    exec_ids: list[str] | None = field(default=None, name="ExecIDs")
    host_config: hostconfig.HostConfig
    graph_driver: GraphDriver | UnsetType = UNSET
    storage: Storage | UnsetType = UNSET
    size_rw: int | UnsetType = UNSET
    size_root_fs: int | UnsetType = UNSET
    mounts: list[MountPoint] = field(default_factory=list)
    config: ContainerConfig
    network_settings: NetworkSettings = field(default_factory=NetworkSettings)


class Port(Body, kw_only=True):
    """One port in `ps`."""

    ip: str | UnsetType = field(default=UNSET, name="IP")
    private_port: int
    public_port: int | UnsetType = UNSET
    type: str = "tcp"


class SummaryHostConfig(Body, kw_only=True):
    """The part of the host configuration that `ps` shows."""

    network_mode: str
    annotations: dict[str, str] | UnsetType = UNSET


class SummaryHealth(Body, kw_only=True):
    """The health that `ps` shows, from 1.52 on."""

    status: str = "none"
    failing_streak: int = 0


class SummaryNetworks(Body, kw_only=True):
    """The networks that `ps` shows."""

    networks: dict[str, Endpoint] = field(default_factory=dict)


class ContainerSummary(Body, kw_only=True):
    """One entry of GET /containers/json."""

    id: str
    names: list[str]
    image: str
    image_id: str = field(name="ImageID")
    command: str
    created: int
    ports: list[Port] = field(default_factory=list)
    size_rw: int | UnsetType = UNSET
    size_root_fs: int | UnsetType = UNSET
    labels: dict[str, str] = field(default_factory=dict)
    state: str
    status: str
    host_config: SummaryHostConfig
    health: SummaryHealth | UnsetType = UNSET
    network_settings: SummaryNetworks = field(default_factory=SummaryNetworks)
    mounts: list[MountPoint] = field(default_factory=list)


class Top(Body, kw_only=True):
    """Answer of GET /containers/{id}/top."""

    processes: list[list[str]]
    titles: list[str]


class ContainersPruned(Body, kw_only=True):
    """Answer of POST /containers/prune."""

    containers_deleted: list[str] | None
    space_reclaimed: int = 0
