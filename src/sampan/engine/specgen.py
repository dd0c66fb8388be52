"""Pure: a container of ours becomes an OCI configuration.

`generate(container, facts)` reads nothing and decides nothing that was not decided at create: it
only says it in the runtime specification's words. The seccomp program travels beside it, compiled.
Constant parts are shared between calls and never changed; callers treat the result as read-only.

Docker's semantics throughout, with two differences, both stricter: the defaults come with
no_new_privs unless the configuration or a security option says otherwise, and image metadata adds
nothing but command, environment, user, directory and stop signal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.engine import cdi, devices, mounts, ranges, security
from sampan.engine.initprogram import TARGET as INIT
from sampan.engine.model import BlockLimit
from sampan.version import OCI_RUNTIME_SPEC_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.engine.model import Container, ExecConfig, HostConfig

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CPU_PERIOD = 100_000  # microseconds, the kernel's default

_PROC = {
    "destination": "/proc",
    "type": "proc",
    "source": "proc",
    "options": ["nosuid", "noexec", "nodev"],
}
_DEV = [
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
]
_MQUEUE = {
    "destination": "/dev/mqueue",
    "type": "mqueue",
    "source": "mqueue",
    "options": ["nosuid", "noexec", "nodev"],
}
_BIND = ["rbind", "rprivate"]
_BLOCK = {
    BlockLimit.WEIGHT: ("weightDevice", "weight"),
    BlockLimit.READ_BPS: ("throttleReadBpsDevice", "rate"),
    BlockLimit.WRITE_BPS: ("throttleWriteBpsDevice", "rate"),
    BlockLimit.READ_IOPS: ("throttleReadIOPSDevice", "rate"),
    BlockLimit.WRITE_IOPS: ("throttleWriteIOPSDevice", "rate"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the host and the configuration add. Paths are "" where nothing is to be mounted."""

    cgroups_path: str
    no_new_privileges: bool = True
    shm_size: int = 64 << 20
    hosts: str = ""
    hostname_file: str = ""
    resolv_conf: str = ""
    netns: str = ""
    has_host_sys: bool = False
    host_devices: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    init_program: str = ""
    edits: cdi.Edits = field(default_factory=cdi.Edits)
    joined: Mapping[str, str] = field(default_factory=dict)
    """Kind to path of the namespaces of other containers; `shm` is where one's /dev/shm is."""

    variables: tuple[str, ...] = ()
    """What the environment tells of linked containers; the container's own wins."""


def generate(container: Container, facts: Facts) -> dict[str, Any]:
    """The configuration of one start of `container`."""
    host = container.host
    spec: dict[str, Any] = {
        "ociVersion": OCI_RUNTIME_SPEC_VERSION,
        "root": {"path": "rootfs", "readonly": host.read_only},
        "process": _process(container, facts),
        "mounts": _mounts(container, facts),
        "linux": _linux(container, facts),
    }
    if host.annotations:
        spec["annotations"] = dict(host.annotations)
    if host.cdi_devices:
        cdi.apply(spec, facts.edits)
    if host.uts_mode in ("", "private"):
        spec["hostname"] = container.config.hostname
        if container.config.domainname:
            spec["domainname"] = container.config.domainname
    return spec


def environment(container: Container, more: tuple[str, ...], *, tty: bool) -> list[str]:
    """Docker's order: PATH, HOSTNAME, TERM, `more`, then the container's own, which win."""
    config = container.config
    first = [DEFAULT_PATH, f"HOSTNAME={config.hostname}"]
    if tty:
        first.append("TERM=xterm")
    first += more
    return merge_environment(first, config.env)


def merge_environment(base: list[str], more: tuple[str, ...]) -> list[str]:
    """`base` with the variables of `more` replaced or added; `NAME` without = removes one."""
    values = {entry.partition("=")[0]: entry for entry in base}
    for entry in more:
        name, equals, _ = entry.partition("=")
        if equals:
            values[name] = entry
        else:
            values.pop(name, None)
    return list(values.values())


