"""The words of pods: what a sandbox is and what a container in it was asked to be.

The Kubernetes runtime interface is translated into these at the edge. Everything is frozen; times
are nanoseconds since the epoch, sizes bytes. A *sandbox* is the place that containers of a pod
share: namespaces, addresses, files. A *request* is what a container was created with; it is kept
with the engine's container as its notes.

    run                 stop, or its process ended        remove
   -----> READY ------------------------------> NOTREADY -------> gone
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec resolves it at run time
from dataclasses import field
from enum import StrEnum

from sampan.records import dataclass

OWNER = "pods"
"""The owner of the engine's containers that were asked for."""

KEEPER = "pod-keeper"
"""The owner of the engine's containers that only keep a pid namespace."""


class Mode(StrEnum):
    """Whose namespace: the pod's, one of its own, the node's, or that of another container."""

    POD = "pod"
    CONTAINER = "container"
    NODE = "node"
    TARGET = "target"


class Phase(StrEnum):
    """Where a sandbox is in its life; one that is still being made at a start was cut off."""

    MAKING = "making"
    READY = "ready"
    STOPPED = "stopped"


class ProfileKind(StrEnum):
    """Which profile of a security module."""

    DEFAULT = "default"
    UNCONFINED = "unconfined"
    LOCALHOST = "localhost"


class GroupsPolicy(StrEnum):
    """Whether the image's groups of a user count."""

    MERGE = "merge"
    STRICT = "strict"


class Propagation(StrEnum):
    """How mounts travel between host and container."""

    PRIVATE = "private"
    HOST_TO_CONTAINER = "rslave"
    BIDIRECTIONAL = "rshared"


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile of a security module; `reference` is a path or a name."""

    kind: ProfileKind
    reference: str = ""


@dataclass(frozen=True, slots=True)
class IdMapping:
    """`length` ids from `host` on are those from `container` on inside."""

    host: int
    container: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """Whose namespaces are used. `target` is a container's id. No `uids`: no user namespace."""

    network: Mode = Mode.POD
    pid: Mode = Mode.POD
    ipc: Mode = Mode.POD
    target: str = ""
    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Limits, as the interface has them; 0 and "" mean: not set."""

    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    memory: int = 0
    memory_swap: int = 0
    oom_score_adj: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepages: Mapping[str, int] = field(default_factory=dict)
    unified: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SELinux:
    """A label of SELinux, in its parts."""

    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Who a process is and what it may. None: not said."""

    user: int | None = None
    group: int | None = None
    username: str = ""
    groups: tuple[int, ...] = ()
    groups_policy: GroupsPolicy = GroupsPolicy.MERGE
    privileged: bool = False
    read_only: bool = False
    no_new_privileges: bool = False
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    namespaces: Namespaces = Namespaces()
    seccomp: Profile | None = None
    apparmor: Profile | None = None
    selinux: SELinux | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """What /etc/resolv.conf says."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the host that leads to one of the pod; `protocol` is tcp, udp or sctp."""

    protocol: str
    container: int
    host: int
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """What a sandbox was asked to be; name, uid, namespace and attempt name it for the kubelet."""

    name: str
    uid: str = ""
    namespace: str = ""
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""
    dns: Dns | None = None
    ports: tuple[Port, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    security: Security = Security()
    resources: Resources = Resources()
    overhead: Resources = Resources()

    @property
    def namespaces(self) -> Namespaces:
        """Short for the security's."""
        return self.security.namespaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """One sandbox as it is now.

    `keeper` is the engine's container that owns its pid namespace, `network` names the network that
    it is to be released from; both are "" where there is none. `boot` is the boot in which it was
    set up.
    """

    id: str
    created_at: int
    config: SandboxConfig
    handler: str = ""
    phase: Phase = Phase.MAKING
    keeper: str = ""
    network: str = ""
    addresses: tuple[str, ...] = ()
    boot: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """Which image, in the words of the request."""

    image: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    user_specified: str = ""
    handler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A path of the host, or an image, that is seen at `target`."""

    target: str
    source: str = ""
    read_only: bool = False
    relabel: bool = False
    propagation: Propagation = Propagation.PRIVATE
    recursive_read_only: bool = False
    image: ImageSpec | None = None
    image_path: str = ""
    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host; `permissions` of the letters r, w, m."""

    source: str
    target: str
    permissions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a container was asked to be."""

    name: str
    image: ImageSpec
    attempt: int = 0
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    cwd: str = ""
    env: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cdi: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources = Resources()
    security: Security = Security()
    stop_signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who a container's first process is."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What is kept with the engine's container: its sandbox and its request.

    `image_name` and `image_ref` are what the status shows of the image. `checkpoint` is the name of
    that which its start begins from, "" for a command of its own.
    """

    sandbox: str
    request: Request
    image_name: str = ""
    image_ref: str = ""
    checkpoint: str = ""
