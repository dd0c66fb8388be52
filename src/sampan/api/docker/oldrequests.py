"""What requests mean that an older version of the API makes, and what only a newer one may ask.

A member that a version does not know is ignored, as the daemon of that time did; where ignoring
would be dangerous, or dockerd refuses it, it is refused with the version that it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from sampan.errors import InvalidArgument, NotImplementedHere
from sampan.wire import hostconfig
from sampan.wire.networks import EndpointSettings, NetworkingConfig

if TYPE_CHECKING:
    from sampan.wire.containers import ContainerCreate
    from sampan.wire.execs import ExecCreate, ExecStart
    from sampan.wire.hostconfig import HostConfig, MountRequest
    from sampan.wire.networks import NetworkCreate

_BLOCK_LIMITS = (
    "blkio_weight_device blkio_device_read_bps blkio_device_write_bps blkio_device_read_iops "
    "blkio_device_write_iops"
).split()
_MAC_IS_OLD = (
    "The container-wide MacAddress field is now deprecated. It should be specified in "
    "EndpointsConfig instead."
)
_NO_KERNEL_MEMORY = (
    "Your kernel does not support kernel memory limit capabilities (the limit has had no effect "
    "since Linux 5.16, and version 2 of cgroups has none; such memory counts for --memory). "
    "Limitation discarded."
)
_DRIVER_IS_IGNORED = (
    "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via "
    "'mount'. Use '--mount type=volume,volume-driver=...' instead"
)


def create(body: ContainerCreate, minor: int) -> list[str]:
    """POST /containers/create: the body in the newest words; what is to be said with the answer.

    Raises:
        InvalidArgument: it asks for what this version has not, or has no more.
    """
    host = body.host_config = body.host_config or hostconfig.HostConfig()
    if minor < 44 and body.healthcheck is not None:
        body.healthcheck.start_interval = UNSET
    _host(host, minor)
    for mount in host.mounts or ():
        _mount(mount, minor)
    warnings = [_mac_address(body, host, minor), _volume_driver(host, minor), _ports(host, minor)]
    if host.kernel_memory:
        warnings.append(_NO_KERNEL_MEMORY)
    _endpoints(body, minor)
    return [warning for warning in warnings if warning]


def _host(host: HostConfig, minor: int) -> None:
    if minor < 43:
        host.annotations = UNSET
    if minor < 42:
        host.console_size = None
    if minor < 40:
        host.ipc_mode = host.ipc_mode or "shareable"


def _mount(mount: MountRequest, minor: int) -> None:
    if minor < 48 and mount.type == "image":
        raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')
    if minor < 45 and mount.volume_options and mount.volume_options.subpath:
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
    if minor < 42:  # these were not looked at; those of volumes for a bind were refused then, too
        if mount.type != "tmpfs":
            mount.tmpfs_options = UNSET
        if mount.type not in ("volume", "bind"):
            mount.volume_options = UNSET
    if not mount.bind_options:
        if minor < 44 and mount.type == "bind":
            mount.bind_options = hostconfig.BindOptions(read_only_non_recursive=True)
        return
    _bind(mount.bind_options, minor)


def _bind(options: hostconfig.BindOptions, minor: int) -> None:
    if minor < 44:
        if options.read_only_force_recursive:
            raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
        options.read_only_non_recursive = True
    if minor < 42:
        options.create_mountpoint = False
    if minor < 40:
        options.non_recursive = False


def _mac_address(body: ContainerCreate, host: HostConfig, minor: int) -> str:
    """An address for the whole container was once asked for; now each network has its own."""
    if not body.mac_address:
        if minor < 44:
            for endpoint in _given(body).values():
                endpoint.mac_address = ""
        return ""
    if minor >= 52:
        raise InvalidArgument(
            "container-wide MAC address no longer supported; use endpoint-specific MAC address "
            "instead"
        )
    mode = host.network_mode or "default"
    if mode in ("host", "none") or mode.startswith("container:"):
        if minor < 44:
            raise InvalidArgument("conflicting options: mac-address and the network mode")
        return _MAC_IS_OLD
    _set_mac(body, mode, body.mac_address)
    return _MAC_IS_OLD if minor >= 44 else ""


def _set_mac(body: ContainerCreate, mode: str, address: str) -> None:
    config = body.networking_config = body.networking_config or NetworkingConfig()
    given = config.endpoints_config = config.endpoints_config or {}
    name = mode if mode in given or not given else next(iter(given))
    main = given[name] = given.get(name) or EndpointSettings()
    if main.mac_address and main.mac_address != address:
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the "
            "main network, or be left empty"
        )
    main.mac_address = address


def _volume_driver(host: HostConfig, minor: int) -> str:
    if minor < 48 or not host.volume_driver:
        return ""
    for mount in host.mounts or ():
        options = mount.volume_options or hostconfig.VolumeOptions()
        if mount.type == "volume" and not (options.driver_config and options.driver_config.name):
            return _DRIVER_IS_IGNORED
    return ""


def _ports(host: HostConfig, minor: int) -> str:
    """No binding is any port: of this the newer versions warn."""
    empty = [port for port, given in (host.port_bindings or {}).items() if not given]
    for port in empty:
        assert host.port_bindings is not None
        host.port_bindings[port] = [hostconfig.PortBinding()]
    if minor < 52 or not empty:
        return ""
    return (
        f"Following container port(s) have an empty list of port-bindings: {', '.join(empty)}. "
        "Such bindings will be discarded in a future version."
    )


def _endpoints(body: ContainerCreate, minor: int) -> None:
    given = _given(body)
    if minor < 44 and len(given) > 1:
        raise InvalidArgument(
            f"Container cannot be created with multiple network endpoints: {', '.join(given)}"
        )
    if minor < 48:
        for endpoint in given.values():
            endpoint.gw_priority = 0


def _given(body: ContainerCreate) -> dict[str, EndpointSettings]:
    config = body.networking_config or NetworkingConfig()
    return {name: one for name, one in (config.endpoints_config or {}).items() if one is not None}


def update(host: HostConfig, minor: int) -> None:
    """POST /containers/{id}/update. Before 1.55 the limits of block devices meant nothing in it.

    Raises:
        NotImplementedHere: they mean something now, and are given.
    """
    if minor < 40:
        host.pids_limit = None
    if minor >= 55 and any(getattr(host, name) for name in _BLOCK_LIMITS):
        raise NotImplementedHere("update: limits of block devices can be given to create only")


def exec_(body: ExecCreate | ExecStart, minor: int) -> None:
    """POST /containers/{id}/exec and /exec/{id}/start."""
    if minor < 42:
        body.console_size = None


def network_create(body: NetworkCreate, minor: int) -> None:
    """POST /networks/create."""
    if minor < 48:
        body.enable_ipv4 = None
