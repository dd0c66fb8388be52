"""Bodies of the Docker Engine API, as typed structs.

One struct per JSON object that crosses the socket, named after what it is. Field order is the
order in which dockerd 28 writes them. A struct that is read accepts null wherever Go's decoder does
(everywhere), ignores members it does not know, and refuses a wrong type; a struct that is written
carries the defaults that dockerd writes, so a converter only fills in what it knows. `UNSET` marks
members that dockerd leaves out when they are empty.

These types belong to the edge: the API turns them into the engine's model and back, and nobody
below imports them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, field

NO_TIME = "0001-01-01T00:00:00Z"


class Body(msgspec.Struct, rename="pascal"):
    """Base of the objects whose members are in PascalCase."""


# --- parts that are read and written ----------------------------------------------------------


class LogConfig(Body, kw_only=True):
    """How a container's output is kept."""

    type: str | None = ""
    config: dict[str, str] | None = field(default_factory=dict)


class RestartPolicy(Body, kw_only=True):
    """When an exited container is started again."""

    name: str | None = "no"
    maximum_retry_count: int | None = 0


class Ulimit(Body, kw_only=True):
    """One resource limit of a process."""

    name: str
    hard: int = 0
    soft: int = 0


class DeviceMapping(Body, kw_only=True):
    """A device of the host inside of the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class WeightDevice(Body, kw_only=True):
    """Block weight of one device."""

    path: str
    weight: int


class ThrottleDevice(Body, kw_only=True):
    """Block rate of one device."""

    path: str
    rate: int


class BindOptions(Body, kw_only=True):
    """Options of a bind mount."""

    propagation: str | None = ""
    non_recursive: bool | None = False
    create_mountpoint: bool | None = False
    read_only_non_recursive: bool | None = False
    read_only_force_recursive: bool | None = False


class TmpfsOptions(Body, kw_only=True):
    """Options of a tmpfs mount; `options` are words, or pairs of a key and a value."""

    size_bytes: int | None = 0
    mode: int | None = 0
    options: list[list[str]] | UnsetType | None = UNSET


class VolumeDriver(Body, kw_only=True):
    """The driver of a volume that a mount makes."""

    name: str | None = ""
    options: dict[str, str] | UnsetType | None = UNSET


class VolumeOptions(Body, kw_only=True):
    """Options of a volume's mount."""

    no_copy: bool | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType | None = UNSET
    driver_config: VolumeDriver | UnsetType | None = UNSET
    subpath: str | UnsetType | None = UNSET


class ImageOptions(Body, kw_only=True):
    """Options of an image's mount."""

    subpath: str | UnsetType | None = UNSET


class MountRequest(Body, kw_only=True):
    """One `--mount`."""

    type: str
    target: str
    source: str | UnsetType | None = UNSET
    read_only: bool | UnsetType | None = UNSET
    consistency: str | UnsetType | None = UNSET
    bind_options: BindOptions | UnsetType | None = UNSET
    volume_options: VolumeOptions | UnsetType | None = UNSET
    image_options: ImageOptions | UnsetType | None = UNSET
    tmpfs_options: TmpfsOptions | UnsetType | None = UNSET


class PortBinding(Body, kw_only=True):
    """A published port's side of the host."""

    host_ip: str | None = ""
    host_port: str | None = ""


