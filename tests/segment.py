"""Three hosts on one segment, and sockets in any of them: `client`, `host`, `neighbour`.

All is in one process: a socket belongs to the network namespace in which it was made, whoever
uses it. Each server answers a connection with its name and the address that it sees.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from ipaddress import ip_interface
from typing import TYPE_CHECKING, NamedTuple, Self

from sampan.network import links, spaces
from sampan.network.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sampan.network.spaces import Space

ADDRESSES = {
    "host": ("198.51.100.1/24", "2001:db8:1::1/64"),
    "client": ("198.51.100.2/24", "2001:db8:1::2/64"),
    "neighbour": ("198.51.100.3/24", "2001:db8:1::3/64"),
}
UPLINK = "ext0"
PATIENCE = 1.2
"""Seconds after which nobody answers any more: longer than the kernel's first repetition."""


class Probe(NamedTuple):
    """A connection that is tried from a namespace."""

    origin: Space
    address: str
    port: int
    kind: int = socket.SOCK_STREAM


class Segment:
    """The hosts, and servers anywhere."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._servers: dict[socket.socket, str] = {}
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.switch = self.space()
        names = {name: self.space() for name in ADDRESSES}
        self.host, self.client, self.neighbour = names.values()
        with spaces.entered(self.switch.fd), Plain() as netlink:
            netlink.run([links.new_bridge("seg0", b"\x02\0\0\0\0\1", 1500)])
            index = links.index_of("seg0")
            for number, (name, space) in enumerate(names.items()):
                netlink.run([links.new_veth(f"port{number}", space.fd, UPLINK, 1500)])
                netlink.run([links.join_bridge(f"port{number}", index)])
                _configure(space, ADDRESSES[name])
        with spaces.entered(self.host.fd):
            filter_bridges(on=False)
        self._thread.start()

    def space(self) -> Space:
        """One more namespace, closed at the end."""
        made = spaces.make()
        self._stack.callback(made.close)
        return made

    def serve(self, space: Space, name: str, port: int, kind: int = socket.SOCK_STREAM) -> None:
        """Answer on every address of a namespace, IPv4 and IPv6."""
        with spaces.entered(space.fd):
            sock = socket.socket(socket.AF_INET6, kind)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        self._servers[sock] = name
        self._wake.send(b"x")

    def ask(self, probes: Iterable[Probe], patience: float = PATIENCE) -> dict[Probe, str]:
        """Who answers which probe, as `name address`; those that nobody answers are missing."""
        found: dict[Probe, str] = {}
        with selectors.DefaultSelector() as waiting, ExitStack() as opened:
            for probe in probes:
                sock = opened.enter_context(_connect(probe))
                events = selectors.EVENT_READ
                waiting.register(sock, events, probe)
            deadline = time.monotonic() + patience
            while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in waiting.select(left):
                    waiting.unregister(key.fileobj)
                    try:
                        data = key.fileobj.recv(200).decode()
                    except OSError:
                        continue
                    if data:
                        found[key.data] = data
        return found

    def answer(self, origin: Space, address: str, port: int, kind: int = socket.SOCK_STREAM) -> str:
        """Who answers one probe, "" for nobody."""
        probe = Probe(origin, address, port, kind)
        return self.ask([probe]).get(probe, "")

    def close(self) -> None:
        """End the servers."""
        self._wake.close()
        self._thread.join()
        self._woken.close()
        for sock in self._servers:
            sock.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in waiting.select():
                    if key.fileobj is self._woken:
                        if not self._woken.recv(100):
                            return
                        known = waiting.get_map()
                        for sock in self._servers.keys() - {one.fileobj for one in known.values()}:
                            waiting.register(sock, selectors.EVENT_READ)
                    else:
                        _greet(key.fileobj, self._servers[key.fileobj])


class Plain(Netlink):
    """A netlink socket for a with-block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def segment() -> Iterator[Segment]:
    """The hosts, with this thread in `host`, for the time of the block."""
    with ExitStack() as stack:
        made = Segment(stack)
        stack.callback(made.close)
        stack.enter_context(spaces.entered(made.host.fd))
        yield made


def filter_bridges(*, on: bool) -> None:
    """Whether the packet filter sees what stays on a bridge, where the module is loaded."""
    for kind in ("iptables", "ip6tables"):
        spaces.set_sysctl(f"net/bridge/bridge-nf-call-{kind}", str(int(on)))


def run(*command: str) -> str:
    """The output of a command in this thread's namespace."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def _configure(space: Space, addresses: tuple[str, str]) -> None:
    with spaces.entered(space.fd):
        spaces.set_sysctl(f"net/ipv6/conf/{UPLINK}/disable_ipv6", "0")
        index = links.index_of(UPLINK)
        messages = [links.add_address(index, ip_interface(one)) for one in addresses]
        space.netlink.run([links.change(UPLINK, up=True), *messages])


def _connect(probe: Probe) -> socket.socket:
    family = socket.AF_INET6 if ":" in probe.address else socket.AF_INET
    with spaces.entered(probe.origin.fd):
        sock = socket.socket(family, probe.kind | socket.SOCK_NONBLOCK)
    sock.connect_ex((probe.address, probe.port))
    if probe.kind == socket.SOCK_DGRAM:
        try:
            sock.send(b"hello")
        except OSError:
            pass  # no way there, which is an answer as well
    return sock


def _greet(sock: socket.socket, name: str) -> None:
    if sock.type == socket.SOCK_STREAM:
        peer, address = sock.accept()
        with peer:
            peer.send(f"{name} {_plain(address[0])}".encode())
    else:
        _, address = sock.recvfrom(100)
        sock.sendto(f"{name} {_plain(address[0])}".encode(), address)


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")
