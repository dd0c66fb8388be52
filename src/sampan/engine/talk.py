"""What passes between the engine and whoever asks it: streams, execs, logs, events, figures.

The words of containers themselves are in `model`, which has these as well, so that there is one
place to import from.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec resolves it at run time
from dataclasses import field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from sampan.records import dataclass


class Framing(StrEnum):
    """How stdout and stderr share the client's connection."""

    MULTIPLEXED = "multiplexed"
    RAW = "raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A client's stream socket to be joined to a container's streams.

    The engine owns `fd` from the call on, also when the call fails. `logs` replays what the log
    holds first. `stream` False means that only the replay is wanted. `detach_keys` None means
    ctrl-p ctrl-q where stdin is attached to a terminal. `settle`: output waits until the client has
    taken what was written to it before.
    """

    fd: int
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    logs: bool = False
    stream: bool = True
    framing: Framing = Framing.MULTIPLEXED
    detach_keys: bytes | None = None
    settle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecConfig:
    """A further process in a running container; "" and () mean: as the container's first one."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    tty: bool = False
    privileged: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: bytes | None = None
    console_size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """An exec session; kept while its container runs. `exit_code` is None until it has ended."""

    id: str
    container_id: str
    config: ExecConfig
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, numbered in order; `type` is container, image, network or volume.

    `owner` is the container's: what happens to an owner's containers is told to that owner alone.
    """

    id: int
    time_ns: int
    type: str
    action: str
    actor_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which part of a log is wanted. `tail` None is everything; times are inclusive."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since: int = 0
    until: int = 0
    tail: int | None = None
    timestamps: bool = False
    details: bool = False


class LogRecord(NamedTuple):
    """One record of a log: a line with its newline, or a part of a line over 16 KiB."""

    stream: str
    time_ns: int
    data: bytes
    attributes: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStats:
    """Counters of one interface."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlkioEntry:
    """One counter of one device; `op` is read or write."""

    major: int
    minor: int
    op: str
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """One reading of a container's counters; everything 0 when it does not run."""

    id: str
    name: str
    time_ns: int
    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_percpu_ns: tuple[int, ...] = ()
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_ns: int = 0
    host_cpu_ns: int = 0
    online_cpus: int = 0
    memory_usage: int = 0
    memory_max_usage: int = 0
    memory_limit: int = 0
    memory_failcnt: int = 0
    memory_stats: Mapping[str, int] = field(default_factory=dict)
    pids_current: int = 0
    pids_limit: int = 0
    oom_kills: int = 0
    blkio_bytes: tuple[BlkioEntry, ...] = ()
    blkio_ops: tuple[BlkioEntry, ...] = ()
    networks: Mapping[str, NetworkStats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """The processes of a container, as `ps` prints them."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune removed."""

    ids: tuple[str, ...] = ()
    space_reclaimed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """The host and the engine in numbers. `runtimes` are paths by name."""

    id: str
    name: str
    containers: int
    containers_running: int
    containers_paused: int
    containers_stopped: int
    images: int
    driver: str
    root: str
    state: str
    kernel_version: str
    operating_system: str
    architecture: str
    cpus: int
    memory_total: int
    cgroup_version: str
    default_no_new_privileges: bool
    log_driver: str
    runtimes: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
