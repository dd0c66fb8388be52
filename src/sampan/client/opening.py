"""Which engine the library talks to: one that runs, one that is started, or one in this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.client.address import resolve
from sampan.client.failures import error_for
from sampan.client.launch import absent, connect
from sampan.client.sync import Client
from sampan.errors import PermissionDenied, Unavailable

if TYPE_CHECKING:
    from sampan.client.embedded import Embedded

Path = str | os.PathLike[str] | None


class Opened:
    """A socket to talk to, and the embedded engine behind it, if it is one."""

    def __init__(self, path: str, embedded: Embedded | None = None) -> None:
        self.path = path
        self._embedded = embedded

    def close(self) -> None:
        """End the embedded engine."""
        if self._embedded is not None:
            self._embedded.close()


def choose(root: Path, host: str | None, embedded: bool | None, state: Path) -> Opened | None:  # noqa: FBT001, RUF100
    """The running engine to talk to; None when one is to be embedded.

    Raises:
        Unavailable: a running one was asked for, and nobody listens.
    """
    if embedded or (embedded is None and root is not None and host is None):
        return None
    address = resolve(
        host or "", root=os.fspath(root or ""), state=os.fspath(state or "")
    )  # fmt: skip
    client = Client(address.path, error_for)
    try:
        if embedded is False:
            connect(client, address)
        else:
            client.connect()
    except PermissionError as error:
        raise PermissionDenied(f"connect to {address.url}: permission denied") from error
    except OSError as error:
        if absent(error) and address.may_start and embedded is None:
            return None
        raise Unavailable(f"connect to {address.url}: {error.strerror or error}") from error
    client.close()
    return Opened(address.path)


def embed(root: Path, state: Path, config: Path = None) -> Opened:
    """Start an engine in this process."""
    from sampan.client.embedded import Embedded

    engine = Embedded(os.fspath(root or ""), os.fspath(state or ""), os.fspath(config or ""))
    return Opened(engine.path, engine)
