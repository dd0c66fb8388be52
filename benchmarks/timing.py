"""How things are timed: rows of figures, commands run by a small process, a plain API client.

A `Row` holds every value that was taken of one case; nothing is dropped. Cases of one figure are
taken in turns (`interleave`), so that a noisy minute hits all of them; a turn of the API's figures
is a few in a row, as an idle machine with one busy client has it. A `Runner` is a process of
its own that starts commands by vfork and waits for them: what it costs does not depend on the size
of the benchmark's process. One of two runners has the v2 tree of a hybrid machine hidden, because
crun refuses that mode.
"""

from __future__ import annotations

import json
import os
import select
import socket
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.client.http import Reader, request
from sampan.kernel import mounts, namespaces
from sampan.kernel import numbers as n

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

BURST = 4  # values of a turn of the API's figures, behind one that is not kept
V2_TREE = "/sys/fs/cgroup/unified"
_MESSAGE = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All values of one case of one figure."""

    figure: str
    case: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def document(self) -> dict[str, Any]:
        """The row as JSON has it."""
        return {
            "figure": self.figure,
            "case": self.case,
            "unit": self.unit,
            "median": round(self.median, 3),
            "min": round(min(self.values), 3),
            "max": round(max(self.values), 3),
            "values": [round(value, 3) for value in self.values],
        }


def interleave(
    cases: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1, burst: int = 0
) -> dict[str, list[float]]:
    """Every case once per round; the first `warm` rounds are not kept.

    With `burst` a turn is so many in a row, behind one that is not kept: the case before it has
    still something to do when it has answered, and has taken the caches.
    """
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + warm):
        for name, case in cases.items():
            if burst:
                case()
            values = [case() for _ in range(burst or 1)]
            if number >= warm:
                taken[name] += values
    return taken


def rows(figure: str, unit: str, taken: Mapping[str, Sequence[float]]) -> list[Row]:
    """The rows of one figure."""
    return [
        Row(figure=figure, case=case, unit=unit, values=tuple(values))
        for case, values in taken.items()
    ]


class Failed(Exception):
    """A command or a request that should have succeeded did not."""


class Runner:
    """A process that runs commands and times them."""

    def __init__(self, environ: Mapping[str, str], *, hide_v2: bool = False) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.closerange(3, theirs.fileno())  # another runner's end must not live on here
                os.closerange(theirs.fileno() + 1, 1 << 16)
                _serve(theirs, dict(environ), hide_v2)
            finally:
                os._exit(0)
        theirs.close()

    def __call__(self, argv: Sequence[str], *, check: bool = True) -> float:
        """Run `argv` to its end; the milliseconds that it took.

        Raises:
            Failed: it ended with another code than 0, unless `check` is false.
        """
        self._channel.send(json.dumps(list(argv)).encode())
        answer = json.loads(self._channel.recv(_MESSAGE))
        if check and answer["code"]:
            raise Failed(f"{' '.join(argv)}: code {answer['code']}: {answer['error']}")
        return float(answer["ms"])

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        os.waitpid(self.pid, 0)


def _serve(channel: socket.socket, environ: dict[str, str], hide_v2: bool) -> None:
    """Run what arrives until the other side closes."""
    if hide_v2 and os.path.ismount(V2_TREE):
        namespaces.unshare(n.CLONE_NEWNS)
        mounts.unmount(V2_TREE)
    while data := channel.recv(_MESSAGE):
        try:
            answer = _run(json.loads(data), environ)
        except OSError as error:
            answer = {"ms": 0.0, "code": 127, "error": str(error)}
        channel.send(json.dumps(answer).encode())


def _run(argv: list[str], environ: dict[str, str]) -> dict[str, Any]:
    errors = os.memfd_create("errors")
    null = os.open("/dev/null", os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate((null, null, errors))]
    try:
        begin = time.perf_counter()
        pid = os.posix_spawnp(argv[0], argv, environ, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        end = time.perf_counter()
        code = os.waitstatus_to_exitcode(status)
        text = os.pread(errors, 2000, 0).decode("utf-8", "replace") if code else ""
    finally:
        os.close(errors)
        os.close(null)
    return {"ms": (end - begin) * 1e3, "code": code, "error": text}


class Api:
    """One client on one open connection to an engine's socket."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = _connect(path)
        self._reader = Reader()

    def call(self, method: str, target: str, body: object = None) -> Any:
        """One request; the decoded body.

        Raises:
            Failed: the status is 400 or more.
        """
        _send(self._socket, method, target, body)
        data = _answer(self._socket, self._reader, method, target)
        return json.loads(data) if data else None

    def stream(self, method: str, target: str, body: object = None) -> bytes:
        """One request on a connection of its own whose answer lasts until the engine closes it."""
        with _connect(self.path) as connection:
            _send(connection, method, target, body)
            return _answer(connection, Reader(), method, target)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(120)
    connection.connect(path)
    return connection


def _send(connection: socket.socket, method: str, target: str, body: object) -> None:
    content = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    connection.sendall(request(method, target, headers, content))


def _answer(connection: socket.socket, reader: Reader, method: str, target: str) -> bytes:
    reader.begin(method)
    while not reader.head():
        reader.feed(connection.recv(65536))
    parts = []
    while (piece := reader.piece()) != b"":
        if piece is None:
            reader.feed(connection.recv(65536))
        else:
            parts.append(piece)
    if reader.status >= 400:
        raise Failed(f"{method} {target}: {reader.status} {b''.join(parts).decode()}")
    return b"".join(parts)


class Process:
    """A daemon that we started, to be waited for and ended by its own descriptor."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], log: str) -> None:
        self.log = log
        with open(log, "ab") as output:
            self._popen = subprocess.Popen(
                argv, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.pid = self._popen.pid

    def wait_until(self, ready: Callable[[], object], patience: float = 60.0) -> None:
        """Return when `ready` raises no OSError any more.

        Raises:
            Failed: the daemon ended, or it took too long.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                ready()
            except OSError:
                if self._popen.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"{self._popen.args}: see {self.tail()}") from None
                time.sleep(0.02)
            else:
                return

    def tail(self) -> str:
        """The end of what it logged."""
        with open(self.log, "rb") as log:
            return log.read()[-2000:].decode("utf-8", "replace")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 20 s."""
        descriptor = os.pidfd_open(self.pid)
        try:
            self._popen.terminate()
            if not select.select([descriptor], [], [], 20)[0]:
                self._popen.kill()
            self._popen.wait()
        finally:
            os.close(descriptor)
