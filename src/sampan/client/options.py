"""The library's words for a container, and the create body that they make. Pure.

The words are those of the command line, as Python has them: sizes as `64m` or in bytes, processors
as a number, ports as `8080:80`, volumes as `source:target[:ro]`, environment as a mapping or as
`NAME=value`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from sampan.client.networks import ConnectOptions, endpoint
from sampan.client.ports import expose, publish
from sampan.client.sizes import parse_bytes
from sampan.errors import InvalidArgument


class ContainerOptions(TypedDict, total=False):
    """What can be said of a container beside its image and its command."""

    annotations: Mapping[str, str]
    blkio_weight: int
    blkio_weight_device: Mapping[str, int]
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    cgroup_parent: str
    cgroupns: str
    cpu_period: int
    cpu_quota: int
    cpu_rt_period: int
    cpu_rt_runtime: int
    cpu_shares: int
    cpus: float
    cpuset_cpus: str
    cpuset_mems: str
    depends_on: Sequence[str]
    device_cgroup_rules: Sequence[str]
    device_read_bps: Mapping[str, int | str]
    device_read_iops: Mapping[str, int]
    device_write_bps: Mapping[str, int | str]
    device_write_iops: Mapping[str, int]
    devices: Sequence[str]
    dns: Sequence[str]
    dns_options: Sequence[str]
    dns_search: Sequence[str]
    domainname: str
    egress: Sequence[str]
    entrypoint: Sequence[str] | str
    env: Mapping[str, str] | Sequence[str]
    expose: Sequence[str]
    extra_hosts: Mapping[str, str] | Sequence[str]
    gpus: int | str | Sequence[str]
    group_add: Sequence[str]
    healthcheck: Mapping[str, Any]
    hostname: str
    init: bool
    ip: str
    ip6: str
    ipc: str
    labels: Mapping[str, str]
    links: Sequence[str]
    link_local_ips: Sequence[str]
    log_driver: str
    log_options: Mapping[str, str]
    mac_address: str
    memory: int | str
    kernel_memory: int | str
    memory_reservation: int | str
    memory_swap: int | str
    memory_swappiness: int
    mounts: Sequence[Mapping[str, Any]]
    name: str
    network: str | Sequence[str] | Mapping[str, ConnectOptions]
    network_aliases: Sequence[str]
    on_unhealthy: str
    oom_kill_disable: bool
    oom_score_adj: int
    pid: str
    pids_limit: int
    platform: str
    ports: Sequence[str]
    privileged: bool
    publish_all: bool
    pull: str
    read_only: bool
    remove: bool
    restart: str
    runtime: str
    security_opt: Sequence[str]
    shm_size: int | str
    stop_signal: str
    stop_timeout: int
    storage_options: Mapping[str, str]
    sysctls: Mapping[str, str]
    tmpfs: Mapping[str, str] | Sequence[str]
    tty: bool
    ulimits: Mapping[str, int | tuple[int, int]]
    user: str
    userns: str
    uts: str
    volume_driver: str
    volumes: Sequence[str]
    volumes_from: Sequence[str]
    workdir: str


_TEXT = {
    "domainname": "Domainname",
    "hostname": "Hostname",
    "stop_signal": "StopSignal",
    "stop_timeout": "StopTimeout",
    "user": "User",
    "workdir": "WorkingDir",
}
_HOST = {
    "blkio_weight": "BlkioWeight",
    "cgroup_parent": "CgroupParent",
    "cgroupns": "CgroupnsMode",
    "cpu_period": "CpuPeriod",
    "cpu_quota": "CpuQuota",
    "cpu_rt_period": "CpuRealtimePeriod",
    "cpu_rt_runtime": "CpuRealtimeRuntime",
    "cpu_shares": "CpuShares",
    "cpuset_cpus": "CpusetCpus",
    "cpuset_mems": "CpusetMems",
    "init": "Init",
    "ipc": "IpcMode",
    "memory_swappiness": "MemorySwappiness",
    "on_unhealthy": "OnUnhealthy",
    "oom_kill_disable": "OomKillDisable",
    "oom_score_adj": "OomScoreAdj",
    "pid": "PidMode",
    "pids_limit": "PidsLimit",
    "privileged": "Privileged",
    "publish_all": "PublishAllPorts",
    "read_only": "ReadonlyRootfs",
    "runtime": "Runtime",
    "userns": "UsernsMode",
    "uts": "UTSMode",
    "volume_driver": "VolumeDriver",
}
_HOST_PAIRS = {
    "annotations": "Annotations",
    "storage_options": "StorageOpt",
    "sysctls": "Sysctls",
}
_BLOCK = {
    "blkio_weight_device": ("BlkioWeightDevice", "Weight"),
    "device_read_bps": ("BlkioDeviceReadBps", "Rate"),
    "device_read_iops": ("BlkioDeviceReadIOps", "Rate"),
    "device_write_bps": ("BlkioDeviceWriteBps", "Rate"),
    "device_write_iops": ("BlkioDeviceWriteIOps", "Rate"),
}
_HOST_LISTS = {
    "cap_add": "CapAdd",
    "cap_drop": "CapDrop",
    "depends_on": "DependsOn",
    "device_cgroup_rules": "DeviceCgroupRules",
    "dns": "Dns",
    "dns_options": "DnsOptions",
    "dns_search": "DnsSearch",
    "group_add": "GroupAdd",
    "links": "Links",
    "mounts": "Mounts",
    "security_opt": "SecurityOpt",
    "volumes": "Binds",
    "volumes_from": "VolumesFrom",
}
_HEALTH_TIMES = {
    "interval": "Interval",
    "start_interval": "StartInterval",
    "start_period": "StartPeriod",
    "timeout": "Timeout",
}
_SIZES = {
    "memory": "Memory",
    "memory_reservation": "MemoryReservation",
    "memory_swap": "MemorySwap",
    "shm_size": "ShmSize",
}


def container_body(
    image: str | None,
    rootfs: str | os.PathLike[str] | None,
    command: Sequence[str] | str,
    options: ContainerOptions,
) -> dict[str, Any]:
    """The body of POST /containers/create. A command given as text is one word.

    Raises:
        InvalidArgument: neither or both of image and rootfs are given, or a value is wrong.
    """
    if (image is None) == (rootfs is None):
        raise InvalidArgument("create container: give either an image or a rootfs")
    unknown = sorted(set(options) - set(ContainerOptions.__annotations__))
    if unknown:
        raise InvalidArgument(f"create container: unknown option {unknown[0]!r}")
    body: dict[str, Any] = {"Image": image} if image else {"Rootfs": _absolute(rootfs)}
    if command:
        body["Cmd"] = _words(command)
    _take(body, options, _TEXT)
    if options.get("entrypoint") is not None:
        body["Entrypoint"] = _words(options["entrypoint"])
    if options.get("env"):
        body["Env"] = environment(options["env"])
    if options.get("labels"):
        body["Labels"] = dict(options["labels"])
    if options.get("healthcheck") is not None:
        body["Healthcheck"] = healthcheck(options["healthcheck"])
    if options.get("tty"):
        body["Tty"] = True
    body["HostConfig"] = _host(options)
    _join(options, body)
    return body


def port_bindings(ports: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Port specifications as the API has them. Raises InvalidArgument."""
    try:
        return publish(list(ports))[1]
    except ValueError as error:
        raise InvalidArgument(f"publish ports: {error}") from error


