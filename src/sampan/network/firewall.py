"""The packet filter: our table in the kernel, kept as it should be.

The rules come as text through `nft`, once; their elements as netlink messages of our own, because a
start and an end each change some. The elements are kept here as well: when somebody flushes the
whole rule set (a reload of the host's firewall does), the table is made again from them, in one
transaction.

Everything here blocks and belongs to one thread.
"""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from sampan.errors import FailedPrecondition, Unavailable
from sampan.network import ruleset
from sampan.network.netlink import (
    CREATE,
    NETFILTER,
    Message,
    Netlink,
    attribute,
    nested,
    split,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 20
_INET = 1
_NEWSETELEM, _DELSETELEM = 0xA0C, 0xA0E
_GROUP = 7  # NFNLGRP_NFTABLES
_DELTABLE = 0xA02
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


Element = tuple[str, bytes, bytes]
"""A set, a key in it, and the value where it is a map."""


class Port(NamedTuple):
    """A published port as the kernel sees it; `host` "" is every address of the host."""

    protocol: str
    host: str
    host_port: int
    target: str
    port: int


class Firewall:
    """The table `name` and what is in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False
        self.is_made = False
        self._bridges: dict[str, tuple[bool, bool]] = {}
        self._ports: dict[Port, None] = {}
        self._netlink: Netlink | None = None

    def apply(self) -> None:
        """Make the table anew from what is known here.

        Raises:
            FailedPrecondition: there is no nft, or the kernel refuses the rules.
        """
        run_nft(ruleset.table(self.name, self._elements(), closed=self.closed))
        self.is_made = True

    def add_bridge(self, name: str, *, masquerade: bool, internal: bool) -> None:
        """Let the rules know a bridge. Raises as `add_ports`."""
        if self._bridges.get(name) == (masquerade, internal):
            return
        self._bridges[name] = masquerade, internal
        self._change(_NEWSETELEM, CREATE, _bridge_elements(name, masquerade, internal))

    def drop_bridge(self, name: str) -> None:
        """Forget a bridge."""
        known = self._bridges.pop(name, None)
        if known is not None:
            self._change(_DELSETELEM, 0, _bridge_elements(name, *known))

    def add_ports(self, ports: tuple[Port, ...]) -> None:
        """Publish ports, all of them or none.

        Raises:
            Unavailable: the kernel refused.
        """
        new = [port for port in ports if port not in self._ports]
        self._ports.update(dict.fromkeys(new))
        try:
            self._change(_NEWSETELEM, CREATE, [_port_element(port) for port in new])
        except BaseException:
            for port in new:
                del self._ports[port]
            raise

    def drop_ports(self, ports: tuple[Port, ...]) -> None:
        """Take published ports back."""
        known = [port for port in ports if port in self._ports]
        for port in known:
            del self._ports[port]
        self._change(_DELSETELEM, 0, [(*_port_element(port)[:2], b"") for port in known])

    def forget(self) -> None:
        """Let go of the socket; the table stays."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _change(self, kind: int, flags: int, elements: Sequence[Element]) -> None:
        if not elements or not self.is_made:
            return
        if self._netlink is None:
            self._netlink = Netlink(NETFILTER)
        messages = [_element_message(self.name, kind, flags, element) for element in elements]
        try:
            self._netlink.batch(messages)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self.apply()  # somebody flushed it; what is known here has the change already
                return
            raise Unavailable(f"change the packet filter: {error.strerror}") from error

    def _elements(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, (masquerade, internal) in self._bridges.items():
            for word in _bridge_sets(masquerade, internal):
                found.setdefault(word, []).append(f'"{name}"')
            found.setdefault("same", []).append(f'"{name}" . "{name}"')
        for port in self._ports:
            word, key = _port_key(port)
            target = f"{port.target} . {port.port}"
            found.setdefault(word, []).append(f"{key} : {target}")
        return found


class Watch:
    """Hears when somebody removes the table `name`. For an event loop's reader."""

    def __init__(self, name: str) -> None:
        self._name = name.encode() + b"\0"
        self._sock = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            NETFILTER,
        )
        self._sock.bind((0, 1 << (_GROUP - 1)))

    def fileno(self) -> int:
        """The descriptor."""
        return self._sock.fileno()

    def lost(self) -> bool:
        """Read what there is; whether the table was removed, or something was missed."""
        found = False
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: more happened than the socket could hold
                found = True
                continue
            for kind, _, content in split(data):
                found = found or (kind == _DELTABLE and self._name in content)

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()


def run_nft(rules: str) -> None:
    """Give rules to nft, as one transaction.

    Raises:
        FailedPrecondition: there is no nft, or it refuses them.
    """
    try:
        done = subprocess.run(
            ["nft", "-f", "-"],
            input=rules.encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        raise FailedPrecondition("set the packet filter: nft is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"set the packet filter: nft did not end in {PATIENCE} s") from None
    if done.returncode != 0:
        text_of = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
        raise FailedPrecondition(f"set the packet filter: {text_of or 'nft failed'}")


def drop_table(name: str) -> None:
    """Remove a table; none is fine."""
    run_nft(f"add table inet {name}\ndelete table inet {name}\n")


def _bridge_sets(masquerade: bool, internal: bool) -> list[str]:
    return ["bridges", *(["outbound"] if masquerade else []), *(["internal"] if internal else [])]


def _bridge_elements(name: str, masquerade: bool, internal: bool) -> list[Element]:
    key = name.encode().ljust(16, b"\0")
    sets = _bridge_sets(masquerade, internal)
    return [*((word, key, b"") for word in sets), ("same", key + key, b"")]


def _port_key(port: Port) -> tuple[str, str]:
    """The map of a port, and its key in nft's words."""
    version = ip_address(port.target).version
    if port.host:
        return f"ports{version}", f"{port.host} . {port.protocol} . {port.host_port}"
    return f"every{version}", f"{port.protocol} . {port.host_port}"


def _port_element(port: Port) -> Element:
    """The same in the kernel's: every part of a key or a value is padded to four bytes."""
    key = bytes([_PROTOCOLS[port.protocol], 0, 0, 0]) + _padded(port.host_port)
    if port.host:
        key = ip_address(port.host).packed + key
    return _port_key(port)[0], key, ip_address(port.target).packed + _padded(port.port)


def _padded(port: int) -> bytes:
    return struct.pack(">HH", port, 0)


def _element_message(table: str, kind: int, flags: int, element: Element) -> Message:
    word, key, value = element
    parts = [nested(1, attribute(1, key))]
    if value:
        parts.append(nested(2, attribute(1, value)))
    body = struct.pack(">BBH", _INET, 0, 0) + text(1, table) + text(2, word)
    body += nested(3, nested(1, *parts))
    forgiven = (errno.EEXIST,) if kind == _NEWSETELEM else ()
    return Message(kind, body, flags, f"element of {word}", forgiven)
