"""The engine's model in Docker's answers: pure functions, no engine, no I/O.

Members that dockerd leaves out when they are empty are `UNSET`; everything else has the value and
the type that dockerd writes. `requests.py` is the other direction, `pictures.py` has the images,
`sampling.py` the statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from sampan.api.docker import ages, endpoints, mounting, requests
from sampan.api.docker.endpoints import NOTHING
from sampan.api.docker.logging import log_answer
from sampan.engine import model
from sampan.wire import containers as wire
from sampan.wire import events, execs, hostconfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sampan.api.docker.endpoints import Live


def inspect(container: model.Container, live: Live = NOTHING) -> wire.ContainerInspect:
    """The whole of a container; `live` is what it has of networks."""
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
        host_config=host_answer(container.host, container.name),
        storage=wire.Storage(),
        mounts=mounting.points(container),
        config=config_answer(container),
        network_settings=endpoints.settings(container, live),
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
        health=UNSET if value.health is None else _health(value.health),
    )


def _health(value: model.Health) -> wire.Health:
    return wire.Health(
        status=value.status.value,
        failing_streak=value.failing_streak,
        log=[
            wire.HealthResult(
                start=ages.rfc3339(one.start),
                end=ages.rfc3339(one.end),
                exit_code=one.exit_code,
                output=one.output,
            )
            for one in value.log
        ],
    )


def _health_check(check: model.HealthCheck) -> hostconfig.Healthcheck:
    return hostconfig.Healthcheck(
        test=list(check.test),
        interval=check.interval or UNSET,
        timeout=check.timeout or UNSET,
        start_period=check.start_period or UNSET,
        start_interval=check.start_interval or UNSET,
        retries=check.retries or UNSET,
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
        healthcheck=_health_check(config.healthcheck) if config.healthcheck else UNSET,
        image=image_name(container),
        volumes={path: {} for path in config.volumes} or None,
        working_dir=config.cwd,
        entrypoint=list(config.entrypoint) if config.entrypoint else None,
        mac_address=config.mac_address or UNSET,
        labels=labels(container),
        stop_signal=UNSET if config.stop_signal in ("", "SIGTERM") else config.stop_signal,
        stop_timeout=UNSET if config.stop_timeout is None else config.stop_timeout,
    )


def labels(container: model.Container) -> dict[str, str]:
    """The labels that Docker shows: the image's, then the container's own."""
    return {**container.image_labels, **container.config.labels}


def image_name(container: model.Container) -> str:
    """What the container was made of, in the words of its maker."""
    return container.config.image or container.image_name or container.config.rootfs or ""


def host_answer(host: model.HostConfig, name: str) -> hostconfig.HostConfig:
    """The `HostConfig` of inspect; `name` is the container's."""
    return hostconfig.HostConfig(
        binds=list(host.binds) or None,
        log_config=hostconfig.LogConfig(type=host.log.driver.value, config=log_answer(host.log)),
        network_mode=host.network_mode,
        port_bindings=endpoints.wanted_ports(host.ports),
        publish_all_ports=host.publish_all,
        restart_policy=hostconfig.RestartPolicy(
            name=host.restart.name.value, maximum_retry_count=host.restart.max_retries
        ),
        auto_remove=host.auto_remove,
        cap_add=list(host.cap_add) or None,
        cap_drop=list(host.cap_drop) or None,
        cgroupns_mode=host.cgroupns_mode or "private",
        dns=_told(host.dns),
        dns_options=_told(host.dns_options),
        dns_search=_told(host.dns_search),
        extra_hosts=list(host.extra_hosts) or None,
        group_add=list(host.group_add) or None,
        ipc_mode=host.ipc_mode or "private",
        links=endpoints.links(host.links, name),
        oom_score_adj=host.oom_score_adj,
        pid_mode=host.pid_mode,
        privileged=host.privileged,
        readonly_rootfs=host.read_only,
        security_opt=list(host.security_opt) or None,
        tmpfs=dict(host.tmpfs) if host.tmpfs else UNSET,
        mounts=mounting.answered(host.mounts) or UNSET,
        volumes_from=list(host.volumes_from) or None,
        uts_mode=host.uts_mode,
        userns_mode=host.userns_mode,
        shm_size=host.shm_size,
        sysctls=dict(host.sysctls) if host.sysctls else UNSET,
        runtime=host.runtime or requests.DEFAULT_RUNTIME,
        isolation=host.isolation,
        volume_driver=host.volume_driver,
        console_size=host.console_size or (0, 0),
        cpu_shares=host.cpu_shares,
        memory=host.memory,
        nano_cpus=host.nano_cpus,
        blkio_weight=host.blkio_weight,
        cpu_period=host.cpu_period,
        cpu_quota=host.cpu_quota,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        cpu_count=host.cpu_count,
        devices=_devices(host),
        device_cgroup_rules=list(host.device_rules) or None,
        annotations=dict(host.annotations) or UNSET,
        cgroup_parent=host.cgroup_parent,
        blkio_weight_device=_weights(host),
        blkio_device_read_bps=_throttles(host, model.BlockLimit.READ_BPS),
        blkio_device_write_bps=_throttles(host, model.BlockLimit.WRITE_BPS),
        blkio_device_read_iops=_throttles(host, model.BlockLimit.READ_IOPS),
        blkio_device_write_iops=_throttles(host, model.BlockLimit.WRITE_IOPS),
        memory_reservation=host.memory_reservation,
        memory_swap=host.memory_swap,
        memory_swappiness=host.memory_swappiness,
        oom_kill_disable=host.oom_kill_disable,
        pids_limit=host.pids_limit,
        ulimits=[hostconfig.Ulimit(name=u.name, hard=u.hard, soft=u.soft) for u in host.ulimits],
        init=host.init or UNSET,
        depends_on=[f"{one.container}:{one.condition}" for one in host.depends_on] or UNSET,
        device_requests=[{"Driver": "cdi", "DeviceIDs": list(host.cdi_devices)}]
        if host.cdi_devices
        else None,
        egress=UNSET if host.egress is None else list(host.egress),
        on_unhealthy=UNSET if host.on_unhealthy == "none" else host.on_unhealthy.value,
        masked_paths=None if host.masked_paths is None else list(host.masked_paths),
        readonly_paths=None if host.readonly_paths is None else list(host.readonly_paths),
    )


