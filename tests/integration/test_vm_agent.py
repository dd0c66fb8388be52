"""The agent of machines, on this kernel in place of one of its own: what it makes, says and clears.

It runs in a process of its own, which is the subreaper that a first process would be; its ports are
socket pairs.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dockerlab
from sampan.vm.frames import Splitter, document, pack, read_document

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not dockerlab.BUSYBOX, reason="needs root and busybox"
)
SOURCE = Path(__file__).parents[2] / "src"
AGENT = """
import os, sys
from sampan.kernel import process
from sampan.kernel.signals import signal_fd
from sampan.vm import agent, conversation
conversation.SHARE, conversation.CONTAINERS = sys.argv[1], sys.argv[2]
conversation._RUNTIME = conversation._RUNTIME.replace(conversation.HOME, sys.argv[3])
process.set_child_subreaper()
made = agent.Agent()
for fd in map(int, sys.argv[4:]):
    talk = conversation.Conversation(made, fd)
    made.watch(fd, talk.ready, agent._PORT)
agent.PORTS = os.environ["NO_PORTS"]
made.run()
"""


class Talk:
    """The node's end of one port."""

    def __init__(self, sock):
        self.sock = sock
        self.splitter = Splitter()
        self.frames = []

    def call(self, **fields):
        """Say a call; its answer."""
        self.sock.sendall(document("C", **fields))
        return read_document(self.wait("R"))

    def wait(self, letter):
        """The first frame of this letter; what came before it stays."""
        while True:
            for frame in self.frames:
                if frame[0] == letter:
                    self.frames.remove(frame)
                    return frame[1]
            data = self.sock.recv(1 << 16)
            assert data, "the agent has ended"
            self.frames.extend(self.splitter.feed(data))

    def end(self):
        """(code, stdout, stderr) when it has ended."""
        code = read_document(self.wait("Q"))["code"]
        said = [b"".join(data for kind, data in self.frames if kind == one) for one in "OX"]
        self.frames.clear()
        return code, *said


@pytest.fixture
def lab(tmp_path):
    share, containers, none = tmp_path / "share", tmp_path / "containers", tmp_path / "none"
    for place in (share, containers, none):
        place.mkdir()
    pairs = [socket.socketpair() for _ in range(3)]
    for _, theirs in pairs:
        theirs.setblocking(False)
    numbers = [theirs.fileno() for _, theirs in pairs]
    words = [str(share), str(containers), str(SOURCE), *map(str, numbers)]
    made = subprocess.Popen(
        [sys.executable, "-c", AGENT, *words],
        pass_fds=numbers,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "NO_PORTS": str(none)},
    )
    for _, theirs in pairs:
        theirs.close()
    talks = [Talk(ours) for ours, _ in pairs]
    for ours, _ in pairs:
        ours.settimeout(30)
    yield share, containers, talks
    for ours, _ in pairs:
        ours.close()
    made.terminate()
    assert made.wait() == -signal.SIGTERM
    assert not os.listdir(containers)


def config(name, *args, terminal=False):
    """An OCI configuration, in a cgroup of the tests."""
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "args": args,
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
            "terminal": terminal,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"],
            },
        ],
        "linux": {
            "cgroupsPath": f"/sampan-test/agent-{os.getpid()}-{name}",
            "namespaces": [{"type": "mount"}, {"type": "pid"}],
        },
    }


def create(lab, talk, name, *args, **more):
    """A container that waits for its start."""
    share = lab[0]
    dockerlab.make_root(share / name / "rootfs")
    wanted = config(name, *args, **more)
    terminal = more.get("terminal", False)
    return talk.call(op="create", id=name, config=wanted, terminal=terminal, stdin=True)


def test_a_container_from_create_to_its_end(lab):
    talk, other, _ = lab[2]
    script = "echo out; echo err >&2; echo mine > /own; read word; echo $word; exit 7"
    assert create(lab, talk, "one", "sh", "-c", script)["pid"] > 0
    assert talk.call(op="start") == {}
    spec = {"args": ["sh", "-c", "cat /own; exit 5"], "cwd": "/", "env": ["PATH=/bin"]}
    spec["user"] = {"uid": 0, "gid": 0}
    while True:  # until the first process has come so far
        assert other.call(op="exec", id="one", process=spec, stdin=False)["pid"] > 0
        code, said, _ = other.end()
        if said == b"mine\n":
            break
    assert code == 5
    counted = other.call(op="counters", cgroup=config("one")["linux"]["cgroupsPath"])
    assert counted["pids"]["current"] == 1
    assert 0 < counted["memory"]["usage"] < counted["memory"]["limit"] < 1 << 60
    assert "error" in other.call(op="counters", cgroup="../one")
    talk.sock.sendall(pack("I", b"word\n") + pack("E"))
    assert talk.end() == (7, b"out\nword\n", b"err\n")
    assert not (lab[0] / "one/rootfs/own").exists()  # what is shared stays as it was
    assert not os.listdir(lab[1])


def test_what_cannot_be_executed(lab):
    talk = lab[2][0]
    answer = create(lab, talk, "one", "/nosuch")
    if "error" not in answer:
        answer = talk.call(op="start")
    assert "nosuch" in answer["error"]


def test_much_goes_both_ways(lab):
    talk = lab[2][0]
    create(lab, talk, "one", "cat")
    talk.call(op="start")
    talk.sock.settimeout(60)
    data = os.urandom(1 << 16) * 48
    received = bytearray()
    talk.sock.setblocking(False)
    waiting = bytearray()
    for start in range(0, len(data), 1 << 15):
        waiting += pack("I", data[start : start + (1 << 15)])
    waiting += pack("E")
    code = None
    deadline = time.monotonic() + 50
    while code is None and time.monotonic() < deadline:
        try:
            if waiting:
                del waiting[: talk.sock.send(waiting[: 1 << 16])]
        except BlockingIOError:
            pass
        try:
            for letter, content in talk.splitter.feed(talk.sock.recv(1 << 16)):
                if letter == "O":
                    received += content
                elif letter == "Q":
                    code = read_document(content)["code"]
        except BlockingIOError:
            pass
    assert code == 0
    assert bytes(received) == data


def test_a_terminal_and_a_signal(lab):
    talk = lab[2][0]
    script = "stty size; while true; do sleep 1; done"
    assert "pid" in create(lab, talk, "one", "sh", "-c", script, terminal=True)
    talk.sock.sendall(document("W", height=31, width=77))
    talk.call(op="start")
    assert talk.wait("O").startswith(b"31 77")
    talk.sock.sendall(document("S", sig=9))
    assert talk.end()[0] == 137


def test_whoever_leaves_takes_along_what_was_called(lab):
    talk, other, _ = lab[2]
    create(lab, talk, "one", "sleep", "1000")
    talk.call(op="start")
    pid = other.call(
        op="exec",
        id="one",
        process={
            "args": ["sleep", "999"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
        },
        stdin=False,
    )["pid"]
    other.sock.shutdown(socket.SHUT_RDWR)
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.01)
    talk.sock.sendall(document("S", sig=15))
    talk.sock.sendall(document("S", sig=9))
    assert talk.end()[0] == 137
