"""The docker command line at a real terminal: sizes, keys, attach, logs that follow."""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import subprocess
import termios
import time

import pytest

import dockerlab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI"),
]


FORMAT = ("--format", "{{json .}}")


class Terminal:
    """A docker command whose standard streams are a terminal of ours."""

    def __init__(self, daemon, *words, rows=30, columns=100):
        self.ours, theirs = os.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            [dockerlab.DOCKER, *words],
            env={**daemon.environ, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - a test
        )
        os.close(theirs)
        self.seen = b""

    def resize(self, rows, columns):
        """Change the size; the kernel tells the command."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys):
        """Press keys."""
        os.write(self.ours, keys)

    def wait_for(self, text):
        """Read until `text` has come, and forget everything up to it; what came before."""
        end = time.monotonic() + dockerlab.PATIENCE
        while text not in self.seen:
            ready, _, _ = select.select([self.ours], [], [], end - time.monotonic())
            assert ready, self.seen
            try:
                self.seen += os.read(self.ours, 4096)
            except OSError:
                raise AssertionError(self.seen) from None
        before, _, self.seen = self.seen.partition(text)
        return before

    def end(self):
        """Its exit code, when it ends."""
        code = self.process.wait(dockerlab.PATIENCE)
        os.close(self.ours)
        return code


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        made.exchange("POST", "/images/create?fromSrc=-&repo=bb:1&changes=CMD+sh", tar)
        yield made


READER = 'while read -r line; do eval "$line"; done'
"""A shell that leaves lines to the terminal: busybox's own editor sets the terminal anew for each,
and looks at a change of its size in between."""


def test_sizes_keys_and_the_way_back(daemon):
    """run -it, resize, leave with Ctrl-P Ctrl-Q, attach again, exit."""
    screen = Terminal(daemon, "run", "-it", "--name", "screen", "bb:1", "sh", "-c", READER)
    screen.type(b"stty size; echo s''aid\n")
    screen.wait_for(b"30 100\r\n")
    screen.wait_for(b"said")
    told = b""
    while b"40 120" not in told:  # the size travels by another connection than the keys
        # Again and again: docker looks at the size once and listens for changes a moment later.
        screen.resize(41, 121)
        screen.resize(40, 120)
        screen.type(b"stty size; echo m''ark\n")
        told = screen.wait_for(b"mark")
    screen.type(b"\x10\x11")
    assert screen.end() == 0
    assert daemon.docker("inspect", "-f", "{{.State.Running}}", "screen").out == "true\n"
    again = Terminal(daemon, "attach", "screen")
    again.type(b"echo b''ack\n")
    again.wait_for(b"back")
    again.type(b"exit 7\n")
    assert again.end() == 7
    daemon.docker("rm", "screen")


def test_an_exec_with_a_terminal_and_keys_of_its_own(daemon):
    daemon.docker("run", "-d", "--name", "worker", "bb:1", "sleep", "1000")
    words = ("exec", "-it", "--detach-keys", "ctrl-a,x", "worker", "sh")
    screen = Terminal(daemon, *words, rows=11, columns=22)
    screen.type(b"stty size; tty\n")
    screen.wait_for(b"11 22\r\n")
    screen.wait_for(b"/dev/pts/")
    screen.type(b"\x01x")
    screen.end()
    assert daemon.docker("top", "worker").out.count("sh\n") == 1  # it goes on
    daemon.docker("rm", "-f", "worker")


def test_logs_follow_over_rotations(daemon):
    """Every line once and in order, although the file was replaced again and again."""
    count = 6000
    script = f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo a line that is number $i; done"
    made = daemon.docker(
        *("run", "-d", "--log-opt", "max-size=64k", "--log-opt", "max-file=20", "bb:1"),
        *("sh", "-c", f"sleep 1; {script}"),
    )
    name = made.out.strip()
    followed = daemon.docker("logs", "-f", name)
    assert followed.lines == [f"a line that is number {number + 1}" for number in range(count)]
    assert daemon.docker("logs", "--tail", "2", name).lines[-1] == followed.lines[-1]
    daemon.docker("rm", name)


def test_streams_of_events_and_statistics(daemon):
    told = subprocess.Popen(
        [dockerlab.DOCKER, *"events --since 60s --filter container=counted".split(), *FORMAT],
        env=daemon.environ,
        stdout=subprocess.PIPE,
    )
    daemon.docker("run", "-d", "--name", "counted", "bb:1", "sleep", "1000")
    seen = []
    while not seen or seen[-1] != "start":
        event = json.loads(told.stdout.readline())
        assert event["Actor"]["Attributes"]["name"] == "counted"
        assert event["Type"] == "container"
        seen.append(event["Action"])
    assert seen == ["create", "start"]
    numbers = subprocess.Popen(
        [dockerlab.DOCKER, "stats", "--format", "{{.Name}} {{.PIDs}}", "counted"],
        env=daemon.environ,
        stdout=subprocess.PIPE,
    )
    line = b""
    while b"counted 1" not in line:
        line = numbers.stdout.readline()
        assert line
    for stream in (numbers, told):
        stream.kill()
        stream.wait(dockerlab.PATIENCE)
        stream.stdout.close()
    daemon.docker("rm", "-f", "counted")