def _weights(host: model.HostConfig) -> list[hostconfig.WeightDevice]:
    return [
        hostconfig.WeightDevice(path=one.path, weight=one.value)
        for one in host.block_devices
        if one.limit is model.BlockLimit.WEIGHT
    ]


def _throttles(host: model.HostConfig, limit: model.BlockLimit) -> list[hostconfig.ThrottleDevice]:
    return [
        hostconfig.ThrottleDevice(path=one.path, rate=one.value)
        for one in host.block_devices
        if one.limit is limit
    ]


def _devices(host: model.HostConfig) -> list[hostconfig.DeviceMapping]:
    return [
        hostconfig.DeviceMapping(
            path_on_host=device.host_path,
            path_in_container=device.container_path,
            cgroup_permissions=device.permissions,
        )
        for device in host.devices
    ]


def _told(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def summary(
    container: model.Container, now_ns: int, live: Live = NOTHING, linked: Sequence[str] = ()
) -> wire.ContainerSummary:
    """One line of `docker ps`; `linked` are the names that it has as a link of others."""
    return wire.ContainerSummary(
        id=container.id,
        names=["/" + name for name in (container.name, *linked)],
        image=image_name(container),
        image_id=str(container.image_id),
        command=command_line(container.path, container.args),
        created=container.created_at // ages.SECOND,
        ports=endpoints.port_list(container, live),
        labels=labels(container),
        state=container.status.value,
        status=ages.status(container.state, now_ns),
        host_config=wire.SummaryHostConfig(
            network_mode=container.host.network_mode,
            annotations=dict(container.host.annotations) or UNSET,
        ),
        health=_summary_health(container.state.health),
        network_settings=wire.SummaryNetworks(networks=endpoints.networks(container, live)),
        mounts=mounting.points(container),
    )


def _summary_health(health: model.Health | None) -> wire.SummaryHealth:
    if health is None:
        return wire.SummaryHealth()
    return wire.SummaryHealth(status=health.status.value, failing_streak=health.failing_streak)


def command_line(path: str, args: Iterable[str]) -> str:
    """A command as `ps` shows it: words with a space get quotes."""
    words = [f"'{word}'" if " " in word else word for word in args]
    return " ".join([path, *words])


def exec_answer(session: model.Exec, default_user: str) -> execs.ExecInspect:
    """An exec session."""
    config = session.config
    return execs.ExecInspect(
        id=session.id,
        running=session.running,
        exit_code=session.exit_code,
        process_config=execs.ProcessConfig(
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


def event(value: model.Event, *, with_old_names: bool = False) -> events.Event:
    """One event; `with_old_names` are the members that clients before 1.52 read."""
    is_container = value.type == "container"
    source = value.attributes.get("image", "") if is_container and with_old_names else ""
    return events.Event(
        status=value.action if with_old_names else UNSET,
        id=value.actor_id if with_old_names else UNSET,
        source=source or UNSET,
        type=value.type,
        action=value.action,
        actor=events.Actor(id=value.actor_id, attributes=dict(value.attributes)),
        time=value.time_ns // ages.SECOND,
        time_nano=value.time_ns,
    )
