"""Where the daemon listens: flags first, then the environment, then the fixed places.

`SAMPAN_HOST` or a host names a socket (`unix:///path`) and means that somebody else sees to it that
a daemon is there. Without it the socket lies in the state directory (`SAMPAN_STATE`, else
`/run/sampan` for root and `$XDG_RUNTIME_DIR/sampan` for others), and a daemon may be started on
demand.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument

SOCKET = "docker.sock"


class Address:
    """A socket's path; `may_start` when a daemon may be started behind it."""

    __slots__ = ("config", "may_start", "path", "root", "state")

    def __init__(
        self, path: str, *, may_start: bool = False, root: str = "", state: str = "",
        config: str = "",
    ) -> None:  # fmt: skip
        self.path = path
        self.may_start = may_start
        self.root = root
        self.state = state
        self.config = config

    @property
    def url(self) -> str:
        """The address as it is written in flags and messages."""
        return "unix://" + self.path


def default_state() -> str:
    """The directory of sockets and records of the running system."""
    state = os.environ.get("SAMPAN_STATE")
    if state:
        return os.path.abspath(state)
    if os.geteuid() == 0:
        return "/run/sampan"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return os.path.join(runtime, "sampan")


def parse_host(host: str) -> str:
    """The path in a host.

    Raises:
        InvalidArgument: it is not the address of a unix socket.
    """
    path = host.removeprefix("unix://")
    if not path.startswith("/"):
        raise InvalidArgument(f"unable to parse host {host!r}: only unix:///path is supported")
    return path


def resolve(host: str = "", *, root: str = "", state: str = "", config: str = "") -> Address:
    """The daemon to talk to; empty arguments mean environment or default."""
    host = host or ("" if state else os.environ.get("SAMPAN_HOST", ""))
    if host:
        return Address(parse_host(host))
    state = os.path.abspath(state) if state else default_state()
    root = root or os.environ.get("SAMPAN_ROOT", "")
    config = config or os.environ.get("SAMPAN_CONFIG", "")
    path = os.path.join(state, SOCKET)
    return Address(path, may_start=True, root=root, state=state, config=config)
