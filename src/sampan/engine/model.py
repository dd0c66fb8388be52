"""The engine's own words: what a container is, whatever API asked for it.

Everything here is frozen; a change is a `replace()` in the one function that also writes the row.
Times are nanoseconds since the epoch, 0 where a thing has not happened. Sizes are bytes. Docker's
and the CRI's bodies are translated into these words at the edge, and never the other way round.

    create            start                 exit               remove
   -------->  CREATED -----> RUNNING ----------------> EXITED -------> REMOVING -> gone
                 |            |   ^  pause               |  ^             |
                 |            v   | unpause        start |  | given up    | a step failed
                 |           PAUSED              <-------+  |             v
                 |                                RUNNING   |            DEAD (remove again)
                 +-- start failed: stays          RESTARTING (the policy waits) --> RUNNING
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec resolves it at run time
from dataclasses import field
from enum import StrEnum

from sampan.engine.talk import (
    Attachment,
    BlkioEntry,
    EngineInfo,
    Event,
    Exec,
    ExecConfig,
    Framing,
    LogQuery,
    LogRecord,
    NetworkStats,
    Pruned,
    Stats,
    Top,
)
from sampan.network.model import Binding, EndpointRequest  # noqa: TC001 - msgspec resolves them
from sampan.records import dataclass

__all__ = (
    "Attachment", "BlkioEntry", "BlockDevice", "BlockLimit", "Container", "ContainerConfig",
    "Created", "Dependency", "DependencyCondition", "Device", "EngineInfo", "Event", "Exec",
    "ExecConfig", "Framing", "Health", "HealthCheck", "HealthResult", "HealthStatus",
    "HostConfig", "LogConfig", "LogDriver", "LogQuery", "LogRecord", "Mount", "MountType",
    "NetworkStats", "OnUnhealthy", "Ownership", "Pruned", "RestartName", "RestartPolicy",
    "State", "Stats", "Status", "Top", "Ulimit", "WaitCondition", "WaitResult",
)  # fmt: skip


class Status(StrEnum):
    """Where a container is in its life; the picture is in the module's docstring."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"

    @property
    def is_running(self) -> bool:
        """Whether a process of the container exists (a frozen one does)."""
        return self in (Status.RUNNING, Status.PAUSED)

    @property
    def can_start(self) -> bool:
        """Whether `start` may be asked for now."""
        return self in (Status.CREATED, Status.EXITED, Status.RESTARTING)

    @property
    def can_remove(self) -> bool:
        """Whether `remove` needs no force."""
        return self in (Status.CREATED, Status.EXITED, Status.DEAD)


class RestartName(StrEnum):
    """When a container that ended is started again."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


class LogDriver(StrEnum):
    """Where output is kept."""

    JSON_FILE = "json-file"
    LOCAL = "local"
    CRI = "cri"
    NONE = "none"


class HealthStatus(StrEnum):
    """What the checks say."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class OnUnhealthy(StrEnum):
    """What happens to a container that has become unhealthy."""

    NONE = "none"
    RESTART = "restart"
    STOP = "stop"
    KILL = "kill"


class DependencyCondition(StrEnum):
    """How a container must be before one that depends on it starts."""

    STARTED = "started"
    HEALTHY = "healthy"
    COMPLETED = "completed"


class WaitCondition(StrEnum):
    """What `wait` waits for; HEALTHY also ends when the container does."""

    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """`max_retries` counts only for on-failure; 0 is without end."""

    name: RestartName = RestartName.NO
    max_retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """Another container, by its id after create, and how it must be."""

    container: str
    condition: DependencyCondition = DependencyCondition.STARTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """One resource limit, by its name without RLIMIT_ and in lower case; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of the host that the container gets; `permissions` of the letters r, w, m."""

    host_path: str
    container_path: str
    permissions: str = "rwm"


class BlockLimit(StrEnum):
    """What is limited of a block device."""

    WEIGHT = "weight"
    READ_BPS = "read_bps"
    WRITE_BPS = "write_bps"
    READ_IOPS = "read_iops"
    WRITE_IOPS = "write_iops"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """A limit of one block device, by its path on the host: bytes or operations a second, or a
    weight of 10 to 1000."""

    limit: BlockLimit
    path: str
    value: int


