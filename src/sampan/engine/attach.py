"""Attach: a client's socket is handed to the shim, and the engine is out of the way.

Before the start it is queued and travels with the launch, so that not a byte is missed. With
`logs` the log so far is written to the socket first; what the container prints between the two is
in the log and not repeated.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING

from sampan.engine.logs import LogReader
from sampan.engine.model import Framing, LogQuery, Status
from sampan.engine.start import attach_entry, drop, queue
from sampan.errors import Conflict, DeadlineExceeded, Unavailable
from sampan.tasks.task import TaskFailure

if TYPE_CHECKING:
    from sampan.engine.containers import Containers, Entry
    from sampan.engine.model import Attachment

REPLAY_PATIENCE = 60.0
_HEADER = struct.Struct(">BxxxI")
_STREAMS = {"stdout": 1, "stderr": 2}


async def attach(containers: Containers, entry: Entry, attachment: Attachment) -> None:
    """See Engine.attach; owns the descriptor from here on."""
    try:
        _check(entry)
        if attachment.logs:
            async with asyncio.timeout(REPLAY_PATIENCE):
                await _replay(entry, attachment)
    except TimeoutError as error:
        os.close(attachment.fd)
        raise DeadlineExceeded(
            f"attach to container {entry.id}: the client reads no log"
        ) from error
    except BaseException:
        os.close(attachment.fd)
        raise
    if not attachment.stream:
        os.close(attachment.fd)
        return
    containers.emit(entry, "attach")
    if entry.container.status is not Status.RUNNING:
        queue(entry, (attachment,))
        return
    await _hand_over(entry, attachment)


def _check(entry: Entry) -> None:
    container = entry.container
    if container.status is Status.PAUSED:
        raise Conflict(f"container {container.name} is paused, unpause the container before attach")
    if container.status is Status.RESTARTING:
        raise Conflict(
            f"container {container.name} is restarting, wait until the container is running"
        )


async def _hand_over(entry: Entry, attachment: Attachment) -> None:
    try:
        if entry.task is None:
            raise Unavailable(f"container {entry.id}: its monitor is gone")
        await entry.task.call("attach", (attachment.fd,), **attach_entry(attachment))
    except TaskFailure as failure:
        raise Conflict(f"attach to container {entry.container.name}: {failure}") from failure
    finally:
        drop((attachment,))


async def _replay(entry: Entry, attachment: Attachment) -> None:
    query = LogQuery(stdout=attachment.stdout, stderr=attachment.stderr)
    loop = asyncio.get_running_loop()
    sock = socket.socket(fileno=attachment.fd)
    try:
        sock.setblocking(False)
        async for record in LogReader(entry.container.log_path).read(query):
            data = record.data
            if attachment.framing is Framing.MULTIPLEXED:
                data = _HEADER.pack(_STREAMS[record.stream], len(data)) + data
            await loop.sock_sendall(sock, data)
    except OSError:
        return  # the client is gone; the shim will see that too
    finally:
        sock.detach()
