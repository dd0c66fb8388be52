"""Docker's requests in the engine's words: pure functions, no engine, no I/O.

Go's zero values mean "not given", and null is a zero value; the model has None or "" there. What
the engine cannot do is refused here with the option's name, never ignored in silence: a container
that runs without a limit that was asked for is worse than an error. Options that change nothing
for us (`VolumeDriver`, `Isolation`, Windows' own) are ignored as dockerd ignores them on Linux.
`convert.py` is the way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from sampan.api.docker import endpoints, mounting
from sampan.api.docker.logging import log_config
from sampan.engine import model
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.wire import containers as wire
    from sampan.wire import execs, hostconfig

DEFAULT_RUNTIME = "sampan-oci"


def container_config(body: wire.ContainerCreate) -> model.ContainerConfig:
    """What is to run."""
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
        healthcheck=_health_check(body.healthcheck),
        mac_address=body.mac_address or "",
    )


def host_config(body: hostconfig.HostConfig, network_disabled: bool = False) -> model.HostConfig:
    """What the host grants."""
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
        cpu_rt_runtime=body.cpu_realtime_runtime or 0,
        cpu_rt_period=body.cpu_realtime_period or 0,
        cpuset_cpus=body.cpuset_cpus or "",
        cpuset_mems=body.cpuset_mems or "",
        cpu_count=body.cpu_count or 0,
        pids_limit=body.pids_limit or None,
        blkio_weight=body.blkio_weight or 0,
        network_mode="none" if network_disabled else body.network_mode or "default",
        pid_mode=body.pid_mode or "",
        ipc_mode=body.ipc_mode or "",
        uts_mode=body.uts_mode or "",
        userns_mode=body.userns_mode or "",
        cgroupns_mode=body.cgroupns_mode or "",
        binds=tuple(body.binds or ()),
        mounts=mounting.requested(_given(body.mounts) or ()),
        volumes_from=tuple(body.volumes_from or ()),
        tmpfs=_given(body.tmpfs) or {},
        read_only=bool(body.readonly_rootfs),
        cap_add=tuple(body.cap_add or ()),
        cap_drop=tuple(body.cap_drop or ()),
        privileged=bool(body.privileged),
        security_opt=tuple(body.security_opt or ()),
        group_add=tuple(body.group_add or ()),
        devices=tuple(_device(device) for device in body.devices or ()),
        device_rules=tuple(body.device_cgroup_rules or ()),
        cdi_devices=_cdi_devices(body.device_requests or ()),
        depends_on=_dependencies(_given(body.depends_on)),
        console_size=console_size(body.console_size),
        block_devices=_block_devices(body),
        annotations=_given(body.annotations) or {},
        storage_opt=_given(body.storage_opt) or {},
        cgroup_parent=body.cgroup_parent or "",
        sysctls=_given(body.sysctls) or {},
        ulimits=tuple(
            model.Ulimit(name=u.name, soft=u.soft, hard=u.hard) for u in body.ulimits or ()
        ),
        shm_size=body.shm_size or 0,
        init=bool(_given(body.init)),
        extra_hosts=tuple(body.extra_hosts or ()),
        dns=_words(body.dns),
        dns_search=_words(body.dns_search),
        dns_options=_words(body.dns_options),
        links=tuple(body.links or ()),
        egress=None if _given(body.egress) is None else tuple(_given(body.egress)),
        ports=endpoints.bindings(body.port_bindings),
        publish_all=bool(body.publish_all_ports),
        masked_paths=None if body.masked_paths is None else tuple(body.masked_paths),
        readonly_paths=None if body.readonly_paths is None else tuple(body.readonly_paths),
        runtime="" if body.runtime == DEFAULT_RUNTIME else body.runtime or "",
        isolation=_isolation(body.isolation or ""),
        volume_driver=body.volume_driver or "",
        restart=restart_policy(body.restart_policy),
        auto_remove=bool(body.auto_remove),
        on_unhealthy=_on_unhealthy(_given(body.on_unhealthy)),
        log=log_config(body.log_config),
    )


def _isolation(word: str) -> str:
    if word.lower() not in ("", "default"):
        raise InvalidArgument(f"invalid isolation {word!r}: only 'default' is there on Linux")
    return word


def _health_check(body: hostconfig.Healthcheck | None) -> model.HealthCheck | None:
    if body is None:
        return None
    return model.HealthCheck(
        test=tuple(_given(body.test) or ()),
        interval=_given(body.interval) or 0,
        timeout=_given(body.timeout) or 0,
        start_period=_given(body.start_period) or 0,
        start_interval=_given(body.start_interval) or 0,
        retries=_given(body.retries) or 0,
    )


def _on_unhealthy(word: str | None) -> model.OnUnhealthy:
    try:
        return model.OnUnhealthy(word or "none")
    except ValueError:
        choices = ", ".join(model.OnUnhealthy)
        raise InvalidArgument(f"invalid OnUnhealthy '{word}': use one of {choices}") from None


def restart_policy(body: hostconfig.RestartPolicy | None) -> model.RestartPolicy:
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


def exec_config(body: execs.ExecCreate) -> model.ExecConfig:
    """A further process in a container."""
    command = _words(body.cmd)
    if not command:
        raise InvalidArgument("No exec command specified")
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
        detach_keys=detach_keys(body.detach_keys or body.detach_keys_too or ""),
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
    keys = [_key(key) for key in text.split(",")]
    if None in keys:
        raise InvalidArgument(f"Invalid detach keys ({text[:160]}) provided")
    return bytes(key for key in keys if key is not None)


def _key(key: str) -> int | None:
    if len(key) == 1 and key.isascii():
        return ord(key)
    letter = key.removeprefix("ctrl-")
    if len(letter) == 1 and key != letter and (letter in "@[\\]^_" or "a" <= letter <= "z"):
        return ord(letter.upper()) - 64
    return None


def _given(value: Any) -> Any:
    return None if value is UNSET else value


def _words(value: wire.Arguments) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


def _block_devices(body: hostconfig.HostConfig) -> tuple[model.BlockDevice, ...]:
    throttles = (
        (model.BlockLimit.READ_BPS, body.blkio_device_read_bps),
        (model.BlockLimit.WRITE_BPS, body.blkio_device_write_bps),
        (model.BlockLimit.READ_IOPS, body.blkio_device_read_iops),
        (model.BlockLimit.WRITE_IOPS, body.blkio_device_write_iops),
    )
    weights = [
        model.BlockDevice(limit=model.BlockLimit.WEIGHT, path=one.path, value=one.weight)
        for one in body.blkio_weight_device or ()
    ]
    rates = [
        model.BlockDevice(limit=limit, path=one.path, value=one.rate)
        for limit, given in throttles
        for one in given or ()
    ]
    return (*weights, *rates)


def _cdi_devices(requests: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The names in DeviceRequests of the driver cdi, and what `--gpus` means by Nvidia's names."""
    names: list[str] = []
    for request in requests:
        driver, wanted = request.get("Driver") or "", request.get("Capabilities") or []
        if driver in ("", "nvidia") and any("gpu" in one for one in wanted):
            names += _gpus(request)
            continue
        if driver != "cdi":
            raise InvalidArgument(
                f"could not select device driver {str(request.get('Driver') or '')!r} with "
                f"capabilities: {request.get('Capabilities')}"
            )
        names += [str(name) for name in request.get("DeviceIDs") or ()]
    return tuple(names)


