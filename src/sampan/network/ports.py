"""Published ports: which of the host's ports a container gets, and how they are kept free for it.

The kernel forwards by rewriting, so nothing of ours handles the bytes. But a port that nobody is
bound to could be taken by another program, which would then never be reached. So each published
port is bound by a socket of ours, a *guard*, for as long as it is published.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, StartFailed
from sampan.network.model import EVERY4, EVERY6, Binding, Published

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROTOCOLS = ("tcp", "udp", "sctp")
EPHEMERAL_FIRST, EPHEMERAL_LAST = 32768, 60999
_BACKLOG = 16
_IPV6 = "/proc/net/if_inet6"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Guards:
    """The bound sockets, by protocol, address and port."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[str, str, int], socket.socket] = {}
        self._next = EPHEMERAL_FIRST

    def publish(
        self, wishes: Sequence[Binding], default: str, versions: set[int], *, carried: bool
    ) -> list[Published]:
        """Take a host's port for each wish, all or none.

        `default` is the address for wishes without one; `versions` are the container's IP versions.
        `carried`: somebody carries what comes by IPv6 to a container that has IPv4 only.

        Raises:
            StartFailed: a port is taken, in Docker's words.
        """
        made: list[Published] = []
        try:
            for wish in wishes:
                able = carried and wish.protocol in _KINDS and 4 in versions
                made += self._publish(wish, default, versions, carried=able)
        except BaseException:
            self.release(made)
            raise
        return made

    def hold(self, published: Iterable[Published]) -> list[Published]:
        """Bind what an earlier engine had published; those that could not be bound."""
        return [one for one in published if not self._bind(one)]

    def release(self, published: Iterable[Published]) -> None:
        """Let ports go."""
        for one in published:
            guard = self._sockets.pop((one.protocol, one.host, one.host_port), None)
            if guard is not None:
                guard.close()

    def find(self, one: Published) -> socket.socket | None:
        """The guard of a published port."""
        return self._sockets.get((one.protocol, one.host, one.host_port))

    def close(self) -> None:
        """Let all ports go; what is published stays published."""
        for guard in self._sockets.values():
            guard.close()
        self._sockets.clear()

    def _publish(
        self, wish: Binding, default: str, versions: set[int], *, carried: bool
    ) -> list[Published]:
        explicit = bool(wish.host)
        hosts = _hosts(wish.host or default, versions, explicit=explicit, carried=carried)
        if wish.host_first:
            candidates: Iterable[int] = range(
                wish.host_first, max(wish.host_first, wish.host_last) + 1
            )
        else:
            candidates = self._ephemeral()
        for number in candidates:
            made: list[Published] = []
            for host in hosts:
                one = Published(port=wish.port, protocol=wish.protocol, host=host, host_port=number)
                if not self._bind(one):
                    self.release(made)
                    break
                made.append(one)
            else:
                return made
        port = str(wish.host_first or "any port")
        if wish.host_last > wish.host_first:
            port = f"{wish.host_first}-{wish.host_last}"
        raise StartFailed(
            f"Bind for {_bracketed(hosts[0])}:{port} failed: port is already allocated"
        )

    def _ephemeral(self) -> Iterable[int]:
        """Ports in turn, each once."""
        for _ in range(EPHEMERAL_LAST - EPHEMERAL_FIRST + 1):
            number = self._next
            self._next = number + 1 if number < EPHEMERAL_LAST else EPHEMERAL_FIRST
            yield number

    def _bind(self, one: Published) -> bool:
        key = (one.protocol, one.host, one.host_port)
        if key in self._sockets:
            return False
        family = socket.AF_INET6 if ":" in one.host else socket.AF_INET
        kind = _KINDS.get(one.protocol)
        if kind is None:  # SCTP is not in every kernel, and has no sockets that could be guards
            return True
        guard = socket.socket(family, kind | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                guard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            guard.bind((one.host, one.host_port))
            if kind == socket.SOCK_STREAM:
                guard.listen(_BACKLOG)  # without it another program could still listen there
        except OSError as error:
            guard.close()
            if error.errno == errno.EADDRINUSE:
                return False
            where = f"{_bracketed(one.host)}:{one.host_port}"
            raise StartFailed(f"publish port {where}: {error.strerror}") from error
        self._sockets[key] = guard
        return True


def matches(wish: Binding, one: Published) -> bool:
    """Whether a published port may be what was asked for."""
    if (wish.port, wish.protocol) != (one.port, one.protocol):
        return False
    if wish.host and wish.host != one.host:
        return False
    last = max(wish.host_first, wish.host_last)
    return not wish.host_first or wish.host_first <= one.host_port <= last


def parse_port(text: str) -> tuple[int, str]:
    """`80/tcp` or `80`.

    Raises:
        InvalidArgument: it is no port.
    """
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if not number.isascii() or not number.isdigit() or not 0 < int(number) < 65536:
        raise InvalidArgument(f'invalid port specification: "{text[:80]}"')
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid protocol in port specification: {text!r}")
    return int(number), protocol


def binding(container: str, host: str, host_port: str) -> Binding:
    """One published port of the API's words: `80/tcp`, an address or "", a port, a range or "".

    Raises:
        InvalidArgument: one of them is wrong.
    """
    port, protocol = parse_port(container)
    if host:
        with suppress(ValueError):
            host = str(ip_address(host.strip("[]")))
        if not _is_address(host):
            raise InvalidArgument(f"invalid IP address: {host}")
    first, dash, last = host_port.partition("-")
    if first in ("", "0") and not dash:
        return Binding(port=port, protocol=protocol, host=host)
    low, high = parse_port(first)[0], parse_port(last if dash else first)[0]
    if high < low:
        raise InvalidArgument(f"invalid port range: {host_port}")
    return Binding(port=port, protocol=protocol, host=host, host_first=low, host_last=high)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _hosts(address: str, versions: set[int], *, explicit: bool, carried: bool) -> list[str]:
    """The addresses to publish on; every one of the host means both versions, as far as the
    container has them or what comes is carried to it."""
    if address == EVERY4 and not explicit:
        carried = carried and os.path.exists(_IPV6)
        able = {4: 4 in versions, 6: 6 in versions or carried}
        return [host for version, host in ((4, EVERY4), (6, EVERY6)) if able[version]]
    version = ip_address(address).version
    if version not in versions and not (version == 6 and carried):
        raise StartFailed(f"publish a port on {address}: the container has no IPv{version} address")
    return [address]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
