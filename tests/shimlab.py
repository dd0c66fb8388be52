"""A laboratory for shims: a spawner of our own, launches, and what the shims say.

`Lab(directory)` starts a spawner with the runtime of `fakeruntime`: plain processes of the host in
the place of containers, so neither root nor namespaces are needed; its patience is short, so that
tests of deadlines are quick. `Lab(directory, real=True)` has the real runtime and patience. Every
wait ends after TIMEOUT seconds with a failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sampan.shim.exits import parse_kept

TIMEOUT = 20.0
SOURCE = Path(__file__).resolve().parent.parent / "src"

_FAKE = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import fakeruntime
from sampan.shim import monitor, peers, spawner, stdio
peers.PATIENCE, stdio.QUIET, stdio.LIMIT, monitor.LINGER = 1.0, 0.2, 1.0, 3.0
spawner.serve(3, fakeruntime.runtime())
"""
_REAL = """
import sys
sys.path.insert(0, sys.argv[1])
from sampan.shim.spawner import main
main(3)
"""

Event = dict[str, Any]


def receive(sock: socket.socket, seconds: float = TIMEOUT) -> Event | None:
    """One message; None at the end of the stream."""
    ready, _, _ = select.select([sock], [], [], seconds)
    assert ready, "nothing came from the shim in time"
    try:
        data = sock.recv(1 << 20)
    except ConnectionResetError:
        return None
    return json.loads(data) if data else None


def read_to_end(sock: socket.socket) -> bytes:
    """Everything up to the end of a peer's stream."""
    sock.settimeout(TIMEOUT)
    out = b""
    while data := sock.recv(1 << 16):
        out += data
    return out


def read_until(sock: socket.socket, wanted: bytes) -> bytes:
    """What a peer reads until `wanted` is in it."""
    sock.settimeout(TIMEOUT)
    out = b""
    while wanted not in out:
        data = sock.recv(1 << 16)
        assert data, f"the stream ended before {wanted!r}: {out!r}"
        out += data
    return out


def wait_for(what: str, condition: Any) -> None:
    """Poll until `condition()` is true."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def children(pid: int) -> list[int]:
    """The children of a process; none of one that has gone."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for word in text.split()]


def name_of(pid: int) -> str:
    """The name that ps shows; empty for a process that has gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def unframe(data: bytes) -> dict[int, bytes]:
    """Docker's frames, joined by stream."""
    streams: dict[int, bytes] = {}
    while data:
        assert data[1:4] == b"\0\0\0"
        size = int.from_bytes(data[4:8], "big")
        assert len(data) >= 8 + size
        streams[data[0]] = streams.get(data[0], b"") + data[8 : 8 + size]
        data = data[8 + size :]
    return streams