def _join(options: ContainerOptions, body: dict[str, Any]) -> None:
    """Ports and networks; the first network is the one of `ip` and the aliases."""
    host = body["HostConfig"]
    try:
        exposed, bindings = publish(list(options.get("ports") or ()))
        exposed += expose(list(options.get("expose") or ()))
    except ValueError as error:
        raise InvalidArgument(f"create container: {error}") from error
    if exposed:
        body["ExposedPorts"] = {port: {} for port in exposed}
    if bindings:
        host["PortBindings"] = bindings
    if options.get("egress") is not None:
        host["Egress"] = list(options["egress"])
    network = options.get("network") or "default"
    if isinstance(network, Mapping):
        wishes = {name: endpoint(wish) for name, wish in network.items()}
    else:
        names = [network] if isinstance(network, str) else network
        wishes = {name: {} for name in names}
    host["NetworkMode"] = first = next(iter(wishes))
    own: ConnectOptions = {
        "aliases": options.get("network_aliases") or (),
        "ip": options.get("ip") or "",
        "ip6": options.get("ip6") or "",
        "link_local_ips": options.get("link_local_ips") or (),
        "mac_address": options.get("mac_address") or "",
    }
    wishes[first] |= endpoint(own)
    if any(wishes.values()) or len(wishes) > 1:
        body["NetworkingConfig"] = {"EndpointsConfig": wishes}


def _absolute(rootfs: str | os.PathLike[str] | None) -> str:
    path = os.fspath(rootfs or "")
    directory, overlay = (path[:-2], ":O") if path.endswith(":O") else (path, "")
    return os.path.abspath(directory) + overlay


def _words(command: Sequence[str] | str) -> list[str]:
    return [command] if isinstance(command, str) else [str(word) for word in command]


def _take(body: dict[str, Any], options: ContainerOptions, names: dict[str, str]) -> None:
    given: Mapping[str, Any] = options
    for name, field in names.items():
        if given.get(name) is not None:
            body[field] = given[name]


def _host(options: ContainerOptions) -> dict[str, Any]:
    given: Mapping[str, Any] = options
    host: dict[str, Any] = {}
    _take(host, options, _HOST)
    for name, field in _HOST_LISTS.items():
        if given.get(name):
            host[field] = list(given[name])
    for name, field in _SIZES.items():
        if given.get(name) is not None:
            host[field] = size(given[name])
    if options.get("cpus") is not None:
        host["NanoCpus"] = round(options["cpus"] * 10**9)
    if options.get("remove"):
        host["AutoRemove"] = True
    if options.get("restart"):
        host["RestartPolicy"] = restart_policy(options["restart"])
    if options.get("tmpfs"):
        tmpfs = options["tmpfs"]
        host["Tmpfs"] = dict(tmpfs) if isinstance(tmpfs, Mapping) else dict.fromkeys(tmpfs, "")
    _kernel(options, host)
    ulimits = options.get("ulimits") or {}
    if ulimits:
        host["Ulimits"] = [_ulimit(name, limit) for name, limit in ulimits.items()]
    _log(options, host)
    return host


