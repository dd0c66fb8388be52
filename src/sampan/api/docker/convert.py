"""Between Docker's bodies and the engine's model: pure functions, no engine, no I/O.

Go's zero values mean "not given", and null is a zero value; the model has None or "" there. What
the engine cannot do is refused here with the option's name, never ignored in silence: a container
that runs without a limit that was asked for is worse than an error. Options that change nothing
for us (`VolumeDriver`, `Isolation`, Windows' own) are ignored as dockerd ignores them on Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from sampan.api.docker import ages
from sampan.engine import model
from sampan.errors import InvalidArgument, NotImplementedHere
from sampan.wire import docker as wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NETWORK_DEFAULT = "none"
"""The network of a container that asks for `default`; bridges come with their own room."""

_UNSUPPORTED = (
    ("links", "Links"),
    ("volumes_from", "VolumesFrom"),
    ("device_cgroup_rules", "DeviceCgroupRules"),
    ("device_requests", "DeviceRequests"),
    ("blkio_weight_device", "BlkioWeightDevice"),
    ("blkio_device_read_bps", "BlkioDeviceReadBps"),
    ("blkio_device_write_bps", "BlkioDeviceWriteBps"),
    ("blkio_device_read_iops", "BlkioDeviceReadIOps"),
    ("blkio_device_write_iops", "BlkioDeviceWriteIOps"),
    ("cpu_realtime_period", "CpuRealtimePeriod"),
    ("cpu_realtime_runtime", "CpuRealtimeRuntime"),
    ("dns_options", "DnsOptions"),
    ("dns_search", "DnsSearch"),
    ("userns_mode", "UsernsMode"),
    ("cgroup_parent", "CgroupParent"),
)


# --- requests -> model ------------------------------------------------------------------------


def container_config(body: wire.ContainerCreate) -> model.ContainerConfig:
    """What is to run."""
    if body.healthcheck is not None and body.healthcheck.test not in (None, UNSET, ["NONE"], []):
        raise NotImplementedHere("create container: health checks are not supported yet")
    return model.ContainerConfig(
        image=body.image or None,
        rootfs=body.rootfs or None,
        entrypoint=_words(body.entrypoint),
        command=_words(body.cmd),
        env=tuple(body.env or ()),
        cwd=body.working_dir or "",
        user=body.user or "",
        labels=body.labels or {},
        hostname=body.hostname or "",
        domainname=body.domainname or "",
        tty=bool(body.tty),
        open_stdin=bool(body.open_stdin),
        stdin_once=bool(body.stdin_once),
        attach_stdin=bool(body.attach_stdin),
        attach_stdout=bool(body.attach_stdout),
        attach_stderr=bool(body.attach_stderr),
        exposed_ports=tuple(body.exposed_ports or ()),
        volumes=tuple(body.volumes or ()),
        stop_signal=body.stop_signal or "",
        stop_timeout=body.stop_timeout,
    )


def host_config(body: wire.HostConfig, network_disabled: bool = False) -> model.HostConfig:
    """What the host grants."""
    for attribute, name in _UNSUPPORTED:
        if getattr(body, attribute):
            raise NotImplementedHere(f"create container: {name} is not supported yet")
    if body.port_bindings or body.publish_all_ports:
        raise NotImplementedHere("create container: published ports are not supported yet")
    mounts, mounted_tmpfs = _mounts(_given(body.mounts) or ())
    return model.HostConfig(
        memory=body.memory or 0,
        memory_swap=body.memory_swap or 0,
        memory_reservation=body.memory_reservation or 0,
        memory_swappiness=None if body.memory_swappiness in (None, -1) else body.memory_swappiness,
        oom_kill_disable=bool(body.oom_kill_disable),
        oom_score_adj=body.oom_score_adj or 0,
        nano_cpus=body.nano_cpus or 0,
        cpu_shares=body.cpu_shares or 0,
        cpu_quota=body.cpu_quota or 0,
        cpu_period=body.cpu_period or 0,
        cpuset_cpus=body.cpuset_cpus or "",
        cpuset_mems=body.cpuset_mems or "",
        pids_limit=body.pids_limit or None,
        blkio_weight=body.blkio_weight or 0,
        network_mode="none" if network_disabled else _network(body.network_mode),
        pid_mode=body.pid_mode or "",
        ipc_mode=body.ipc_mode or "",
        uts_mode=body.uts_mode or "",
        cgroupns_mode=body.cgroupns_mode or "",
        binds=(*(body.binds or ()), *mounts),
        tmpfs={**(_given(body.tmpfs) or {}), **mounted_tmpfs},
        read_only=bool(body.readonly_rootfs),
        cap_add=tuple(body.cap_add or ()),
        cap_drop=tuple(body.cap_drop or ()),
        privileged=bool(body.privileged),
        security_opt=tuple(body.security_opt or ()),
        group_add=tuple(body.group_add or ()),
        devices=tuple(_device(device) for device in body.devices or ()),
        sysctls=_given(body.sysctls) or {},
        ulimits=tuple(
            model.Ulimit(name=u.name, soft=u.soft, hard=u.hard) for u in body.ulimits or ()
        ),
        shm_size=body.shm_size or 0,
        init=bool(_given(body.init)),
        extra_hosts=tuple(body.extra_hosts or ()),
        dns=tuple(body.dns or ()),
        masked_paths=None if body.masked_paths is None else tuple(body.masked_paths),
        readonly_paths=None if body.readonly_paths is None else tuple(body.readonly_paths),
        restart=restart_policy(body.restart_policy),
        auto_remove=bool(body.auto_remove),
        log=_log_config(body.log_config),
    )


def restart_policy(body: wire.RestartPolicy | None) -> model.RestartPolicy:
    """The restart policy; its name is checked here."""
    if body is None or not body.name:
        return model.RestartPolicy()
    try:
        name = model.RestartName(body.name)
    except ValueError:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{body.name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        ) from None
    retries = body.maximum_retry_count or 0
    if retries < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if retries and name is not model.RestartName.ON_FAILURE:
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    return model.RestartPolicy(name=name, max_retries=retries)


def exec_config(body: wire.ExecCreate) -> model.ExecConfig:
    """A further process in a container."""
    command = _words(body.cmd)
    if not command:
        raise InvalidArgument("no exec command specified")
    return model.ExecConfig(
        command=command,
        env=tuple(body.env or ()),
        cwd=body.working_dir or "",
        user=body.user or "",
        tty=bool(body.tty),
        privileged=bool(body.privileged),
        attach_stdin=bool(body.attach_stdin),
        attach_stdout=bool(body.attach_stdout),
        attach_stderr=bool(body.attach_stderr),
        detach_keys=detach_keys(body.detach_keys or ""),
        console_size=console_size(body.console_size),
    )


def console_size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width); None where the client does not know it."""
    return size if size is not None and size[0] > 0 and size[1] > 0 else None


