"""What every command is given: where it was called from, its client, its way to print.

Output is written with `os.write`, unbuffered and in UTF-8 whatever the locale says, so text and the
raw bytes of containers keep their order. `Refused` is a daemon's answer of status 400 or more;
`Exit` ends a command with a code. Neither ever shows a traceback.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.flags import Values
    from sampan.client.address import Address
    from sampan.client.calls import Call
    from sampan.client.sync import Client


class Refused(Exception):
    """The daemon answered with an error; the text is its sentence, after docker's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.message = message


class Failed(Exception):
    """The command cannot go on; the text is all that is printed. `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Command:
    """One command: its usage, its words, the table of its flags, and what runs it."""

    __slots__ = ("interspersed", "least", "most", "names", "options", "run", "summary", "usage")

    def __init__(
        self,
        run: Callable[[Session, Values, list[str]], int],
        usage: str,
        summary: str,
        options: str = "",
        *,
        least: int = 0,
        most: int | None = None,
        names: str = "",
        interspersed: bool = True,
    ) -> None:
        self.run = run
        self.usage = usage
        self.summary = summary
        self.options = options
        self.least = least
        self.most = most
        self.names = names
        self.interspersed = interspersed


def refuse(call: Call, status: int, message: str) -> Exception:
    """What the command line's client raises for an answer of status 400 or more."""
    return Refused(status, message)


def write(fd: int, data: bytes) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Session:
    """One command's surroundings. `path` is the command as it was typed: `sampan image ls`."""

    __slots__ = ("_client", "address", "path")

    def __init__(self, address: Address, path: str) -> None:
        self.address = address
        self.path = path
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The connected client; a daemon is started when none is there.

        Raises:
            Failed: nobody listens.
        """
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> Client:
        from sampan.client.sync import Client

        client = Client(self.address.path, refuse)
        try:
            client.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            if not self.address.may_start:
                raise Failed(_NO_DAEMON.format(self.address.url)) from None
            from sampan.client.launch import connect

            connect(client, self.address)
        except PermissionError:
            raise Failed(_NO_PERMISSION.format(self.address.url)) from None
        return client

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()

    def call(self, call: Call) -> Any:
        """Perform a call."""
        return self.client.call(call)

    def out(self, text: str) -> None:
        """Print a line."""
        write(1, (text + "\n").encode("utf-8", "surrogateescape"))

    def error(self, text: str) -> None:
        """Print a line to standard error."""
        write(2, (text + "\n").encode("utf-8", "surrogateescape"))

    def each(self, refs: list[str], action: Callable[[str], Any]) -> int:
        """Do `action` to each of `refs` and print it; errors are printed at the end of the line."""
        code = 0
        for ref in refs:
            try:
                action(ref)
                self.out(ref)
            except Refused as error:
                self.error(str(error))
                code = 1
        return code


_NO_DAEMON = "Cannot connect to the Sampan daemon at {}. Is the sampan daemon running?"
_NO_PERMISSION = (
    "permission denied while trying to connect to the Sampan daemon socket at {}: "
    "connect: permission denied"
)