class HostConfig(Body, kw_only=True):
    """What a container gets from the host: limits, mounts, namespaces, policies."""

    binds: list[str] | None = None
    container_id_file: str | None = field(default="", name="ContainerIDFile")
    log_config: LogConfig | None = field(default_factory=LogConfig)
    network_mode: str | None = "default"
    port_bindings: dict[str, list[PortBinding] | None] | None = field(default_factory=dict)
    restart_policy: RestartPolicy | None = field(default_factory=RestartPolicy)
    auto_remove: bool | None = False
    volume_driver: str | None = ""
    volumes_from: list[str] | None = None
    console_size: tuple[int, int] | None = (0, 0)
    annotations: dict[str, str] | UnsetType | None = UNSET
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str | None = ""
    dns: list[str] | None = field(default_factory=list)
    dns_options: list[str] | None = field(default_factory=list)
    dns_search: list[str] | None = field(default_factory=list)
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str | None = ""
    cgroup: str | None = ""
    links: list[str] | None = None
    oom_score_adj: int | None = 0
    pid_mode: str | None = ""
    privileged: bool | None = False
    publish_all_ports: bool | None = False
    readonly_rootfs: bool | None = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | UnsetType | None = UNSET
    tmpfs: dict[str, str] | UnsetType | None = UNSET
    uts_mode: str | None = field(default="", name="UTSMode")
    userns_mode: str | None = ""
    shm_size: int | None = 0
    sysctls: dict[str, str] | UnsetType | None = UNSET
    runtime: str | None = ""
    isolation: str | None = ""
    cpu_shares: int | None = 0
    memory: int | None = 0
    nano_cpus: int | None = 0
    cgroup_parent: str | None = ""
    blkio_weight: int | None = 0
    blkio_weight_device: list[WeightDevice] | None = field(default_factory=list)
    blkio_device_read_bps: list[ThrottleDevice] | None = field(default_factory=list)
    blkio_device_write_bps: list[ThrottleDevice] | None = field(default_factory=list)
    blkio_device_read_iops: list[ThrottleDevice] | None = field(
        default_factory=list, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_iops: list[ThrottleDevice] | None = field(
        default_factory=list, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int | None = 0
    cpu_quota: int | None = 0
    cpu_realtime_period: int | None = 0
    cpu_realtime_runtime: int | None = 0
    cpuset_cpus: str | None = ""
    cpuset_mems: str | None = ""
    devices: list[DeviceMapping] | None = field(default_factory=list)
    device_cgroup_rules: list[str] | None = None
    device_requests: list[dict[str, Any]] | None = None
    memory_reservation: int | None = 0
    memory_swap: int | None = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = False
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = field(default_factory=list)
    init: bool | UnsetType | None = UNSET
    cpu_count: int | None = 0
    cpu_percent: int | None = 0
    io_maximum_iops: int | None = field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int | None = field(default=0, name="IOMaximumBandwidth")
    mounts: list[MountRequest] | UnsetType | None = UNSET
    # An extension of ours: what a container gets that has become unhealthy.
    on_unhealthy: str | UnsetType | None = UNSET
    depends_on: list[str] | UnsetType | None = UNSET
    # Another: the names and networks that it may reach; none of them is nothing.
    egress: list[str] | UnsetType | None = UNSET
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


class Healthcheck(Body, kw_only=True):
    """How an image or a container says that it is well; durations in nanoseconds."""

    test: list[str] | UnsetType | None = UNSET
    interval: int | UnsetType | None = UNSET
    timeout: int | UnsetType | None = UNSET
    start_period: int | UnsetType | None = UNSET
    start_interval: int | UnsetType | None = UNSET
    retries: int | UnsetType | None = UNSET


# --- requests ---------------------------------------------------------------------------------

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
    healthcheck: Healthcheck | None = None
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
    host_config: HostConfig | None = None
    # An extension of ours: a directory of the host in place of an image, or `DIR:O` for an
    # overlay above it. dockerd ignores the member and asks for an image.
    rootfs: str | None = ""


class ExecCreate(Body, kw_only=True):
    """Body of POST /containers/{id}/exec."""

    user: str | None = ""
    privileged: bool | None = False
    tty: bool | None = False
    console_size: tuple[int, int] | None = None
    attach_stdin: bool | None = False
    attach_stderr: bool | None = False
    attach_stdout: bool | None = False
    detach: bool | None = False
    detach_keys: str | None = ""
    # docker-py's spelling; Go's decoder does not look at the case of a name.
    detach_keys_too: str | None = field(default="", name="detachKeys")
    env: list[str] | None = None
    working_dir: str | None = ""
    cmd: Arguments = None


class ExecStart(Body, kw_only=True):
    """Body of POST /exec/{id}/start."""

    detach: bool | None = False
    tty: bool | None = False
    console_size: tuple[int, int] | None = None


class Credentials(msgspec.Struct, rename="lower", kw_only=True):
    """Body of POST /auth, and the document inside of X-Registry-Auth."""

    user_name: str | None = field(default="", name="username")
    password: str | None = ""
    email: str | None = ""
    auth: str | None = ""
    server_address: str | None = field(default="", name="serveraddress")
    identity_token: str | None = field(default="", name="identitytoken")
    registry_token: str | None = field(default="", name="registrytoken")


# --- answers ----------------------------------------------------------------------------------


class ErrorMessage(msgspec.Struct):
    """Body of every answer that is an error."""

    message: str


class Created(Body, kw_only=True):
    """A container was made."""

    id: str
    warnings: list[str] = field(default_factory=list)


class Identifier(Body, kw_only=True):
    """An exec session was made."""

    id: str


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
    """The networks in `inspect`, with the members of the default bridge that 1.50 still has."""

    bridge: str = ""
    sandbox_id: str = field(default="", name="SandboxID")
    sandbox_key: str = ""
    ports: dict[str, list[PortBinding] | None] = field(default_factory=dict)
    hairpin_mode: bool = False
    link_local_ipv6_address: str = field(default="", name="LinkLocalIPv6Address")
    link_local_ipv6_prefix_len: int = field(default=0, name="LinkLocalIPv6PrefixLen")
    secondary_ip_addresses: list[Any] | None = field(default=None, name="SecondaryIPAddresses")
    secondary_ipv6_addresses: list[Any] | None = field(default=None, name="SecondaryIPv6Addresses")
    endpoint_id: str = field(default="", name="EndpointID")
    gateway: str = ""
    global_ipv6_address: str = field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = field(default=0, name="GlobalIPv6PrefixLen")
    ip_address: str = field(default="", name="IPAddress")
    ip_prefix_len: int = field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = field(default="", name="IPv6Gateway")
    mac_address: str = ""
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
    healthcheck: Healthcheck | UnsetType = UNSET
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | None = None
    on_build: list[str] | None = None
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
    host_config: HostConfig
    graph_driver: GraphDriver = field(default_factory=GraphDriver)
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


class ProcessConfig(msgspec.Struct, kw_only=True):
    """The process of an exec session, in lower case as dockerd writes it."""

    tty: bool
    entrypoint: str
    arguments: list[str]
    privileged: bool = False
    user: str = ""


class ExecInspect(Body, kw_only=True):
    """Answer of GET /exec/{id}/json."""

    id: str = field(name="ID")
    running: bool
    exit_code: int | None
    process_config: ProcessConfig
    open_stdin: bool
    open_stderr: bool
    open_stdout: bool
    can_remove: bool = False
    container_id: str = field(name="ContainerID")
    detach_keys: str = ""
    pid: int = 0


class Actor(Body, kw_only=True):
    """What an event is about."""

    id: str = field(name="ID")
    attributes: dict[str, str]


class Event(msgspec.Struct, kw_only=True):
    """One line of GET /events, with the older members beside the newer ones."""

    status: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    source: str | UnsetType = field(default=UNSET, name="from")
    type: str = field(name="Type")
    action: str = field(name="Action")
    actor: Actor = field(name="Actor")
    scope: str = "local"
    time: int
    time_nano: int = field(name="timeNano")