def detach_keys(text: str) -> bytes | None:
    """`ctrl-p,ctrl-q` as the bytes that a terminal sends; None when nothing is said.

    Raises:
        InvalidArgument: a key is neither a character nor `ctrl-` with a letter or one of @[\\]^_.
    """
    if not text:
        return None
    return bytes(_key(key) for key in text.split(","))


def _key(key: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    letter = key[5:].lower() if key.lower().startswith("ctrl-") else ""
    if len(letter) == 1 and (letter in "@[\\]^_" or ("a" <= letter <= "z")):
        return ord(letter.upper()) - 64
    raise InvalidArgument(f"unknown detach key {key!r}")


def _given(value: Any) -> Any:
    return None if value is UNSET else value


def _words(value: wire.Arguments) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


def _network(mode: str | None) -> str:
    return NETWORK_DEFAULT if mode in (None, "", "default") else str(mode)


def _device(body: wire.DeviceMapping) -> model.Device:
    return model.Device(
        host_path=body.path_on_host,
        container_path=body.path_in_container or body.path_on_host,
        permissions=body.cgroup_permissions or "rwm",
    )


def _log_config(body: wire.LogConfig | None) -> model.LogConfig:
    if body is None:
        return model.LogConfig()
    try:
        driver = model.LogDriver(body.type or "json-file")
    except ValueError:
        raise InvalidArgument(f"logger: no log driver named '{body.type}' is registered") from None
    options = dict(body.config or {})
    max_size = _bytes(options.pop("max-size", ""), "max-size")
    max_file = options.pop("max-file", "0")
    if options:
        raise InvalidArgument(f"unknown log opt '{next(iter(options))}' for {driver} log driver")
    if not max_file.isdigit():
        raise InvalidArgument(f"invalid log opt max-file={max_file!r}")
    return model.LogConfig(driver=driver, max_size=max_size, max_file=int(max_file))


def _bytes(text: str, name: str) -> int:
    """`10m`, `64kb`, `1g`, `-1`: bytes by powers of 1024; 0 for nothing and for -1."""
    number = text.lower().removesuffix("b").removesuffix("i")
    unit = {"k": 10, "m": 20, "g": 30, "t": 40}.get(number[-1:], 0)
    number = number[:-1] if unit else number
    if text in ("", "-1"):
        return 0
    if not number.isdigit():
        raise InvalidArgument(f"invalid log opt {name}={text!r}")
    return int(number) << unit


def _mounts(mounts: Iterable[wire.MountRequest]) -> tuple[list[str], dict[str, str]]:
    """`--mount` entries as binds and tmpfs entries."""
    binds: list[str] = []
    tmpfs: dict[str, str] = {}
    for mount in mounts:
        if mount.type == "bind":
            binds.append(_bind(mount))
        elif mount.type == "tmpfs":
            tmpfs[mount.target] = _tmpfs(mount)
        else:
            raise NotImplementedHere(
                f"create container: mounts of type {mount.type} are not supported yet"
            )
    return binds, tmpfs


def _bind(mount: wire.MountRequest) -> str:
    if not mount.source or ":" in mount.source or ":" in mount.target:
        raise InvalidArgument(f'invalid mount config for type "bind": source {mount.source!r}')
    options = ["ro"] if mount.read_only else []
    if mount.bind_options is not None and mount.bind_options.propagation:
        options.append(mount.bind_options.propagation)
    suffix = ":" + ",".join(options) if options else ""
    return f"{mount.source}:{mount.target}{suffix}"


def _tmpfs(mount: wire.MountRequest) -> str:
    options = ["ro"] if mount.read_only else []
    if mount.tmpfs_options is not None:
        if mount.tmpfs_options.size_bytes:
            options.append(f"size={mount.tmpfs_options.size_bytes}")
        if mount.tmpfs_options.mode:
            options.append(f"mode={mount.tmpfs_options.mode:o}")
    return ",".join(options)


# --- model -> answers -------------------------------------------------------------------------


def inspect(container: model.Container) -> wire.ContainerInspect:
    """The whole of a container."""
    return wire.ContainerInspect(
        id=container.id,
        created=ages.rfc3339(container.created_at),
        path=container.path,
        args=list(container.args),
        state=state(container.state),
        image=str(container.image_id),
        log_path=container.log_path,
        name="/" + container.name,
        restart_count=container.state.restart_count,
        host_config=host_answer(container.host),
        mounts=mount_points(container.host),
        config=config_answer(container),
        network_settings=wire.NetworkSettings(
            ports=_no_ports(container.config.exposed_ports), networks=networks(container.host)
        ),
    )


def state(value: model.State) -> wire.State:
    """The state, as dockerd's flags have it: a restarting container counts as running."""
    status = value.status
    return wire.State(
        status=status.value,
        running=status.is_running or status is model.Status.RESTARTING,
        paused=status is model.Status.PAUSED,
        restarting=status is model.Status.RESTARTING,
        oom_killed=value.oom_killed,
        dead=status is model.Status.DEAD,
        pid=value.pid,
        exit_code=value.exit_code,
        error=value.error,
        started_at=ages.rfc3339(value.started_at),
        finished_at=ages.rfc3339(value.finished_at),
    )


def config_answer(container: model.Container) -> wire.ContainerConfig:
    """The `Config` of inspect, with the image's labels below the container's own."""
    config = container.config
    return wire.ContainerConfig(
        hostname=config.hostname,
        domainname=config.domainname,
        user=config.user,
        attach_stdin=config.attach_stdin,
        attach_stdout=config.attach_stdout,
        attach_stderr=config.attach_stderr,
        exposed_ports={p: {} for p in config.exposed_ports} if config.exposed_ports else UNSET,
        tty=config.tty,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        env=list(config.env) or None,
        cmd=None if config.command is None else list(config.command),
        image=image_name(container),
        volumes={path: {} for path in config.volumes} or None,
        working_dir=config.cwd,
        entrypoint=list(config.entrypoint) if config.entrypoint else None,
        labels=labels(container),
        stop_signal=config.stop_signal or UNSET,
        stop_timeout=UNSET if config.stop_timeout is None else config.stop_timeout,
    )


def labels(container: model.Container) -> dict[str, str]:
    """The labels that Docker shows: the image's, then the container's own."""
    return {**container.image_labels, **container.config.labels}


def image_name(container: model.Container) -> str:
    """What the container was made of, in the words of its maker."""
    return container.config.image or container.image_name or container.config.rootfs or ""


def host_answer(host: model.HostConfig) -> wire.HostConfig:
    """The `HostConfig` of inspect."""
    return wire.HostConfig(
        binds=list(host.binds) or None,
        log_config=_log_answer(host.log),
        network_mode=host.network_mode,
        restart_policy=wire.RestartPolicy(
            name=host.restart.name.value, maximum_retry_count=host.restart.max_retries
        ),
        auto_remove=host.auto_remove,
        cap_add=list(host.cap_add) or None,
        cap_drop=list(host.cap_drop) or None,
        cgroupns_mode=host.cgroupns_mode or "private",
        dns=list(host.dns),
        extra_hosts=list(host.extra_hosts) or None,
        group_add=list(host.group_add) or None,
        ipc_mode=host.ipc_mode or "private",
        oom_score_adj=host.oom_score_adj,
        pid_mode=host.pid_mode,
        privileged=host.privileged,
        readonly_rootfs=host.read_only,
        security_opt=list(host.security_opt) or None,
        tmpfs=dict(host.tmpfs) if host.tmpfs else UNSET,
        uts_mode=host.uts_mode,
        shm_size=host.shm_size,
        sysctls=dict(host.sysctls) if host.sysctls else UNSET,
        runtime="sampan-oci",
        cpu_shares=host.cpu_shares,
        memory=host.memory,
        nano_cpus=host.nano_cpus,
        blkio_weight=host.blkio_weight,
        cpu_period=host.cpu_period,
        cpu_quota=host.cpu_quota,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        devices=[
            wire.DeviceMapping(
                path_on_host=device.host_path,
                path_in_container=device.container_path,
                cgroup_permissions=device.permissions,
            )
            for device in host.devices
        ],
        memory_reservation=host.memory_reservation,
        memory_swap=host.memory_swap,
        memory_swappiness=host.memory_swappiness,
        oom_kill_disable=host.oom_kill_disable,
        pids_limit=host.pids_limit,
        ulimits=[wire.Ulimit(name=u.name, hard=u.hard, soft=u.soft) for u in host.ulimits],
        init=host.init or UNSET,
        masked_paths=None if host.masked_paths is None else list(host.masked_paths),
        readonly_paths=None if host.readonly_paths is None else list(host.readonly_paths),
    )


def _log_answer(log: model.LogConfig) -> wire.LogConfig:
    options = {}
    if log.max_size:
        options["max-size"] = str(log.max_size)
    if log.max_file:
        options["max-file"] = str(log.max_file)
    return wire.LogConfig(type=log.driver.value, config=options)


def _no_ports(ports: Iterable[str]) -> dict[str, list[wire.PortBinding] | None]:
    return dict.fromkeys(ports)


def networks(host: model.HostConfig) -> dict[str, wire.Endpoint]:
    """The networks of a container: the pseudo networks have an endpoint without addresses."""
    return {host.network_mode: wire.Endpoint()} if host.network_mode in ("none", "host") else {}


def mount_points(host: model.HostConfig) -> list[wire.MountPoint]:
    """The mounts that `inspect` and `ps` list: binds, not tmpfs."""
    points = []
    for bind in host.binds:
        source, _, rest = bind.partition(":")
        target, _, mode = rest.partition(":")
        words = mode.split(",") if mode else []
        propagation = [word for word in words if word.lstrip("r") in _PROPAGATION]
        points.append(
            wire.MountPoint(
                type="bind",
                source=source,
                destination=target,
                mode=mode,
                rw="ro" not in words,
                propagation=propagation[0] if propagation else "rprivate",
            )
        )
    return points


_PROPAGATION = ("private", "shared", "slave")


def summary(container: model.Container, now_ns: int) -> wire.ContainerSummary:
    """One line of `docker ps`."""
    return wire.ContainerSummary(
        id=container.id,
        names=["/" + container.name],
        image=image_name(container),
        image_id=str(container.image_id),
        command=command_line(container.path, container.args),
        created=container.created_at // ages.SECOND,
        labels=labels(container),
        state=container.status.value,
        status=ages.status(container.state, now_ns),
        host_config=wire.SummaryHostConfig(network_mode=container.host.network_mode),
        network_settings=wire.SummaryNetworks(networks=networks(container.host)),
        mounts=mount_points(container.host),
    )


def command_line(path: str, args: Iterable[str]) -> str:
    """A command as `ps` shows it: words with a space get quotes."""
    words = [f"'{word}'" if " " in word else word for word in args]
    return " ".join([path, *words])


def exec_answer(session: model.Exec, default_user: str) -> wire.ExecInspect:
    """An exec session."""
    config = session.config
    return wire.ExecInspect(
        id=session.id,
        running=session.running,
        exit_code=session.exit_code,
        process_config=wire.ProcessConfig(
            tty=config.tty,
            entrypoint=config.command[0],
            arguments=list(config.command[1:]),
            privileged=config.privileged,
            user=config.user or default_user,
        ),
        open_stdin=config.attach_stdin,
        open_stderr=config.attach_stderr,
        open_stdout=config.attach_stdout,
        container_id=session.container_id,
        pid=session.pid,
    )


def event(value: model.Event) -> wire.Event:
    """One event, with the members that clients before 1.52 read."""
    is_container = value.type == "container"
    source = value.attributes.get("image", "") if is_container else ""
    return wire.Event(
        status=value.action,
        id=value.actor_id,
        source=source or UNSET,
        type=value.type,
        action=value.action,
        actor=wire.Actor(id=value.actor_id, attributes=dict(value.attributes)),
        time=value.time_ns // ages.SECOND,
        time_nano=value.time_ns,
    )


def limits(values: Mapping[str, Any]) -> dict[str, int | str]:
    """The limits in the body of `update`, by the model's names, without what is not given."""
    return {name: values[name] for name in _LIMITS if values.get(name)}


_LIMITS = (
    "memory memory_swap memory_reservation nano_cpus cpu_shares cpu_quota cpu_period cpuset_cpus "
    "cpuset_mems pids_limit blkio_weight"
).split()
