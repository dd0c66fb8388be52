"""Network namespaces of our own: made, entered, kept by a descriptor.

A namespace lives as long as somebody is in it or holds it open. So a container's needs no file: the
engine's descriptor keeps it until the container's processes are in it, and a killed engine
leaves none behind. A pod's namespace must outlive its processes and the engine; the pods room pins
it by a mount of its own.

What a namespace is made of is set once, while it is empty: loopback is up, no interface takes an
IPv6 address or a router's word unless its network has IPv6 (CVE-2020-10749, CVE-2024-32473).
Entering is per thread; a thread that could not come back would be lost, so that ends the process.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sampan.kernel import loopback
from sampan.kernel import numbers as n
from sampan.kernel.namespaces import setns, unshare
from sampan.network.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWN = "/proc/thread-self/ns/net"


class Space:
    """A network namespace: its descriptor, and a netlink socket inside of it."""

    __slots__ = ("fd", "netlink")

    def __init__(self, fd: int, netlink: Netlink) -> None:
        self.fd = fd
        self.netlink = netlink

    @property
    def path(self) -> str:
        """What another process of root can open it by, while this one lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Let go of it; it is gone when nobody is in it."""
        self.netlink.close()
        os.close(self.fd)


def make() -> Space:
    """A new namespace with loopback up and IPv6 off for whatever comes into it.

    Everybody in it may take every port and send pings: both are the container's own affair.
    """
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(n.CLONE_NEWNET)
        try:
            loopback.bring_up()
            set_sysctl("net/ipv6/conf/default/accept_ra", "0")
            set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
            set_sysctl("net/ipv4/ip_unprivileged_port_start", "0")
            with suppress(OSError):  # an ordinary user's daemon has not all groups
                set_sysctl("net/ipv4/ping_group_range", "0 2147483647")
            return _here()
        finally:
            _return(home)
    finally:
        os.close(home)


def open_path(path: str) -> Space:
    """The namespace behind a path, as `/proc/PID/ns/net` or a file that it is mounted on."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(fd):
            return Space(fd, Netlink())
    except BaseException:
        os.close(fd)
        raise


@contextmanager
def entered(fd: int) -> Iterator[None]:
    """Be in the namespace behind `fd`, this thread alone, for the time of the block."""
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, n.CLONE_NEWNET)
        try:
            yield
        finally:
            _return(home)
    finally:
        os.close(home)


def set_sysctl(name: str, value: str) -> None:
    """Set a value below /proc/sys in this thread's namespace; one that is not there is fine."""
    try:
        fd = os.open(f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def get_sysctl(name: str) -> str:
    """A value below /proc/sys in this thread's namespace; "" when there is none."""
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _here() -> Space:
    fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Space(fd, Netlink())
    except BaseException:
        os.close(fd)
        raise


def _return(home: int) -> None:
    """Back to where we came from."""
    try:
        setns(home, n.CLONE_NEWNET)
    except OSError:  # pragma: no cover - work in the wrong namespace would be worse
        os.write(2, f"sampan: thread {threading.get_ident()} lost its namespace\n".encode())
        os._exit(70)
