"""The files below /etc that are the container's own: hosts, hostname, resolv.conf.

They are small files in the container's directory, bound into it; it may write to them. They are
written at each start, because addresses and the host's resolver change, and hosts again when the
container joins or leaves a network. In place: the container has the file, not its name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sampan.network import resolv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.engine.model import Container
    from sampan.network.model import Endpoint

HOST_GATEWAY = "host-gateway"
_NAMES = ("hosts", "hostname", "resolv.conf")


def make(directory: str) -> bool:
    """Make the container's directory; whether it was missing."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        return False
    return True


def write_names(
    directory: str,
    container: Container,
    endpoints: Sequence[Endpoint],
    gateway: str,
    linked: Sequence[tuple[str, str]] = (),
) -> None:
    """hosts and hostname. `gateway` is the host's address for `host-gateway`, `linked` are
    addresses and names of containers that this one was linked to."""
    config, host = container.config, container.host
    extra = list(linked)
    for entry in host.extra_hosts:
        name, _, address = entry.partition(":")
        extra.append((gateway if address == HOST_GATEWAY else address.strip("[]"), name))
    if host.network_mode == "host":
        text = _read("/etc/hosts") + "".join(f"{address}\t{name}\n" for address, name in extra)
    else:
        names = config.hostname
        if config.domainname:
            names = f"{config.hostname}.{config.domainname} {config.hostname}"
        own = [(address, names) for one in endpoints for address in (one.ipv4, one.ipv6) if address]
        text = resolv.hosts(own, extra)
    _write(f"{directory}/hosts", text)
    _write(f"{directory}/hostname", f"{config.hostname}\n")


def write_resolver(directory: str, container: Container, *, own: bool) -> None:
    """resolv.conf; `own` where the container asks our resolver."""
    _write(f"{directory}/resolv.conf", _resolver_text(container, own=own))


def mounts(directory: str) -> list[dict[str, Any]]:
    """The files that a container had when it ran last, as mounts of the OCI configuration; nothing
    before its first start."""
    found = [(f"{directory}/{name}", f"/etc/{name}") for name in _NAMES]
    return [
        {"destination": destination, "type": "bind", "source": source, "options": ["rbind"]}
        for source, destination in found
        if os.path.exists(source)
    ]


def turn_to_own_resolver(directory: str, container: Container) -> None:
    """Let a running container ask our resolver from now on, unless it has another file by now."""
    path = f"{directory}/resolv.conf"
    if _read(path) == _resolver_text(container, own=False):
        _write(path, _resolver_text(container, own=True))


def _resolver_text(container: Container, *, own: bool) -> str:
    host = container.host
    if host.network_mode == "host" and not (host.dns or host.dns_search or host.dns_options):
        return _read("/etc/resolv.conf")
    return resolv.for_container(
        resolv.read_host(),
        own=own,
        servers=host.dns or (),
        search=host.dns_search or (),
        options=host.dns_options or (),
    )


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
        os.fchmod(fd, 0o644)
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