def _kernel(options: ContainerOptions, host: dict[str, Any]) -> None:
    extra = options.get("extra_hosts") or ()
    if extra:
        pairs = extra.items() if isinstance(extra, Mapping) else None
        host["ExtraHosts"] = [f"{name}:{where}" for name, where in pairs] if pairs else list(extra)
    given: Mapping[str, Any] = options
    for name, field in _HOST_PAIRS.items():
        if given.get(name):
            host[field] = dict(given[name])
    for name, (field, key) in _BLOCK.items():
        if given.get(name):
            pairs = given[name].items()
            host[field] = [{"Path": path, key: size(value)} for path, value in pairs]
    _devices(options, host)


def _devices(options: ContainerOptions, host: dict[str, Any]) -> None:
    """Paths, names of vendors' devices (`vendor.com/class=name`), and processors of graphics."""
    given = options.get("devices") or ()
    requests: list[dict[str, Any]] = []
    if paths := [text for text in given if "=" not in text]:
        host["Devices"] = [_device(text) for text in paths]
    if names := [text for text in given if "=" in text]:
        requests.append({"Driver": "cdi", "DeviceIDs": names})
    if (gpus := options.get("gpus")) is not None:
        requests.append({"Driver": "", "Capabilities": [["gpu"]], **_gpus(gpus)})
    if requests:
        host["DeviceRequests"] = requests


def _gpus(wanted: int | str | Sequence[str]) -> dict[str, Any]:
    """`"all"`, a number of them, or which ones."""
    if isinstance(wanted, int) or wanted == "all":
        return {"Count": -1 if wanted == "all" else wanted}
    return {"DeviceIDs": [wanted] if isinstance(wanted, str) else list(wanted)}


def _device(text: str) -> dict[str, str]:
    """`/dev/a`, `/dev/a:/dev/b`, `/dev/a:/dev/b:r`."""
    path, _, rest = text.partition(":")
    inside, _, permissions = rest.partition(":")
    return {
        "PathOnHost": path,
        "PathInContainer": inside or path,
        "CgroupPermissions": permissions or "rwm",
    }


def _log(options: ContainerOptions, host: dict[str, Any]) -> None:
    if options.get("log_driver") or options.get("log_options"):
        config = dict(options.get("log_options") or {})
        host["LogConfig"] = {"Type": options.get("log_driver") or "", "Config": config}


def _ulimit(name: str, limit: int | tuple[int, int]) -> dict[str, Any]:
    soft, hard = limit if isinstance(limit, tuple) else (limit, limit)
    return {"Name": name, "Soft": soft, "Hard": hard}


def size(value: int | str) -> int:
    """Bytes of `64m` or of a number.

    Raises:
        InvalidArgument: it is not a size.
    """
    if isinstance(value, int):
        return value
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def restart_policy(text: str) -> dict[str, Any]:
    """`on-failure:3` as the API has it.

    Raises:
        InvalidArgument: the count is not a number.
    """
    name, _, count = text.partition(":")
    if count and not count.isdecimal():
        raise InvalidArgument(f"restart policy {text!r}: the count is not a number")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def environment(values: Mapping[str, str] | Sequence[str]) -> list[str]:
    """Environment as the API has it."""
    if isinstance(values, Mapping):
        return [f"{name}={value}" for name, value in values.items()]
    return list(values)


def healthcheck(values: Mapping[str, Any]) -> dict[str, Any]:
    """A health check as the API has it: `test` is a command as text or words, or None for no check;
    `interval`, `timeout`, `start_period` and `start_interval` are seconds.

    Raises:
        InvalidArgument: a key is unknown.
    """
    body: dict[str, Any] = {}
    for name, value in values.items():
        if name == "test":
            words = ["CMD-SHELL", value] if isinstance(value, str) else ["CMD", *(value or ())]
            body["Test"] = ["NONE"] if value is None else words
        elif name == "retries":
            body["Retries"] = int(value)
        elif name in _HEALTH_TIMES:
            body[_HEALTH_TIMES[name]] = round(value * 10**9)
        else:
            raise InvalidArgument(f"create container: unknown key {name!r} of the health check")
    return body


def exec_body(
    command: Sequence[str] | str,
    *,
    stdin: bool,
    env: Mapping[str, str] | Sequence[str] = (),
    user: str = "",
    workdir: str = "",
    privileged: bool = False,
    tty: bool = False,
) -> dict[str, Any]:
    """The body of POST /containers/{ref}/exec."""
    return {
        "AttachStderr": True,
        "AttachStdin": stdin,
        "AttachStdout": True,
        "Cmd": _words(command),
        "Env": environment(env),
        "Privileged": privileged,
        "Tty": tty,
        "User": user,
        "WorkingDir": workdir,
    }