def exec_process(container: Container, config: ExecConfig, facts: Facts) -> dict[str, Any]:
    """The process of an exec: the container's own sandbox, with what the request changes.

    The capabilities are the container's, never more, unless the exec is privileged.
    """
    host = container.host
    base = environment(container, facts.variables, tty=config.tty)
    names = security.ALL if config.privileged else security.capabilities(host)
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": _user(config.user or container.config.user, host),
        "args": list(config.command),
        "env": merge_environment(base, config.env),
        "cwd": config.cwd or container.config.cwd or "/",
        "capabilities": _capability_sets(names),
        "rlimits": _rlimits(host),
        "noNewPrivileges": not config.privileged
        and security.no_new_privileges(host, facts.no_new_privileges),
        "oomScoreAdj": host.oom_score_adj,
    }
    if config.console_size:
        process["consoleSize"] = _console(config.console_size)
    return process | _labels(host)


def _process(container: Container, facts: Facts) -> dict[str, Any]:
    config, host = container.config, container.host
    process = {
        "terminal": config.tty,
        "user": _user(config.user, host),
        "args": [*([INIT, "--"] if host.init else []), container.path, *container.args],
        "env": environment(container, facts.variables, tty=container.config.tty),
        "cwd": config.cwd or "/",
        "capabilities": _capability_sets(security.capabilities(host)),
        "rlimits": _rlimits(host),
        "noNewPrivileges": security.no_new_privileges(host, facts.no_new_privileges),
        "oomScoreAdj": host.oom_score_adj,
    }
    return process | _labels(host) if host.security_opt else process


def _labels(host: HostConfig) -> dict[str, str]:
    labels = {
        "apparmorProfile": security.apparmor_profile(host),
        "selinuxLabel": security.selinux_labels(host)[0],
    }
    return {name: label for name, label in labels.items() if label}


def _user(user: str, host: HostConfig) -> dict[str, Any]:
    """Names are resolved by the runtime, in the container's own files, through its root."""
    content: dict[str, Any] = {"uid": 0, "gid": 0, "username": user}
    if host.group_add:
        content["groups"] = list(host.group_add)
    if host.groups_policy:
        content["policy"] = host.groups_policy
    return content