def _gpus(request: dict[str, Any]) -> list[str]:
    """`-1` of Count is all of them, another number the first so many."""
    count, chosen = int(request.get("Count") or 0), request.get("DeviceIDs") or ()
    if not chosen:
        chosen = ["all"] if count < 0 else range(count)
    return [f"nvidia.com/gpu={one}" for one in chosen]


def _dependencies(texts: Sequence[str] | None) -> tuple[model.Dependency, ...]:
    """`NAME` or `NAME:condition` each."""
    found = []
    for text in texts or ():
        name, colon, word = text.partition(":")
        try:
            condition = model.DependencyCondition(word if colon else "started")
        except ValueError:
            choices = ", ".join(model.DependencyCondition)
            raise InvalidArgument(
                f"invalid dependency '{text}': the condition must be one of {choices}"
            ) from None
        found.append(model.Dependency(container=name, condition=condition))
    return tuple(found)


def _device(body: hostconfig.DeviceMapping) -> model.Device:
    return model.Device(
        host_path=body.path_on_host,
        container_path=body.path_in_container or body.path_on_host,
        permissions=body.cgroup_permissions or "rwm",
    )


def limits(values: Mapping[str, Any]) -> dict[str, int | str]:
    """The limits in the body of `update`, by the model's names, without what is not given."""
    found = {name: values[name] for name in _LIMITS if values.get(name)}
    if values.get("pids_limit") is not None:
        found["pids_limit"] = values["pids_limit"]
    return found


_LIMITS = (
    "memory memory_swap memory_reservation nano_cpus cpu_shares cpu_quota cpu_period cpuset_cpus "
    "cpuset_mems pids_limit blkio_weight"
).split()
