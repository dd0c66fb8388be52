"""Starts the shim of a container that a foreign OCI runtime makes: a process for each.

It gets the message that the spawner would have got, and outlives this engine as every shim does.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, Unavailable
from sampan.kernel import fds
from sampan.tasks.launch import MAX_MESSAGE, start_interpreter
from sampan.tasks.task import send_buffer_option

if TYPE_CHECKING:
    from collections.abc import Sequence

OCI_VERSION = "1.0.2"
"""What configurations for foreign runtimes say: older ones refuse what is newer than themselves."""


async def launch(message: bytes, passed: Sequence[int], log: int = 2) -> None:
    """Hand one launch to a new shim; `passed` stay the caller's, the control socket is the first.

    Raises:
        InvalidArgument: the message is larger than it may be.
        Unavailable: the shim could not be started.
    """
    if len(message) > MAX_MESSAGE:
        raise InvalidArgument(f"the configuration has {len(message)} bytes, more than allowed")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, send_buffer_option(), MAX_MESSAGE)
        try:
            pid = start_interpreter("sampan.shim.foreign", theirs.fileno(), log)
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise Unavailable(f"start shim: {error}") from error
        fds.send(ours, message, list(passed))  # into the empty buffer: it has room
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, _reap, loop, pidfd)


def _reap(loop: asyncio.AbstractEventLoop, pidfd: int) -> None:
    loop.remove_reader(pidfd)
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        pass  # an embedding program that reaps every child was quicker
    os.close(pidfd)