def _capability_sets(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Inheritable and ambient stay empty."""
    listed = list(names)
    return {"bounding": listed, "effective": listed, "permitted": listed}


def _rlimits(host: HostConfig) -> list[dict[str, Any]]:
    return [
        {
            "type": f"RLIMIT_{limit.name.upper()}",
            "soft": limit.soft if limit.soft >= 0 else 2**64 - 1,
            "hard": limit.hard if limit.hard >= 0 else 2**64 - 1,
        }
        for limit in host.ulimits
    ]


def _console(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _mounts(container: Container, facts: Facts) -> list[dict[str, Any]]:
    host = container.host
    access = "rw" if host.privileged else "ro"
    flags = ["nosuid", "noexec", "nodev", access]
    defaults = [
        _PROC,
        *_DEV,
        _sys(container, flags, facts),
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": flags},
        _MQUEUE,
        *([] if host.ipc_mode == "none" else [_shm(host, facts)]),
    ]
    for destination, source in (
        ("/etc/resolv.conf", facts.resolv_conf),
        ("/etc/hostname", facts.hostname_file),
        ("/etc/hosts", facts.hosts),
        (INIT, facts.init_program),
    ):
        if source:
            options = [*_BIND, "ro"] if destination == INIT else _BIND
            entry = {"destination": destination, "type": "bind", "source": source}
            shown = ["idmap"] if container.ids else []
            defaults.append({**entry, "options": [*options, *shown]})
    own = [mounts.tmpfs_words(target, options) for target, options in host.tmpfs.items()]
    own += facts.mounts
    # A user's mount replaces a default one at the same place; parents come before children.
    taken = {mount["destination"] for mount in own}
    kept = [mount for mount in defaults if mount["destination"] not in taken]
    if "/etc" in taken:  # else it would hide what is ours in it
        ours = [mount for mount in kept if mount["destination"].startswith("/etc/")]
        kept = [mount for mount in kept if mount not in ours]
        own += ours
    own.sort(key=lambda mount: mount["destination"].count("/"))
    return kept + own


def _sys(container: Container, flags: list[str], facts: Facts) -> dict[str, Any]:
    """A new sysfs shows a network namespace, and needs rights over it; else the host's is shown."""
    if facts.has_host_sys or (container.ids and container.host.network_mode != "none"):
        options = ["rbind", "rprivate", *flags]
        return {"destination": "/sys", "type": "bind", "source": "/sys", "options": options}
    return {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": flags}


def _shm(host: HostConfig, facts: Facts) -> dict[str, Any]:
    if host.ipc_mode == "host":
        return {"destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": _BIND}
    if "shm" in facts.joined:
        shared = {"destination": "/dev/shm", "type": "bind", "source": "/dev/shm"}
        return {**shared, "inside": facts.joined["shm"], "options": ["bind", "rprivate"]}
    size = host.shm_size or facts.shm_size
    return {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", f"size={size}"],
    }


def _linux(container: Container, facts: Facts) -> dict[str, Any]:
    host = container.host
    nodes = [*facts.host_devices, *(devices.node(entry) for entry in host.devices)]
    linux: dict[str, Any] = {
        "namespaces": _namespaces(container, facts),
        "cgroupsPath": facts.cgroups_path,
        "resources": _resources(host),
        "maskedPaths": security.masked_paths(host),
        "readonlyPaths": security.readonly_paths(host),
    }
    if host.sysctls:
        linux["sysctl"] = dict(host.sysctls)
    if nodes:
        linux["devices"] = nodes
    if host.security_opt and (label := security.selinux_labels(host)[1]):
        linux["mountLabel"] = label
    if maps := ranges.mappings(container):
        linux["uidMappings"] = linux["gidMappings"] = maps
    return linux


def _namespaces(container: Container, facts: Facts) -> list[dict[str, str]]:
    host = container.host
    shared = {
        "network": host.network_mode == "host" or bool(facts.netns),
        "pid": host.pid_mode == "host",
        "ipc": host.ipc_mode == "host",
        "uts": host.uts_mode == "host",
        "cgroup": host.cgroupns_mode == "host",
    }
    spaces = [{"type": kind} for kind, is_shared in shared.items() if not is_shared]
    for space in spaces:
        if space["type"] in facts.joined:
            space["path"] = facts.joined[space["type"]]
    if facts.netns:
        spaces.append({"type": "network", "path": facts.netns})
    own_users = [{"type": "user"}] if container.ids else []
    return [{"type": "mount"}, *own_users, *spaces]


def _resources(host: HostConfig) -> dict[str, Any]:
    resources: dict[str, Any] = {"devices": security.device_rules(host)}
    if memory := _memory(host):
        resources["memory"] = memory
    if cpu := _cpu(host):
        resources["cpu"] = cpu
    if host.pids_limit and host.pids_limit > 0:
        resources["pids"] = {"limit": host.pids_limit}
    if block := _block_io(host):
        resources["blockIO"] = block
    return resources


def _block_io(host: HostConfig) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if host.blkio_weight:
        block["weight"] = host.blkio_weight
    for entry in host.block_devices:
        name, word = _BLOCK[entry.limit]
        numbers = devices.block_number(entry.path)
        block.setdefault(name, []).append({**numbers, word: entry.value})
    return block


def _memory(host: HostConfig) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if host.memory:
        memory["limit"] = host.memory
    if host.memory_swap:
        memory["swap"] = host.memory_swap
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(host: HostConfig) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if host.cpu_shares:
        cpu["shares"] = host.cpu_shares
    if host.nano_cpus:
        cpu["period"] = CPU_PERIOD
        cpu["quota"] = host.nano_cpus * CPU_PERIOD // 10**9
    if host.cpu_period:
        cpu["period"] = host.cpu_period
    if host.cpu_quota:
        cpu["quota"] = host.cpu_quota
    if host.cpu_rt_period:
        cpu["realtimePeriod"] = host.cpu_rt_period
    if host.cpu_rt_runtime:
        cpu["realtimeRuntime"] = host.cpu_rt_runtime
    if host.cpuset_cpus:
        cpu["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        cpu["mems"] = host.cpuset_mems
    return cpu


def resources_of(host: HostConfig) -> dict[str, Any]:
    """The limits alone, for an update of a running container; devices stay as they are."""
    resources = _resources(host)
    del resources["devices"]
    return resources