class Shim:
    """The engine's end of one shim."""

    def __init__(self, lab: Lab, sock: socket.socket, directory: Path) -> None:
        self.lab = lab
        self.sock = sock
        self.directory = directory
        self.events: list[Event] = []
        self._number = 0

    def next_event(self, name: str) -> Event:
        """Wait for the event `name`; others are kept in `events`."""
        for index, event in enumerate(self.events):
            if event["event"] == name:
                return self.events.pop(index)
        while True:
            message = receive(self.sock)
            if message is None and name == "exit":
                return {"event": "exit", **self.record()}  # a keeper says no more
            assert message is not None, f"the shim went away before {name}: {self.events}"
            if message.get("event") == name:
                return message
            self.events.append(message)

    def call(self, op: str, fds: tuple[int, ...] = (), **fields: Any) -> Event:
        """Ask, and return the reply."""
        self._number += 1
        data = json.dumps({"re": self._number, "op": op, **fields}).encode()
        socket.send_fds(self.sock, [data], list(fds))
        while True:
            message = receive(self.sock)
            assert message is not None, f"the shim went away before the answer to {op}"
            if message.get("re") == self._number:
                return message
            self.events.append(message)

    def attach(self, **fields: Any) -> socket.socket:
        """Attach a new peer; our end of it."""
        ours, theirs = self.lab.pair()
        with theirs:
            answer = self.call("attach", (theirs.fileno(),), **fields)
        assert answer.get("ok"), answer
        return ours

    def ended(self) -> None:
        """Wait until the shim has closed its end."""
        while (message := receive(self.sock)) is not None:
            self.events.append(message)

    def log(self) -> list[Event]:
        """The records of the log."""
        path = self.directory / "container.log"
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def record(self) -> Event:
        """The exit record, of a monitor or of a keeper."""
        try:
            return json.loads((self.directory / "exit.json").read_bytes())
        except FileNotFoundError:
            return parse_kept((self.directory / "exit").read_bytes())

    def state(self) -> Event:
        """The state record."""
        return json.loads((self.directory / "state.json").read_bytes())

    def reconnect(self) -> Shim:
        """Another engine's connection to the same shim."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.lab.opened.append(sock)
        fd = os.open(self.directory, os.O_PATH)
        try:
            sock.connect(f"/proc/self/fd/{fd}/shim.sock")
        finally:
            os.close(fd)
        return Shim(self.lab, sock, self.directory)


class Lab:
    """A spawner and the shims it forked."""

    def __init__(self, directory: Path, *, real: bool = False) -> None:
        self.directory = directory
        self._count = 0
        self.opened: list[socket.socket] = []
        self._shims: list[Shim] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock = ours
        self.log = (directory / "spawner.log").open("wb")
        with theirs:
            self.spawner = subprocess.Popen(
                [
                    *_interpreter(theirs.fileno(), real=real),
                    str(SOURCE),
                    str(Path(__file__).parent),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.log,
            )

    def pair(self, kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets, closed with the lab at the latest."""
        pair = socket.socketpair(socket.AF_UNIX, kind)
        self.opened += pair
        return pair

    def launch(self, *args: str, attach: Any = (), **fields: Any) -> Shim:
        """Launch a container of `args`; `attach` pairs entries with the descriptors of peers."""
        self._count += 1
        directory = self.directory / f"shim{self._count}"
        directory.mkdir()
        fields.setdefault("spec", self.spec(*args, terminal=fields.pop("terminal", False)))
        message = {
            "v": 1,
            "op": "launch",
            "id": f"test{os.getpid()}x{self._count}",
            "dir": str(directory),
            "log": {"driver": "json-file", "path": str(directory / "container.log")},
            "attach": [entry for entry, _ in attach],
            **fields,
        }
        ours, theirs = self.pair(socket.SOCK_SEQPACKET)
        with theirs:
            peers = [fd for _, fd in attach]
            socket.send_fds(self.sock, [json.dumps(message).encode()], [theirs.fileno(), *peers])
        shim = Shim(self, ours, directory)
        self._shims.append(shim)
        return shim

    def launch_attached(self, *args: str, **fields: Any) -> tuple[Shim, socket.socket]:
        """Launch with one peer for all streams; entries of the peer start with `peer_`."""
        peer = {key[5:]: fields.pop(key) for key in list(fields) if key.startswith("peer_")}
        entry = {"stdin": True, "stdout": True, "stderr": True, "framing": "raw"} | peer
        ours, theirs = self.pair()
        with theirs:
            shim = self.launch(*args, attach=[(entry, theirs.fileno())], **fields)
        return shim, ours

    def spec(self, *args: str, terminal: bool = False) -> dict[str, Any]:
        """A configuration that runs `args`."""
        return {"process": {"args": list(args), "terminal": terminal}}

    def children(self) -> list[int]:
        """The parents of containers, and the spare ones: the nursery's forks, and keepers."""
        nursery = self.nursery()
        keepers = [pid for pid in children(self.spawner.pid) if pid != nursery]
        return [*keepers, *children(nursery)]

    def nursery(self) -> int:
        """The process that forks shims and monitors; 0 when there is none."""
        named = [pid for pid in children(self.spawner.pid) if name_of(pid) == "sampan-nursery"]
        return named[0] if named else 0

    def spares(self) -> list[int]:
        """What waits for a container when no other is left: three keepers, a shim, and blanks."""
        found: list[int] = []

        def are_there() -> bool:
            parents = self.children()
            blanks = [child for one in parents for child in children(one)]
            found[:] = [*parents, *blanks]
            return (len(parents), len(blanks)) == (4, 4)

        wait_for("the spares are there, alone and complete", are_there)
        return found

    def spare(self) -> tuple[int, int]:
        """The one shim that waits for a container, and its blank child, when no other is left."""
        found: list[tuple[int, int]] = []

        def is_there() -> bool:
            shims = children(self.nursery())
            found[:] = [(one, child) for one in shims for child in children(one)]
            return len(found) == len(shims) == 1

        wait_for("the spare is there, alone and complete", is_there)
        return found[0]

    def complaints(self) -> str:
        """What spawner and shims wrote to their stderr."""
        return (self.directory / "spawner.log").read_text()

    def close(self) -> None:
        """End the spawner, and every init that still runs, which ends its shim."""
        self.sock.close()
        self.spawner.wait(TIMEOUT)
        self.log.close()
        for sock in self.opened:
            sock.close()
        for shim in self._shims:
            with contextlib.suppress(OSError, ValueError):
                state = shim.state()
                if is_running(state["shim_pid"]):
                    os.kill(state["shim_pid"], signal.SIGKILL)
                if is_running(state["pid"]):
                    os.kill(state["pid"], signal.SIGKILL)


def _interpreter(fd: int, *, real: bool) -> list[str]:
    """The spawner's command, with the socket moved to descriptor 3."""
    move = f"import os; os.dup2({fd}, 3, False); os.close({fd})\n" if fd != 3 else ""
    return [sys.executable, "-I", "-S", "-B", "-c", move + (_REAL if real else _FAKE)]
