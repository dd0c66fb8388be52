"""Messages of the interface become the words of the pods room. Pure.

What a message does not say takes the model's default; a value outside of its enumeration is
refused, for a newer kubelet may mean something by it that we would not do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sampan.errors import InvalidArgument
from sampan.pods import model as m
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MODES = {pb.POD: m.Mode.POD, pb.CONTAINER: m.Mode.CONTAINER, pb.NODE: m.Mode.NODE}
_PID_MODES = {**_MODES, pb.TARGET: m.Mode.TARGET}
_KINDS = {
    pb.SecurityProfile.RuntimeDefault: m.ProfileKind.DEFAULT,
    pb.SecurityProfile.Unconfined: m.ProfileKind.UNCONFINED,
    pb.SecurityProfile.Localhost: m.ProfileKind.LOCALHOST,
}
_LOCALHOST = "localhost/"
_POLICIES = {pb.Merge: m.GroupsPolicy.MERGE, pb.Strict: m.GroupsPolicy.STRICT}
_PROPAGATION = {
    pb.PROPAGATION_PRIVATE: m.Propagation.PRIVATE,
    pb.PROPAGATION_HOST_TO_CONTAINER: m.Propagation.HOST_TO_CONTAINER,
    pb.PROPAGATION_BIDIRECTIONAL: m.Propagation.BIDIRECTIONAL,
}
_PROTOCOLS = {pb.TCP: "tcp", pb.UDP: "udp", pb.SCTP: "sctp"}

_T = TypeVar("_T")
_Context = pb.LinuxSandboxSecurityContext | pb.LinuxContainerSecurityContext


def _choose(known: Mapping[Any, _T], value: int, what: str) -> _T:
    try:
        return known[value]
    except KeyError:
        raise InvalidArgument(f"{what}: {value} is no known choice") from None


def sandbox_config(message: pb.PodSandboxConfig) -> m.SandboxConfig:
    """What a sandbox is asked to be."""
    linux, meta = message.linux, message.metadata
    return m.SandboxConfig(
        name=meta.name,
        uid=meta.uid,
        namespace=meta.namespace,
        attempt=meta.attempt,
        hostname=message.hostname,
        log_directory=message.log_directory,
        dns=_dns(message.dns_config) if message.HasField("dns_config") else None,
        ports=tuple(_port(port) for port in message.port_mappings),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        cgroup_parent=linux.cgroup_parent,
        sysctls=dict(linux.sysctls),
        security=_sandbox_security(linux.security_context),
        resources=resources(linux.resources),
        overhead=resources(linux.overhead),
    )


def container(message: pb.ContainerConfig) -> m.Request:
    """What a container is asked to be."""
    return m.Request(
        name=message.metadata.name,
        attempt=message.metadata.attempt,
        image=image_spec(message.image),
        command=tuple(message.command),
        args=tuple(message.args),
        cwd=message.working_dir,
        env=tuple(_variable(entry) for entry in message.envs),
        mounts=tuple(_mount(mount) for mount in message.mounts),
        devices=tuple(
            m.Device(one.host_path, one.container_path, one.permissions) for one in message.devices
        ),
        cdi=tuple(one.name for one in message.CDI_devices),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        log_path=message.log_path,
        stdin=message.stdin,
        stdin_once=message.stdin_once,
        tty=message.tty,
        resources=resources(message.linux.resources),
        security=_container_security(message.linux.security_context),
        stop_signal=signal_name(message.stop_signal),
    )


def image_spec(message: pb.ImageSpec) -> m.ImageSpec:
    """Which image is meant."""
    return m.ImageSpec(
        image=message.image,
        annotations=dict(message.annotations),
        user_specified=message.user_specified_image,
        handler=message.runtime_handler,
    )


def resources(message: pb.LinuxContainerResources) -> m.Resources:
    """Limits. Raises InvalidArgument for negative ones that mean nothing."""
    if message.cpu_shares < 0 or message.cpu_period < 0 or message.memory_limit_in_bytes < 0:
        raise InvalidArgument("resources: a limit is negative")
    return m.Resources(
        cpu_period=message.cpu_period,
        cpu_quota=message.cpu_quota,
        cpu_shares=message.cpu_shares,
        memory=message.memory_limit_in_bytes,
        memory_swap=message.memory_swap_limit_in_bytes,
        oom_score_adj=message.oom_score_adj,
        cpuset_cpus=message.cpuset_cpus,
        cpuset_mems=message.cpuset_mems,
        hugepages={entry.page_size: entry.limit for entry in message.hugepage_limits},
        unified=dict(message.unified),
    )


def signal_name(number: int) -> str:
    """`SIGNAL_SIGRTMINPLUS1` is SIGRTMIN+1; the default is ""."""
    if not number:
        return ""
    try:
        name = pb.Signal.Name(number)
    except ValueError:
        raise InvalidArgument(f"stop_signal: {number} is no known choice") from None
    return name.removeprefix("SIGNAL_").replace("PLUS", "+").replace("MINUS", "-")


def _dns(message: pb.DNSConfig) -> m.Dns:
    return m.Dns(
        servers=tuple(message.servers),
        searches=tuple(message.searches),
        options=tuple(message.options),
    )


def _port(message: pb.PortMapping) -> m.Port:
    protocol = _choose(_PROTOCOLS, message.protocol, "protocol of a port")
    for port in (message.container_port, message.host_port):
        if not 0 <= port <= 65535:
            raise InvalidArgument(f"port {port}: not within 0 to 65535")
    return m.Port(protocol, message.container_port, message.host_port, message.host_ip)


def _mappings(entries: Iterable[pb.IDMapping]) -> tuple[m.IdMapping, ...]:
    return tuple(m.IdMapping(one.host_id, one.container_id, one.length) for one in entries)


def _namespaces(message: pb.NamespaceOption) -> m.Namespaces:
    users = message.userns_options
    has_users = message.HasField("userns_options") and users.mode == pb.POD
    if message.HasField("userns_options") and users.mode not in (pb.POD, pb.NODE):
        raise InvalidArgument("user namespace: the mode must be POD or NODE")
    return m.Namespaces(
        network=_choose(_MODES, message.network, "network namespace"),
        pid=_choose(_PID_MODES, message.pid, "pid namespace"),
        ipc=_choose(_MODES, message.ipc, "ipc namespace"),
        target=message.target_id,
        uids=_mappings(users.uids) if has_users else (),
        gids=_mappings(users.gids) if has_users else (),
    )


def _seccomp(context: _Context) -> m.Profile | None:
    """The profile; older kubelets say it as a text."""
    if context.HasField("seccomp"):
        return _profile(context.seccomp, "seccomp profile")
    text = context.seccomp_profile_path
    if text in ("runtime/default", "docker/default"):
        return m.Profile(m.ProfileKind.DEFAULT)
    if text.startswith("localhost/"):
        return m.Profile(m.ProfileKind.LOCALHOST, text.removeprefix("localhost/"))
    if text not in ("", "unconfined"):
        raise InvalidArgument(f"seccomp_profile_path {text!r}: not a known form")
    return None


def _profile(message: pb.SecurityProfile, what: str) -> m.Profile:
    return m.Profile(_choose(_KINDS, message.profile_type, what), message.localhost_ref)


def _selinux(context: _Context) -> m.SELinux | None:
    if not context.HasField("selinux_options"):
        return None
    label = context.selinux_options
    return m.SELinux(user=label.user, role=label.role, type=label.type, level=label.level)


def _sandbox_security(context: pb.LinuxSandboxSecurityContext) -> m.Security:
    return m.Security(
        user=context.run_as_user.value if context.HasField("run_as_user") else None,
        group=context.run_as_group.value if context.HasField("run_as_group") else None,
        groups=tuple(context.supplemental_groups),
        groups_policy=_choose(_POLICIES, context.supplemental_groups_policy, "groups policy"),
        privileged=context.privileged,
        read_only=context.readonly_rootfs,
        namespaces=_namespaces(context.namespace_options),
        seccomp=_seccomp(context),
        apparmor=_apparmor(context),
        selinux=_selinux(context),
    )


def _container_security(context: pb.LinuxContainerSecurityContext) -> m.Security:
    return m.Security(
        user=context.run_as_user.value if context.HasField("run_as_user") else None,
        group=context.run_as_group.value if context.HasField("run_as_group") else None,
        username=context.run_as_username,
        groups=tuple(context.supplemental_groups),
        groups_policy=_choose(_POLICIES, context.supplemental_groups_policy, "groups policy"),
        privileged=context.privileged,
        read_only=context.readonly_rootfs,
        no_new_privileges=context.no_new_privs,
        add=tuple(context.capabilities.add_capabilities),
        drop=tuple(context.capabilities.drop_capabilities),
        ambient=tuple(context.capabilities.add_ambient_capabilities),
        masked_paths=tuple(context.masked_paths),
        readonly_paths=tuple(context.readonly_paths),
        namespaces=_namespaces(context.namespace_options),
        seccomp=_seccomp(context),
        apparmor=_apparmor(context),
        selinux=_selinux(context),
    )


def _apparmor(context: _Context) -> m.Profile | None:
    if context.HasField("apparmor"):
        return _profile(context.apparmor, "AppArmor profile")
    # Kubelets before 1.30 say it in a word, and of containers only.
    word = getattr(context, "apparmor_profile", "")
    if word.startswith(_LOCALHOST):
        return m.Profile(m.ProfileKind.LOCALHOST, word.removeprefix(_LOCALHOST))
    return None


def _variable(entry: pb.KeyValue) -> str:
    """`NAME=value`; one that is not UTF-8 cannot travel in an OCI configuration, which is JSON."""
    try:
        return f"{entry.key}={entry.value.decode()}"
    except UnicodeDecodeError:
        raise InvalidArgument(f"environment variable {entry.key!r}: not UTF-8") from None


def _mount(message: pb.Mount) -> m.Mount:
    return m.Mount(
        target=message.container_path,
        source=message.host_path,
        read_only=message.readonly,
        relabel=message.selinux_relabel,
        propagation=_choose(_PROPAGATION, message.propagation, "mount propagation"),
        recursive_read_only=message.recursive_read_only,
        image=image_spec(message.image) if message.image.image else None,
        image_path=message.image_sub_path,
        uids=_mappings(message.uidMappings),
        gids=_mappings(message.gidMappings),
    )
