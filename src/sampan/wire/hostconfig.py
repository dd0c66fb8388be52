"""Bodies of the Docker Engine API: what a container gets from the host, read and written alike.

See `docker.py` for how these structs are meant.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from sampan.wire.docker import Body


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

    size_bytes: int | UnsetType | None = UNSET
    mode: int | UnsetType | None = UNSET
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
    target: str = ""
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
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
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
    kernel_memory: int | UnsetType | None = UNSET
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
