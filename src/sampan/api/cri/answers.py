"""The words of the pods room become messages of the interface. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.engine.model import Status
from sampan.pods import model as m
from sampan.pods.containers import START_FAILED
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from sampan.engine.model import Container
    from sampan.pods.containers import PodContainer

_MODES = {
    m.Mode.POD: pb.POD,
    m.Mode.CONTAINER: pb.CONTAINER,
    m.Mode.NODE: pb.NODE,
    m.Mode.TARGET: pb.TARGET,
}
_PROPAGATION = {
    m.Propagation.PRIVATE: pb.PROPAGATION_PRIVATE,
    m.Propagation.HOST_TO_CONTAINER: pb.PROPAGATION_HOST_TO_CONTAINER,
    m.Propagation.BIDIRECTIONAL: pb.PROPAGATION_BIDIRECTIONAL,
}
_RUNNING = frozenset((Status.RUNNING, Status.PAUSED))
_ENDED = frozenset((Status.EXITED, Status.DEAD, Status.REMOVING))


def sandbox_metadata(config: m.SandboxConfig) -> pb.PodSandboxMetadata:
    """Who a sandbox is."""
    return pb.PodSandboxMetadata(
        name=config.name, uid=config.uid, namespace=config.namespace, attempt=config.attempt
    )


def sandbox_state(ready: bool) -> pb.PodSandboxState:
    """Whether containers can be in it."""
    return pb.SANDBOX_READY if ready else pb.SANDBOX_NOTREADY


def sandbox(one: m.Sandbox, ready: bool) -> pb.PodSandbox:
    """One line of a list."""
    return pb.PodSandbox(
        id=one.id,
        metadata=sandbox_metadata(one.config),
        state=sandbox_state(ready),
        created_at=one.created_at,
        labels=one.config.labels,
        annotations=one.config.annotations,
        runtime_handler=one.handler,
    )


def sandbox_status(one: m.Sandbox, ready: bool) -> pb.PodSandboxStatus:
    """Everything that a kubelet compares with what it asked for."""
    return pb.PodSandboxStatus(
        id=one.id,
        metadata=sandbox_metadata(one.config),
        state=sandbox_state(ready),
        created_at=one.created_at,
        network=pb.PodSandboxNetworkStatus(
            ip=one.addresses[0] if one.addresses else "",
            additional_ips=[pb.PodIP(ip=ip) for ip in one.addresses[1:]],
        ),
        linux=pb.LinuxPodSandboxStatus(
            namespaces=pb.Namespace(options=namespace_options(one.config.namespaces))
        ),
        labels=one.config.labels,
        annotations=one.config.annotations,
        runtime_handler=one.handler,
    )


def namespace_options(one: m.Namespaces) -> pb.NamespaceOption:
    """Whose namespaces are used."""
    options = pb.NamespaceOption(
        network=_MODES[one.network],
        pid=_MODES[one.pid],
        ipc=_MODES[one.ipc],
        target_id=one.target,
    )
    if one.uids:
        options.userns_options.CopyFrom(
            pb.UserNamespace(mode=pb.POD, uids=_mappings(one.uids), gids=_mappings(one.gids))
        )
    return options


def container_state(one: PodContainer) -> pb.ContainerState:
    """Where a container is in its life."""
    status = one.container.status
    if status in _RUNNING:
        return pb.CONTAINER_RUNNING
    if status in _ENDED or one.could_not_start:
        return pb.CONTAINER_EXITED
    return pb.CONTAINER_CREATED if status is Status.CREATED else pb.CONTAINER_UNKNOWN


def container(one: PodContainer) -> pb.Container:
    """One line of a list."""
    own, request = one.container, one.notes.request
    return pb.Container(
        id=own.id,
        pod_sandbox_id=one.notes.sandbox,
        metadata=pb.ContainerMetadata(name=request.name, attempt=request.attempt),
        image=image_spec(request.image),
        image_ref=own.image_id,
        image_id=own.image_id,
        state=container_state(one),
        created_at=own.created_at,
        labels=request.labels,
        annotations=request.annotations,
    )


def container_status(one: PodContainer, failed_at: int, user: m.User | None) -> pb.ContainerStatus:
    """Everything that is known of a container."""
    own, request, state = one.container, one.notes.request, one.container.state
    code, reason, message, finished = _end(one, failed_at)
    return pb.ContainerStatus(
        id=own.id,
        metadata=pb.ContainerMetadata(name=request.name, attempt=request.attempt),
        state=container_state(one),
        created_at=own.created_at,
        started_at=state.started_at,
        finished_at=finished,
        exit_code=code,
        image=image_spec(request.image, one.notes.image_name),
        image_ref=one.notes.image_ref,
        image_id=own.image_id,
        reason=reason,
        message=message,
        labels=request.labels,
        annotations=request.annotations,
        mounts=[_mount(mount) for mount in request.mounts],
        log_path=own.log_path,
        resources=pb.ContainerResources(linux=resources(request.resources)),
        user=_user(user),
        stop_signal=stop_signal(own),  # type: ignore[arg-type]
    )


def _end(one: PodContainer, failed_at: int) -> tuple[int, str, str, int]:
    """Exit code, reason, message, time of the end."""
    state = one.container.state
    if one.could_not_start:
        return START_FAILED, "StartError", state.error, failed_at
    if one.container.status not in _ENDED:
        return 0, "", "", 0
    reason = "Completed" if state.exit_code == 0 else "Error"
    if state.oom_killed:
        reason = "OOMKilled"
    return state.exit_code, reason, state.error, state.finished_at


def image_spec(one: m.ImageSpec, name: str = "") -> pb.ImageSpec:
    """An image as it was asked for, or by a better name."""
    return pb.ImageSpec(
        image=name or one.image,
        annotations=one.annotations,
        user_specified_image=one.user_specified,
        runtime_handler=one.handler,
    )


def resources(one: m.Resources) -> pb.LinuxContainerResources:
    """Limits."""
    return pb.LinuxContainerResources(
        cpu_period=one.cpu_period,
        cpu_quota=one.cpu_quota,
        cpu_shares=one.cpu_shares,
        memory_limit_in_bytes=one.memory,
        memory_swap_limit_in_bytes=one.memory_swap,
        oom_score_adj=one.oom_score_adj,
        cpuset_cpus=one.cpuset_cpus,
        cpuset_mems=one.cpuset_mems,
        hugepage_limits=[
            pb.HugepageLimit(page_size=size, limit=limit) for size, limit in one.hugepages.items()
        ],
        unified=one.unified,
    )


def stop_signal(own: Container) -> int:
    """The signal that a stop sends."""
    name = own.config.stop_signal.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    try:
        return pb.Signal.Value("SIGNAL_" + name.replace("+", "PLUS").replace("-", "MINUS"))
    except ValueError:
        return pb.SIGNAL_RUNTIME_DEFAULT  # a number, from an image


def _user(user: m.User | None) -> pb.ContainerUser | None:
    if user is None:
        return None
    linux = pb.LinuxContainerUser(uid=user.uid, gid=user.gid, supplemental_groups=user.groups)
    return pb.ContainerUser(linux=linux)


def _mappings(entries: tuple[m.IdMapping, ...]) -> list[pb.IDMapping]:
    return [
        pb.IDMapping(host_id=one.host, container_id=one.container, length=one.length)
        for one in entries
    ]


def _mount(one: m.Mount) -> pb.Mount:
    return pb.Mount(
        container_path=one.target,
        host_path=one.source,
        readonly=one.read_only,
        selinux_relabel=one.relabel,
        propagation=_PROPAGATION[one.propagation],
        recursive_read_only=one.recursive_read_only,
        image=image_spec(one.image) if one.image else None,
        image_sub_path=one.image_path,
    )
