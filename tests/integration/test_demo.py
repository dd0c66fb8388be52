"""The demonstration passes, and whatever stops it, nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from glob import glob
from pathlib import Path

import pytest

from realregistry import available

SCRIPTS = Path(__file__).parents[2] / "scripts"
CGROUP = "/sampan-test/demo"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not available, reason="needs root and docker-registry"
)
START = """
import sys
sys.path.insert(0, {scripts!r})
import demo
{change}
sys.exit(demo.main({cgroup!r}))
"""


class Run:
    """A demonstration below a directory of the test."""

    def __init__(self, tmp_path, change="pass"):
        code = START.format(scripts=str(SCRIPTS), change=change, cgroup=CGROUP)
        self.tmp = tmp_path
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self):
        """Wait for the end, look for what is left; (exit code, output, errors)."""
        out, errors = self.process.communicate(timeout=110)
        assert list(self.tmp.iterdir()) == []
        assert glob(f"/sys/fs/cgroup/*{CGROUP}") == []
        assert str(self.tmp) not in Path("/proc/self/mountinfo").read_text()
        assert [name for name in command_lines() if str(self.tmp) in name] == []
        return self.process.returncode, out, errors


def command_lines():
    for path in glob("/proc/[0-9]*/cmdline"):
        try:
            yield Path(path).read_text()
        except OSError:
            continue  # it ended meanwhile


def test_passes(tmp_path):
    code, out, errors = Run(tmp_path).end()
    assert (code, errors) == (0, ""), out
    assert "nothing is left" in out


def test_failure_with_a_dead_daemon(tmp_path):
    change = """
def run_and_die(run):
    run.sampan("run", "-d", "--name", "left", "demo/busybox:1", "sleep", "1000")
    demo.end_process(run.daemon(), 9)
    demo.check(False, "the daemon is dead")
demo.STEPS = (demo.make_image, run_and_die)
"""
    code, out, errors = Run(tmp_path, change).end()
    assert (code, errors) == (1, "demo: the daemon is dead\n"), out
    assert "nothing is left" not in out


def test_failure_in_which_nothing_can_be_stopped_in_order(tmp_path):
    change = """
def run_and_lose(run):
    run.sampan("run", "-d", "--name", "left", "demo/busybox:1", "sleep", "1000")
    demo.SAMPAN = "/bin/false"
demo.STEPS = (demo.make_image, run_and_lose)
"""
    code, out, errors = Run(tmp_path, change).end()
    assert code == 1, out
    assert "leaving: `sampan ps` ended with 1" in errors
    assert "left behind: process" in errors
    assert "left behind: cgroup" in errors
    assert "left behind: bridge sb-" in errors
    assert "left behind: table inet sampan-" in errors


def test_interruption(tmp_path):
    run = Run(tmp_path)
    for line in run.process.stdout:
        if line.startswith("$ sampan run -d"):
            break
    run.process.send_signal(signal.SIGINT)
    code, _, errors = run.end()
    assert code == 1
    assert "interrupted by SIGINT" in errors
    assert "left behind" not in errors


def test_interruption_while_a_command_is_being_started(tmp_path):
    change = """
import os, signal
class Late(demo.subprocess.Popen):
    def __init__(self, words, **more):
        late = ["sh", "-c", 'sleep 1; exec "$@"', "sh"] if "run" in words else []
        super().__init__([*late, *words], **more)
        if late:
            os.kill(os.getpid(), signal.SIGINT)
demo.subprocess.Popen = Late
"""
    code, _, errors = Run(tmp_path, change).end()
    assert code == 1
    assert "interrupted by SIGINT" in errors
    assert "left behind" not in errors
