"""Bodies of the Docker Engine API about the daemon itself: version, info, df, auth.

See `docker.py` for how these structs are meant.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from sampan.wire.build import CacheRecord
from sampan.wire.containers import ContainerSummary
from sampan.wire.docker import Body
from sampan.wire.images import ImageSummary
from sampan.wire.volumes import Volume


class Component(Body, kw_only=True):
    """One program in GET /version."""

    name: str
    version: str
    details: dict[str, str] = field(default_factory=dict)


class PlatformName(Body, kw_only=True):
    """The product's name in GET /version."""

    name: str = ""


class Version(Body, kw_only=True):
    """Answer of GET /version."""

    platform: PlatformName
    components: list[Component]
    version: str
    api_version: str
    min_api_version: str = field(name="MinAPIVersion")
    git_commit: str = ""
    go_version: str = ""
    os: str = "linux"
    arch: str
    kernel_version: str
    experimental: bool = True
    build_time: str = ""


class Plugins(Body, kw_only=True):
    """Drivers by kind."""

    volume: list[str] = field(default_factory=list)
    network: list[str] = field(default_factory=list)
    authorization: list[str] | None = None
    log: list[str] = field(default_factory=list)


class RegistryConfig(Body, kw_only=True):
    """How registries are reached."""

    allow_nondistributable_artifacts_cidrs: list[str] | UnsetType | None = field(
        default=UNSET, name="AllowNondistributableArtifactsCIDRs"
    )
    allow_nondistributable_artifacts_hostnames: list[str] | UnsetType | None = UNSET
    index_configs: dict[str, Any] = field(default_factory=dict)
    insecure_registry_cidrs: list[str] = field(default_factory=list, name="InsecureRegistryCIDRs")
    mirrors: list[str] = field(default_factory=list)


class Commit(Body, kw_only=True):
    """The version of a component."""

    id: str = field(default="", name="ID")
    expected: str | UnsetType = UNSET


class Firewall(Body, kw_only=True):
    """What filters packets."""

    driver: str = "nftables"


class Swarm(Body, kw_only=True):
    """This is not a swarm."""

    node_id: str = field(default="", name="NodeID")
    node_addr: str = ""
    local_node_state: str = "inactive"
    control_available: bool = False
    error: str = ""
    remote_managers: list[Any] | None = None


class Info(Body, kw_only=True):
    """Answer of GET /info."""

    id: str = field(name="ID")
    containers: int
    containers_running: int
    containers_paused: int
    containers_stopped: int
    images: int
    driver: str
    driver_status: list[tuple[str, str]] = field(default_factory=list)
    plugins: Plugins
    memory_limit: bool = True
    swap_limit: bool = True
    cpu_cfs_period: bool = True
    cpu_cfs_quota: bool = True
    cpu_shares: bool = field(default=True, name="CPUShares")
    cpu_set: bool = field(default=True, name="CPUSet")
    pids_limit: bool = True
    ipv4_forwarding: bool = field(default=True, name="IPv4Forwarding")
    bridge_nf_iptables: bool | UnsetType = UNSET
    bridge_nf_ip6tables: bool | UnsetType = UNSET
    debug: bool = False
    n_fd: int = 0
    oom_kill_disable: bool = True
    n_goroutines: int = 0
    system_time: str
    logging_driver: str
    cgroup_driver: str = "cgroupfs"
    cgroup_version: str
    n_events_listener: int = 0
    kernel_version: str
    operating_system: str
    os_version: str = field(default="", name="OSVersion")
    os_type: str = field(default="linux", name="OSType")
    architecture: str
    index_server_address: str = "https://index.docker.io/v1/"
    registry_config: RegistryConfig
    ncpu: int = field(name="NCPU")
    mem_total: int
    generic_resources: list[Any] | None = None
    docker_root_dir: str
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    name: str
    labels: list[str] = field(default_factory=list)
    experimental_build: bool = True
    server_version: str
    runtimes: dict[str, dict[str, Any]]
    default_runtime: str = "sampan-oci"
    swarm: Swarm = field(default_factory=Swarm)
    live_restore_enabled: bool = True
    isolation: str = ""
    init_binary: str = ""
    containerd_commit: Commit = field(default_factory=Commit)
    runc_commit: Commit = field(default_factory=Commit)
    init_commit: Commit = field(default_factory=Commit)
    security_options: list[str]
    firewall_backend: Firewall | UnsetType = UNSET
    cdi_spec_dirs: list[str] = field(default_factory=list, name="CDISpecDirs")
    warnings: list[str] | None = None


class StoreUsage(Body, kw_only=True):
    """What the store takes on the disk, as du counts; not in Docker's API."""

    total: int
    blobs: int
    layers: int
    writable: int
    logs: int
    volumes: int
    database: int
    other: int


class Problem(Body, kw_only=True):
    """One thing that is wrong with the store."""

    kind: str
    subject: str
    detail: str
    mended: bool


class StoreCheck(Body, kw_only=True):
    """Answer of POST /system/check."""

    blobs: int
    size: int
    snapshots: int
    images: int
    problems: list[Problem]


class KindUsage(Body, kw_only=True, omit_defaults=True):
    """What the objects of one kind take, in bytes."""

    active_count: int = 0
    reclaimable: int = 0
    total_count: int = 0
    total_size: int = 0


class ImageUsage(KindUsage, kw_only=True, omit_defaults=True):
    """Images, each of them where they are asked for."""

    items: list[ImageSummary] | UnsetType = UNSET


class ContainerUsage(KindUsage, kw_only=True, omit_defaults=True):
    """Containers, as images."""

    items: list[ContainerSummary] | UnsetType = UNSET


class VolumeUsage(KindUsage, kw_only=True, omit_defaults=True):
    """Volumes, as images."""

    items: list[Volume] | UnsetType = UNSET


class CacheUsage(KindUsage, kw_only=True, omit_defaults=True):
    """The builds' cache, as images."""

    items: list[CacheRecord] | UnsetType = UNSET


class DiskUsage(Body, kw_only=True):
    """Answer of GET /system/df. `layers_size` has blobs and unpacked layers.

    The first five members are left out when a client of 1.52 or newer asks for all words, the last
    four for clients before that.
    """

    layers_size: int | UnsetType = UNSET
    store: StoreUsage | UnsetType = UNSET
    images: list[ImageSummary] | UnsetType | None = UNSET
    containers: list[ContainerSummary] | UnsetType | None = UNSET
    volumes: list[Volume] | UnsetType | None = UNSET
    build_cache: list[CacheRecord] | UnsetType | None = UNSET
    image_usage: ImageUsage | UnsetType = UNSET
    container_usage: ContainerUsage | UnsetType = UNSET
    volume_usage: VolumeUsage | UnsetType = UNSET
    build_cache_usage: CacheUsage | UnsetType = UNSET


class AuthResult(Body, kw_only=True):
    """Answer of POST /auth."""

    identity_token: str = ""
    status: str
