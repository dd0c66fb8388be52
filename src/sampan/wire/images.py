"""Bodies of the Docker Engine API about images, and of the system calls.

See `docker.py` for how these structs are meant; they lie here to keep files readable.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, field

from sampan.wire.build import CacheRecord  # noqa: TC001 - msgspec resolves it at run time
from sampan.wire.docker import NO_TIME, Body, ContainerSummary, GraphDriver, Healthcheck
from sampan.wire.volumes import Volume  # noqa: TC001 - msgspec resolves it at run time


class ImageSummary(Body, kw_only=True):
    """One entry of GET /images/json. -1 means: not counted."""

    containers: int = -1
    created: int
    id: str
    labels: dict[str, str] | None
    parent_id: str = ""
    repo_digests: list[str] | None
    repo_tags: list[str] | None
    shared_size: int = -1
    size: int


class ImageConfig(Body, kw_only=True):
    """How containers of an image run; members that the image does not state are left out."""

    user: str | UnsetType = UNSET
    exposed_ports: dict[str, dict[str, Any]] | UnsetType = UNSET
    env: list[str] | UnsetType = UNSET
    cmd: list[str] | UnsetType = UNSET
    healthcheck: Healthcheck | UnsetType = UNSET
    volumes: dict[str, dict[str, Any]] | UnsetType = UNSET
    working_dir: str | UnsetType = UNSET
    entrypoint: list[str] | UnsetType = UNSET
    on_build: list[str] | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    stop_signal: str | UnsetType = UNSET
    shell: list[str] | UnsetType = UNSET


class RootFS(Body, kw_only=True):
    """The layers of an image, by diff id, bottom first."""

    type: str = "layers"
    layers: list[str]


class Metadata(Body, kw_only=True):
    """What the daemon knows beside the image's own documents."""

    last_tag_time: str = NO_TIME


class ImageInspect(Body, kw_only=True):
    """Answer of GET /images/{name}/json."""

    id: str
    repo_tags: list[str] | None
    repo_digests: list[str] | None
    parent: str = ""
    comment: str = ""
    created: str | UnsetType = UNSET
    docker_version: str = ""
    author: str = ""
    config: ImageConfig
    architecture: str
    variant: str | UnsetType = UNSET
    os: str
    size: int
    graph_driver: GraphDriver = field(default_factory=GraphDriver)
    root_fs: RootFS = field(name="RootFS")
    metadata: Metadata = field(default_factory=Metadata)


class Platform(msgspec.Struct, kw_only=True):
    """A platform as newer clients give it in a query: lower-case members."""

    os: str
    architecture: str
    variant: str = ""


class HistoryEntry(Body, kw_only=True):
    """One entry of GET /images/{name}/history, newest first."""

    comment: str = ""
    created: int
    created_by: str
    id: str = "<missing>"
    size: int = 0
    tags: list[str] | None = None


class ImageDeleted(Body, kw_only=True):
    """One entry of the answer of DELETE /images/{name}: one of the two members."""

    untagged: str | UnsetType = UNSET
    deleted: str | UnsetType = UNSET


class ImagesPruned(Body, kw_only=True):
    """Answer of POST /images/prune."""

    images_deleted: list[ImageDeleted] | None
    space_reclaimed: int = 0


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
    experimental: bool | UnsetType = UNSET
    build_time: str = ""


class Plugins(Body, kw_only=True):
    """Drivers by kind."""

    volume: list[str] = field(default_factory=list)
    network: list[str] = field(default_factory=list)
    authorization: list[str] | None = None
    log: list[str] = field(default_factory=list)


class RegistryConfig(Body, kw_only=True):
    """How registries are reached."""

    index_configs: dict[str, Any] = field(default_factory=dict)
    insecure_registry_cidrs: list[str] = field(default_factory=list, name="InsecureRegistryCIDRs")
    mirrors: list[str] = field(default_factory=list)


class Commit(Body, kw_only=True):
    """The version of a component."""

    id: str = field(default="", name="ID")


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
    experimental_build: bool = False
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


class DiskUsage(Body, kw_only=True):
    """Answer of GET /system/df. `layers_size` has blobs and unpacked layers."""

    layers_size: int
    store: StoreUsage | UnsetType = UNSET
    images: list[ImageSummary] | None
    containers: list[ContainerSummary] | None
    volumes: list[Volume] | None = field(default_factory=list)
    build_cache: list[CacheRecord] | None = field(default_factory=list)


class AuthResult(Body, kw_only=True):
    """Answer of POST /auth."""

    identity_token: str = ""
    status: str
