"""Starts the daemon on demand, when nobody listens at the default socket.

The daemon is forked twice and leads a session of its own, so it outlives the command that started
it; it ends by itself when it has been idle for five minutes. Two commands may do this at the same
moment: the second daemon finds the root locked and ends, and both commands wait for the socket.
A pipe that only the daemon holds open tells when it died; then the last line of its log is quoted.

This is the only fork outside of the kernel side. It happens before the process has a thread.
"""

from __future__ import annotations

import os
import sys
import time

from sampan.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.address import Address
    from sampan.client.sync import Client

IDLE_EXIT = 300
PATIENCE = 30.0
_PIPE = 3
_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split(chr(0x1e)); "
    "import runpy; runpy.run_module('sampan.daemon', run_name='__main__', alter_sys=True)"
)


def absent(error: OSError) -> bool:
    """Whether connecting failed because no daemon is there."""
    return isinstance(error, (FileNotFoundError, ConnectionRefusedError))


def connect(client: Client, address: Address) -> None:
    """Connect `client`, starting the daemon when it is absent and may be started.

    Raises:
        OSError: the socket refuses, and starting is not ours.
        Unavailable: the daemon did not come up.
    """
    try:
        client.connect()
    except OSError as error:
        if not address.may_start or not absent(error):
            raise
        alive = start(address)
        try:
            _await(client, address, alive)
        finally:
            os.close(alive)


def command(address: Address) -> list[str]:
    """The argument vector of a daemon for `address`."""
    path = chr(0x1E).join(os.path.abspath(entry) for entry in sys.path if entry)
    argv = [sys.executable, "-I", "-S", "-c", _START, path]
    argv += ["--state", address.state, "--idle-exit", str(IDLE_EXIT)]
    if address.root:
        argv += ["--root", os.path.abspath(address.root)]
    if address.config:
        argv += ["--config", os.path.abspath(address.config)]
    return argv


def start(address: Address) -> int:
    """Start a daemon; the descriptor given back reads end of file when it has ended."""
    try:
        os.makedirs(address.state, mode=0o711, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        log = os.open(os.path.join(address.state, "daemon.log"), flags, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot start the sampan daemon: {error}") from error
    argv = command(address)
    alive, held = os.pipe()
    os.set_blocking(alive, False)
    child = os.fork()
    if child == 0:
        _become_daemon(argv, log, held)
    os.close(held)
    os.close(log)
    os.waitpid(child, 0)
    return alive


def _become_daemon(argv: list[str], log: int, held: int) -> None:
    """In the first child: leave the session, fork again, put the descriptors right, execute."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDONLY)
        low = [os.dup2(fd, 64 + at) for at, fd in enumerate((null, log, log, held))]
        for at, fd in enumerate(low):
            os.dup2(fd, at)
        os.closerange(_PIPE + 1, 1 << 20)
        os.execve(argv[0], argv, os.environ)
    except BaseException as error:  # noqa: BLE001, RUF100  a fork of ours must not return
        os.write(2, f"start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(1)


def _await(client: Client, address: Address, alive: int) -> None:
    deadline = time.monotonic() + PATIENCE
    pause, ended = 0.004, False
    while True:
        try:
            client.connect()
            return
        except OSError as error:
            if not absent(error):
                raise
        if ended or time.monotonic() > deadline:
            raise Unavailable(_why(address, ended=ended))
        ended = _ended(alive)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def _ended(alive: int) -> bool:
    try:
        return os.read(alive, 1) == b""
    except BlockingIOError:
        return False


def _why(address: Address, *, ended: bool) -> str:
    log = os.path.join(address.state, "daemon.log")
    what = "it ended" if ended else f"no answer after {PATIENCE:.0f} s"
    last = last_line(log)
    return f"cannot start the sampan daemon: {what}" + (f": {last}" if last else "") + f" ({log})"


def last_line(path: str) -> str:
    """The last line of a log that says something, or nothing."""
    try:
        with open(path, "rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 4096))
            lines = log.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
