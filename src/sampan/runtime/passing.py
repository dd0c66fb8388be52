"""Descriptors that go into the container, and those that go to another program.

`--preserve-fds N` and socket activation (`LISTEN_FDS`, which the service manager sets for us) pass
descriptors from 3 on to the container's process. `--pidfd-socket` gives a pidfd to a listener.
"""

from __future__ import annotations

import _socket
import os
import posix

from sampan.kernel import fds
from sampan.runtime.arguments import Parsed, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FIRST = 3


def preserve(process_spec: dict[str, Any], options: Parsed, *, listen: bool) -> None:
    """Note in `process_spec` how many descriptors it gets, and tell it of activated sockets.

    Raises:
        UsageError: one of those named is not open.
    """
    activated = _activated() if listen else 0
    extra = options.number("preserve-fds")
    for fd in range(_FIRST, _FIRST + activated + extra):
        try:
            os.fstat(fd)
        except OSError as error:
            what = f"preserved-fd {fd - _FIRST - activated} (of {extra})"
            raise UsageError(f"unable to stat {what}: {os.strerror(error.errno or 0)}") from error
    process_spec["preserveFds"] = activated + extra
    if activated:
        environment = [f"LISTEN_FDS={activated}", "LISTEN_PID=1"]
        process_spec["env"] = [*(process_spec.get("env") or []), *environment]


def _activated() -> int:
    """How many sockets were passed to this very process."""
    count, pid = (posix.environ.get(name, b"") for name in (b"LISTEN_FDS", b"LISTEN_PID"))
    if pid != b"%d" % posix.getpid() or not count.isdigit():
        return 0
    return int(count)


def hand_pidfd(path: str, pidfd: int) -> None:
    """Send `pidfd` to the listener of `--pidfd-socket`."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
        fds.send(sock, b"pidfd", [pidfd])
    finally:
        sock.close()
