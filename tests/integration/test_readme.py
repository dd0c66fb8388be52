"""The tour of the README works word for word, and leaves nothing running."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/bin/busybox"), reason="needs root and busybox"
)


@pytest.fixture
def environ(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('cgroup_parent = "/sampan-test/readme"\n')
    config.chmod(0o600)
    made = {
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SAMPAN_ROOT": str(tmp_path / "root"),
        "SAMPAN_STATE": str(tmp_path / "state"),
        "SAMPAN_CONFIG": str(config),
    }
    yield made
    pid = int((tmp_path / "state" / "sampan.pid").read_text())
    ended = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    assert select.select([ended], [], [], 30)[0], "the daemon does not end"
    os.close(ended)


def test_the_tour(environ, tmp_path):
    text = (ROOT / "README.md").read_text().replace("/tmp/tour", str(tmp_path / "tour"))
    blocks = BLOCK.findall(text)
    assert [kind for kind, _ in blocks] == ["sh", "python", "sh"]
    output = ""
    for kind, code in blocks:
        argv = ["sh", "-eu", "-c", code] if kind == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(
            argv, env=environ, capture_output=True, text=True, timeout=100, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), code
        output += done.stdout
    assert "hello from" in output
    assert "a directory will do as well" in output
    assert "0 42" in output
    assert not (tmp_path / "tour").exists()
