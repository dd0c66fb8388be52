"""A foreign OCI runtime: a program with runc's command line, called for one container.

    create -> start -> exec ... -> delete
    restore --------> exec ... -> delete

Everything is below the container's own directory: the bundle, the program's state (`--root`), its
log, its pid files. The first process becomes our child, for we are the subreaper of what `create`
leaves behind. What went wrong is in the program's log, as JSON lines; a command that is not there
is told as our own runtime tells it (ENOENT, EACCES without an operation), so that exit codes do
not depend on the handler.
"""

from __future__ import annotations

import _socket
import errno
import os
from json import dumps, loads

from sampan.kernel import fds as descriptors
from sampan.kernel import process
from sampan.runtime.failure import RuntimeFailure

PATIENCE = 60
"""Seconds that the program has to hand over a terminal."""

MAX_LOG = 64 * 1024
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_LOG = "runtime.log"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    Stdio = tuple[int, int, int]


class Process:
    """A process that the program has made. `master` is -1 without a terminal."""

    __slots__ = ("master", "pid", "pidfd")

    def __init__(self, pid: int, master: int) -> None:
        self.pid = pid
        self.pidfd = process.pidfd_open(pid)
        self.master = master


class Program:
    """The program for the container `name` in the current directory, which is its bundle."""

    __slots__ = ("_count", "_handler", "_name", "_path", "_words")

    def __init__(self, program: list[str], name: str, handler: str = "") -> None:
        """`program` is a path, and words that come before all others.

        `handler` is what errors call it, the path's last part if it is "".
        """
        self._path, *self._words = program
        self._handler = handler or os.path.basename(self._path)
        self._name = name
        self._count = 0

    def create(self, stdio: Stdio, *, terminal: bool) -> Process:
        """Make the container of `config.json`; its first process waits for `start`.

        Raises:
            RuntimeFailure: the program's own words.
        """
        words = ["create", "--bundle", ".", "--pid-file", "init.pid"]
        return self._make(words, [self._name], "init.pid", stdio, terminal=terminal)

    def restore(self, images: str, stdio: Stdio) -> Process:
        """Make the container of `config.json` as it was when `images` were made; it runs.

        Raises:
            RuntimeFailure: the program's own words.
        """
        words = ["restore", "--detach", "--bundle", ".", "--pid-file", "init.pid"]
        words += ["--image-path", images, "--work-path", "restore"]
        words += ["--file-locks", "--tcp-established", "--ext-unix-sk"]
        return self._make(words, [self._name], "init.pid", stdio, terminal=False)

    def start(self) -> None:
        """Execute the container's command. Raises RuntimeFailure."""
        self._run(["start", self._name])

    def spawn(self, process_spec: dict[str, Any], stdio: Stdio) -> Process:
        """One more process in the container. Raises RuntimeFailure."""
        self._count += 1
        name = f"exec{self._count}"
        with open(f"{name}.json", "w", encoding="utf-8") as file:
            file.write(dumps(process_spec))
        words = ["exec", "--detach", "--process", f"{name}.json", "--pid-file", f"{name}.pid"]
        terminal = bool(process_spec.get("terminal"))
        try:
            return self._make(words, [self._name], f"{name}.pid", stdio, terminal=terminal)
        finally:
            for ending in ("json", "pid"):
                _unlink(f"{name}.{ending}")

    def kill(self, number: int) -> None:
        """A signal for its first process. Raises RuntimeFailure."""
        self._run(["kill", self._name, str(number)])

    def delete(self) -> None:
        """Remove what the program keeps of the container. Raises RuntimeFailure."""
        self._run(["delete", "--force", self._name])

    def _make(
        self, words: list[str], last: list[str], pid_file: str, stdio: Stdio, *, terminal: bool
    ) -> Process:
        master = -1
        if terminal:
            with _Console() as console:
                self._run([*words, "--console-socket", console.path, *last])
                master = console.receive()
        else:
            self._run([*words, *last], stdio)
        with open(pid_file, encoding="ascii") as file:
            pid = int(file.read(20))
        return Process(pid, master)

    def _run(self, words: list[str], stdio: Stdio = (-1, -1, -1)) -> None:
        """Run the program to its end. It gets `stdio`, and /dev/null in place of -1."""
        _unlink(_LOG)
        argv = [self._path, *self._words, "--root", os.path.abspath("runtime")]
        argv += ["--log", os.path.abspath(_LOG), "--log-format", "json", *words]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            actions = [
                (os.POSIX_SPAWN_DUP2, null if fd < 0 else fd, number)
                for number, fd in enumerate(stdio)
            ]
            pid = os.posix_spawn(
                self._path, argv, _ENVIRONMENT, file_actions=actions, setsigmask=()
            )
        except OSError as error:
            raise RuntimeFailure(
                error.errno or errno.EIO, f"{self._path}: {error.strerror}", words[0]
            ) from error
        finally:
            os.close(null)
        _, status = os.waitpid(pid, 0)
        if status:
            raise _failure(words[0], self._handler, status)


class _Console:
    """The socket that a terminal's master comes through."""

    def __init__(self) -> None:
        self.path = "console.sock"
        _unlink(self.path)
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._sock.bind(self.path)
        self._sock.listen(1)
        self._sock.settimeout(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        _unlink(self.path)

    def receive(self) -> int:
        """The master; the program sends its name along."""
        fd, _ = self._sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        peer = _socket.socket(-1, -1, -1, fd)
        try:
            peer.settimeout(PATIENCE)
            _, received = descriptors.receive(peer, 4096)
        finally:
            peer.close()
        if not received:
            raise OSError(errno.EPROTO, "receive terminal: no descriptor came")
        return received[0]


def _failure(what: str, program: str, status: int) -> RuntimeFailure:
    """What the log says, newest line of the gravest."""
    text = ""
    try:
        with open(_LOG, encoding="utf-8", errors="replace") as file:
            lines = file.read(MAX_LOG).splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            entry = loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            text = str(entry.get("msg"))
    text = text or f"{program} {what} ended with status {status}"
    if "executable file not found" in text or "no such file or directory" in text.lower():
        return RuntimeFailure(errno.ENOENT, f"{program}: {text}", "")
    if "permission denied" in text.lower():
        return RuntimeFailure(errno.EACCES, f"{program}: {text}", "")
    return RuntimeFailure(errno.EIO, f"{program}: {text}", what)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
