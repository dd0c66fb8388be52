"""Connections to a port of a pod, as if from inside of it.

The socket is made by a thread that has joined the pod's network for that one call; a socket keeps
the network that it was born in, so connecting it is the event loop's business again. A pod with a
kernel of its own has its loopback in there, so the node connects to its address.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from sampan.errors import FailedPrecondition, InvalidArgument, Unavailable
from sampan.kernel import namespaces as kernel
from sampan.kernel import numbers as n
from sampan.pods.model import Mode, Phase
from sampan.pods.namespaces import in_thread

if TYPE_CHECKING:
    from sampan.pods.sandboxes import Sandboxes
    from sampan.pods.table import Table

PATIENCE = 10.0
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Ports:
    """Connects to ports of sandboxes."""

    def __init__(self, table: Table, sandboxes: Sandboxes) -> None:
        self._table = table
        self._sandboxes = sandboxes

    async def connect(self, sandbox_id: str, port: int) -> socket.socket:
        """A non-blocking connection to `port` of the pod's loopback, IPv4 first, or of its address.

        Raises:
            Unavailable: nothing answers there.
            InvalidArgument: the port is none. FailedPrecondition: the sandbox is not ready.
        """
        if not 0 < port < 65536:
            raise InvalidArgument(f"forward port {port}: not within 1 to 65535")
        sandbox = self._table.find(sandbox_id)
        if sandbox.phase is not Phase.READY:
            raise FailedPrecondition(f"forward port {port}: sandbox {sandbox.id} is not ready")
        path = ""
        places: tuple[tuple[socket.AddressFamily, str], ...] = _LOOPBACKS
        if self._sandboxes.handler(sandbox).is_machine:
            places = tuple((_family(address), address) for address in sandbox.addresses)
        elif sandbox.config.namespaces.network is not Mode.NODE:
            path = f"{self._sandboxes.place(sandbox).pinned}/net"
        failure: Exception | None = None
        for family, address in places:
            try:
                return await _connect(path, family, (address, port))
            except (OSError, TimeoutError) as error:
                failure = failure or error
        if failure is None:
            raise Unavailable(f"forward port {port}: pod {sandbox.id} has no address")
        where = f"{places[0][1]}:{port}"
        raise Unavailable(f"forward port {port}: connect to {where} in pod {sandbox.id}: {failure}")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def _connect(path: str, family: int, address: tuple[str, int]) -> socket.socket:
    sock = make_socket(path, family) if path else socket.socket(family)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def make_socket(path: str, family: int) -> socket.socket:
    """A TCP socket that was born in the network namespace pinned at `path`. Raises OSError."""
    made: list[socket.socket] = []

    def work() -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(fd, n.CLONE_NEWNET)
        finally:
            os.close(fd)
        made.append(socket.socket(family, socket.SOCK_STREAM))

    in_thread(work)
    return made[0]
