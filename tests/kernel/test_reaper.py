"""The small init, run as a program: what it passes on, what it reaps, how it finds a command."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.kernel import reaper

pytestmark = pytest.mark.skipif(not reaper.is_available(), reason="not for this machine")


@pytest.fixture
def init(tmp_path: Path) -> str:
    path = tmp_path / "init"
    path.write_bytes(reaper.image())
    path.chmod(0o755)
    return str(path)


def run(*command: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, **more)


def test_codes(init: str, tmp_path: Path):
    assert run(init, "sh", "-c", "exit 9").returncode == 9
    assert run(init, "--", "sh", "-c", "kill -9 $$").returncode == 137
    (tmp_path / "plain").write_text("no program")
    for command, code in (
        ("nosuch", 127),
        (str(tmp_path / "nosuch"), 127),
        (str(tmp_path / "plain"), 126),
        (str(tmp_path), 126),
    ):
        ended = run(init, command)
        assert ended.returncode == code, ended
        assert ended.stderr == f"sampan-init: cannot execute {command}\n"
    assert run(init).returncode == 127


def test_the_path_is_searched_as_by_a_shell(init: str, tmp_path: Path):
    for folder, word in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        tool = tmp_path / folder / "tool"
        tool.write_text(f"#!/bin/sh\necho {word} $1\n")
        tool.chmod(0o755)
    both = f"/nosuch:{tmp_path}/a/tool:{tmp_path}/a:{tmp_path}/b"
    assert run(init, "tool", "x", env={"X": "1", "PATH": both}).stdout == "first x\n"
    (tmp_path / "a/tool").chmod(0o644)
    assert run(init, "tool", "y", env={"PATHS": "z", "PATH": both}).stdout == "second y\n"
    only = {"PATH": f"{tmp_path}/a"}
    assert run(init, "tool", env=only).returncode == 126
    here = {"PATH": ":/nosuch"}
    assert run(init, "tool", env=here, cwd=tmp_path / "b").stdout == "second\n"
    assert run(init, "tool", env={}).returncode == 127
    long = {"PATH": "/" + "x" * 20000}
    assert run(init, "tool", env=long).returncode == 127
    assert run(init, "t" * 20000, env={"PATH": "/bin"}).returncode == 127


def test_every_signal_is_passed_on_and_the_child_has_none_blocked(init: str):
    script = """
import os, signal, sys
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
numbers = list(map(int, sys.argv[1:]))
signal.pthread_sigmask(signal.SIG_SETMASK, numbers)
os.write(1, b"r")
got = {signal.sigwait(numbers) for _ in numbers}
sys.exit(0 if got == set(numbers) else 1)
"""
    # Not the two that nobody can block, nor the C library's own, nor SIGCONT, which takes away the
    # signals that stop.
    numbers = [n for n in signal.valid_signals() if n not in (9, 17, 18, 19, 32, 33)]
    words = [init, sys.executable, "-c", script, *map(str, map(int, numbers))]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout.read(1) == b"r"
        for number in numbers:
            child.send_signal(number)
        assert child.wait(20) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_reaps_what_is_orphaned(init: str):
    script = "for i in 1 2 3; do sh -c 'true & exec true'; done; ps -o stat= -e | grep -c Z"
    command = ["unshare", "--pid", "--fork", "--mount-proc", init, "sh", "-c", script]
    assert run(*command).stdout == "0\n"


def test_a_key_of_the_terminal_reaches_the_child_once(init: str):
    script = "n=0; trap 'n=$((n+1))' INT; echo ready; read x; read y; echo $n; exit 4"
    pid, master = pty.fork()
    if pid == 0:
        os.execv(init, [init, "bash", "-c", script])
    said = b""
    while b"ready" not in said:
        said += os.read(master, 100)
    os.write(master, b"\x03\none\n")
    os.write(master, b"two\n")
    try:
        while data := os.read(master, 100):
            said += data
    except OSError:  # the terminal's last process has ended
        pass
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert os.waitstatus_to_exitcode(status) == 4, said
    assert said.split()[-1] == b"1", said