class MountType(StrEnum):
    """What is mounted."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"
    IMAGE = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount of a container, as asked for or, in `Container.mounts`, as it was decided.

    `source` is a path of the host, the name of a volume ("": a new one without a name) or the
    reference of an image. `words` are the options of a `-v` or a tmpfs in the order in which they
    were given; the typed fields say the same. `make_source`: a source of the host that is missing
    becomes a directory. `copy`: an empty volume is filled from the image. `size` is in bytes.
    `path` is the directory of a volume, once it is there; `snapshot` the key of the view that an
    image's mount reads.
    """

    type: MountType
    target: str
    source: str = ""
    read_only: bool = False
    words: tuple[str, ...] = ()
    propagation: str = ""
    recursive: bool = True
    read_only_recursive: bool = True
    make_source: bool = False
    copy: bool = True
    subpath: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    driver_options: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    mode: int | None = None
    path: str = ""
    snapshot: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How output is kept; 0 and None mean the driver's or the engine's default.

    `local` is `json-file` with compression and attributes that cannot be had. `compress`: rotated
    files. `labels` and `env` are patterns of names, whose values every record carries as
    attributes, and `tag` a text. `options` is what the client asked for, as it asked.

    `path` is for the driver cri alone: the file belongs to whoever asked for it, who rotates and
    removes it.
    """

    driver: LogDriver = LogDriver.JSON_FILE
    max_size: int = 0
    max_file: int = 0
    compress: bool | None = None
    labels: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    tag: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How to see whether a container is well.

    `test` is Docker's: () as the image says, ("NONE",), ("CMD", ...) or ("CMD-SHELL", text);
    `command` is what runs, filled in at create, () where nothing does. Durations are
    nanoseconds, 0 means the default.
    """

    test: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthResult:
    """What one check came to; `exit_code` -1 when it did not come to its end."""

    start: int
    end: int
    exit_code: int
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the checks came to; `log` has the last few, the oldest first."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """What runs. None and "" mean: as the image says. After create they are filled in.

    Exactly one of `image` and `rootfs` is given. `rootfs` is a directory, or `DIR:O` for an overlay
    above it. `labels` are the user's alone: an image's labels never become them.
    """

    image: str | None = None
    rootfs: str | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: HealthCheck | None = None
    mac_address: str = ""
    """What old clients ask for: the address that the container has in its first network."""

    @property
    def checks(self) -> HealthCheck | None:
        """The check that is made of a container that runs; one with ("NONE",) has none."""
        check = self.healthcheck
        return check if check is not None and check.command else None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What the host grants: limits, mounts, rights. 0, "" and None mean: not set.

    `binds` are Docker's `source:target[:options]`, `mounts` the same with types; `tmpfs` maps a
    target to mount options; `volumes_from` are containers whose mounts are taken over (`:ro`).
    `nano_cpus` are billionths of a processor; `cpu_period`, `cpu_quota` and the two of real time
    are microseconds. `storage_opt` has `size`, the bytes of the writable layer.
    The modes of namespaces are "" (its own), "host" or "container:ID"; `ipc_mode` has "shareable"
    and "none" (no /dev/shm) besides, `userns_mode` "auto" (see engine/ranges.py). `cgroup_parent`
    "" is the engine's own.
    `groups_policy` says which groups of the image's files a user gets: "" those of a user without
    a group (Docker), "merge" always, "strict" never.
    """

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpu_rt_runtime: int = 0
    cpu_rt_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cpu_count: int = 0
    """Of other systems; it is told again and means nothing here."""

    pids_limit: int | None = None
    blkio_weight: int = 0
    cgroup_parent: str = ""
    network_mode: str = "none"
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    userns_mode: str = ""
    cgroupns_mode: str = ""
    binds: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    groups_policy: str = ""
    devices: tuple[Device, ...] = ()
    device_rules: tuple[str, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    block_devices: tuple[BlockDevice, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    storage_opt: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: int = 0
    init: bool = False
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] | None = None
    dns_search: tuple[str, ...] | None = None
    dns_options: tuple[str, ...] | None = None
    links: tuple[str, ...] = ()
    egress: tuple[str, ...] | None = None
    ports: tuple[Binding, ...] = ()
    publish_all: bool = False
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    runtime: str = ""
    program: tuple[str, ...] = ()
    """A foreign OCI runtime with runc's command line: its path and first words. () is our own."""

    isolation: str = ""
    volume_driver: str = ""
    console_size: tuple[int, int] | None = None
    restart: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    on_unhealthy: OnUnhealthy = OnUnhealthy.NONE
    depends_on: tuple[Dependency, ...] = ()
    log: LogConfig = LogConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of the container's process.

    `error` is the sentence of the last failed start, or says that the monitor died.
    `stopped_by_user` is what the restart policies need to know after a restart of the engine.
    `health` is None for a container without checks.
    """

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    stopped_by_user: bool = False
    health: Health | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container as it is now.

    `config` is complete: what the request left open was taken from the image. `path` and `args` are
    the command line that runs. `image_id` and `chain_id` are "" for a container of a directory.
    `image_labels` stay apart from `config.labels`; an API may show them merged. `mounts` are all of
    them as they were decided at create: volumes have their names, whoever asked for them. `ids` are
    the first id of the host and the number of ids of its user namespace. `networks` are what is
    asked of each network, by its name; `host.network_mode` is the first one.

    A container with an `owner` belongs to a room above the engine (pods): that room makes its OCI
    configuration, lists it and removes it. `notes` is what the owner wants to be kept with it; the
    engine does not read them.
    """

    id: str
    name: str
    created_at: int
    config: ContainerConfig
    host: HostConfig
    path: str
    args: tuple[str, ...] = ()
    image_id: str = ""
    image_name: str = ""
    image_labels: Mapping[str, str] = field(default_factory=dict)
    chain_id: str = ""
    architecture: str = ""
    log_path: str = ""
    networks: Mapping[str, EndpointRequest] = field(default_factory=dict)
    owner: str = ""
    notes: str = ""
    mounts: tuple[Mount, ...] = ()
    ids: tuple[int, ...] = ()
    state: State = State()

    @property
    def status(self) -> Status:
        """Short for `state.status`."""
        return self.state.status


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What a room above the engine says when it creates a container for itself; see Container.

    `ids` are those of a user namespace that the room has chosen itself.
    """

    owner: str
    notes: str = ""
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The answer of create."""

    id: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitResult:
    """How a container ended; `error` is not empty when it could not be started."""

    exit_code: int
    error: str = ""
