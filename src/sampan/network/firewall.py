"""The packet filter: our table in the kernel, kept as it should be.

The rules come as text through `nft`, once; their elements as netlink messages of our own, because a
start and an end each change some. The elements are kept here as well: when somebody flushes the
whole rule set (a reload of the host's firewall does), the table is made again from them, in one
transaction.

Everything here blocks and belongs to one thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from sampan.errors import FailedPrecondition, Unavailable
from sampan.network import egress, links, ruleset, spaces
from sampan.network.denials import group_of
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

    from sampan.network.egress import Restricted

PATIENCE = 20
_INET = 1
_NEWSETELEM, _DELSETELEM = 0xA0C, 0xA0E
_GROUP = 7  # NFNLGRP_NFTABLES
_NEWRULE, _GETRULE = 0xA06, 0xA07
_LOSSES = frozenset((0xA02, 0xA05, 0xA08, 0xA0B))  # of a table, a chain, a rule, a set
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


Element = tuple[str, bytes, bytes]
"""A set, a key in it, and the value where it is a map."""


class Port(NamedTuple):
    """A published port as the kernel sees it; `host` "" is every address of the host. Without a
    `target`, we carry what comes to it."""

    protocol: str
    host: str
    host_port: int
    target: str
    port: int


class Firewall:
    """Our table and what is in it. `uplinks` are kept apart, see `forwarding`."""

    def __init__(self, name: str = "sampan") -> None:
        self.name = name
        self.uplinks: dict[int, tuple[str, ...]] = {}
        self.is_made = False
        self._bridges: dict[str, tuple[bool, bool]] = {}
        self._ports: dict[Port, None] = {}
        self._netlink: Netlink | None = None
        self._rules = 0
        self._restricted: dict[str, Restricted] = {}

    def apply(self) -> None:
        """Make the table anew from what is known here.

        Raises:
            FailedPrecondition: there is no nft, or the kernel refuses the rules.
        """
        restricted = list(self._restricted.values())
        rules = ruleset.table(self.name, self._elements(), group=group_of(self.name))
        there = [
            # An interface that is on its way out must not keep the rules from being made.
            replace(one, doors=tuple(door for door in one.doors if links.index_of(door[0])))
            for one in restricted
        ]
        run_nft(rules + egress.doors_table(self.name, there))
        self._hide_loopback()
        self.is_made = True
        self._rules = self._count()

    def _hide_loopback(self) -> None:
        """The rule in front of that for loopback. A kernel that cannot do it (4.17 and older) has
        that one only."""
        ports = ruleset.free_ports(spaces.get_sysctl("net/ipv4/ip_local_port_range"))
        if ports is None:
            return
        body = struct.pack(">BBH", _INET, 0, 0) + text(1, self.name) + text(2, "leaving")
        body += ruleset.hide_loopback(ports)
        refused = errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT  # or flushed meanwhile: again soon
        self.socket().batch([Message(_NEWRULE, body, CREATE, "make rule of loopback", refused)])

    def is_whole(self) -> bool:
        """Whether every rule is still there."""
        return self._rules == self._count()

    def drop(self) -> None:
        """Remove the table, unless it keeps the host's own interfaces apart.

        Raises:
            FailedPrecondition: as `apply`.
        """
        if any(self.uplinks.values()):
            return
        rules = f"add table inet {self.name}\ndelete table inet {self.name}\n"
        run_nft(rules + egress.doors_table(self.name, ()))
        self.is_made = False

    def restrict(self, owner: str, restricted: Restricted | None) -> None:
        """Let a container reach what it may and no more; None: everything again.

        Raises:
            FailedPrecondition: as `apply`.
        """
        if restricted is None:
            if self._restricted.pop(owner, None) is None:
                return
        else:
            self._restricted[owner] = restricted
        if self.is_made:
            self.apply()

    def learn(self, owner: str, found: Sequence[tuple[str, int]]) -> None:
        """Let a restricted container reach (address, seconds) of a name that it may ask for."""
        one = self._restricted.get(owner)
        if one is None or not self.is_made:
            return
        for address, seconds in found:
            one.learn(address, seconds)
        new = {address for address, _ in found}
        lines = [
            f"add element inet {self.name} allowed{6 if ':' in own else 4} "
            f"{{ {egress.allowed_element(own, where, left)} }}\n"
            for own, where, left in one.allowed()
            if where in new
        ]
        if lines:
            run_nft("".join(lines))

    def add_bridge(self, name: str, *, masquerade: bool, internal: bool) -> None:
        """Let the rules know a bridge. Raises as `add_ports`."""
        if self._bridges.get(name) == (masquerade, internal):
            return
        first = internal and not any(other for _, other in self._bridges.values())
        self._bridges[name] = masquerade, internal
        if first and self.is_made:
            self.apply()  # its rules are not there yet
            return
        self._change(made=_bridge_elements(name, masquerade, internal))

    def drop_bridge(self, name: str) -> None:
        """Forget a bridge."""
        known = self._bridges.pop(name, None)
        if known is not None:
            self._change(gone=_bridge_elements(name, *known))

    def add_ports(self, ports: tuple[Port, ...]) -> None:
        """Publish ports, all of them or none.

        Raises:
            Unavailable: the kernel refused.
        """
        self.move_ports((), ports)

    def drop_ports(self, ports: tuple[Port, ...]) -> None:
        """Take published ports back."""
        self.move_ports(ports, ())

    def move_ports(self, old: tuple[Port, ...], new: tuple[Port, ...]) -> None:
        """Take ports back and publish others, at one moment: a port that is in both only leads
        elsewhere. Raises as `add_ports`."""
        before = dict(self._ports)
        known = [port for port in old if port in before]
        for port in known:
            del self._ports[port]
        fresh = [port for port in new if port not in self._ports]
        self._ports.update(dict.fromkeys(fresh))
        used = {port.target for port in self._ports}
        carried = {_port_element(port) for port in self._ports if not port.target}
        gone = [
            one
            for one in _port_elements(known)
            if one not in carried
            and (not one[0].startswith("selves") or _target_of(one) not in used)
        ]
        try:
            self._change([(word, key, b"") for word, key, _ in gone], _port_elements(fresh))
        except BaseException:
            self._ports = before
            raise

    def forget(self) -> None:
        """Let go of the socket; the table stays."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _count(self) -> int:
        """How many rules the kernel has in our table."""
        body = struct.pack(">BBH", _INET, 0, 0) + text(1, self.name)
        return len(self.socket().dump(_GETRULE, body, "list rules"))

    def socket(self) -> Netlink:
        """Our socket to netfilter, made when it is first needed."""
        if self._netlink is None:
            self._netlink = Netlink(NETFILTER)
        return self._netlink

    def _change(self, gone: Sequence[Element] = (), made: Sequence[Element] = ()) -> None:
        if not self.is_made or not (gone or made):
            return
        messages = [_element_message(self.name, _DELSETELEM, 0, element) for element in gone]
        messages += [_element_message(self.name, _NEWSETELEM, CREATE, element) for element in made]
        try:
            self.socket().batch(messages)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self.apply()  # somebody flushed it; what is known here has the change already
                return
            raise Unavailable(f"change the packet filter: {error.strerror}") from error

    def _elements(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {
            f"uplinks{version}": [f'"{name}"' for name in names]
            for version, names in self.uplinks.items()
        }
        for name, (masquerade, internal) in self._bridges.items():
            for word in _bridge_sets(masquerade, internal):
                found.setdefault(word, []).append(f'"{name}"')
            found.setdefault("same", []).append(f'"{name}" . "{name}"')
        for port in self._ports:
            word, key = _port_key(port)
            target = f" : {port.target} . {port.port}" if port.target else ""
            found.setdefault(word, []).append(key + target)
        for target in {port.target: None for port in self._ports if port.target}:
            word = f"selves{ip_address(target).version}"
            found.setdefault(word, []).append(f"{target} . {target}")
        found.update(egress.elements(list(self._restricted.values())))
        return found


class Watch:
    """Hears when something of the table `name` is removed, be it by us. For an event loop."""

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
        """Read what there is; whether rules were removed, or something was missed."""
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
                found = found or (kind in _LOSSES and self._name in content)

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()


_last = [""]  # where it was found; every container asks


def find_nft() -> str:
    """The path of the program `nft`; "" when there is none."""
    if not (_last[0] and os.access(_last[0], os.X_OK)):
        _last[0] = _look_for_nft()
    return _last[0]


def _look_for_nft() -> str:
    for directory in (*os.get_exec_path(), "/usr/sbin", "/sbin"):
        path = os.path.join(directory, "nft")
        if os.access(path, os.X_OK):
            return path
    return ""


def run_nft(rules: str) -> None:
    """Give rules to nft, as one transaction.

    Raises:
        FailedPrecondition: there is no nft, or it refuses them.
    """
    try:
        done = subprocess.run(
            [find_nft() or "nft", "-f", "-"],
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


def _bridge_sets(masquerade: bool, internal: bool) -> list[str]:
    return ["bridges", *(["outbound"] if masquerade else []), *(["internal"] if internal else [])]


def _bridge_elements(name: str, masquerade: bool, internal: bool) -> list[Element]:
    key = name.encode().ljust(16, b"\0")
    sets = _bridge_sets(masquerade, internal)
    return [*((word, key, b"") for word in sets), ("same", key + key, b"")]


def _port_key(port: Port) -> tuple[str, str]:
    """The map of a port, and its key in nft's words."""
    if not port.target:
        return "carried", f"{port.protocol} . {port.host_port}"
    version = ip_address(port.target).version
    if port.host:
        return f"ports{version}", f"{port.host} . {port.protocol} . {port.host_port}"
    return f"every{version}", f"{port.protocol} . {port.host_port}"


def _port_element(port: Port) -> Element:
    """The same in the kernel's: every part of a key or a value is padded to four bytes."""
    key = bytes([_PROTOCOLS[port.protocol], 0, 0, 0]) + _padded(port.host_port)
    if not port.target:
        return "carried", key, b""
    if port.host:
        key = ip_address(port.host).packed + key
    return _port_key(port)[0], key, ip_address(port.target).packed + _padded(port.port)


def _port_elements(ports: Sequence[Port]) -> list[Element]:
    """The elements of ports, and of the ways of their targets to themselves."""
    found = [_port_element(port) for port in ports]
    for target in {port.target: None for port in ports if port.target}:
        address = ip_address(target)
        found.append((f"selves{address.version}", address.packed * 2, b""))
    return found


def _target_of(element: Element) -> str:
    key = element[1]
    return str(ip_address(key[: len(key) // 2]))


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
