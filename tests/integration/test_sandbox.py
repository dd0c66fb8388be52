"""The library's sandbox for code that nobody trusts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

import pytest

import dockerlab
import sampan
from sampan import errors

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        yield made


@pytest.fixture(scope="module")
def engine(daemon):
    with sampan.Engine.open(host=daemon.host) as opened:
        yield opened


def box(daemon, engine, **more):
    return sampan.Sandbox(rootfs=f"{daemon.base}/rootfs:O", engine=engine, **more)


def test_files_go_in_and_out(daemon, engine):
    data = os.urandom(100_000)
    with box(daemon, engine) as sandbox:
        sandbox.write("/tmp/in", data)
        result = sandbox.run(["sh", "-c", "cp /tmp/in /tmp/out; id -u; exit 3"])
        assert (result.exit_code, result.text) == (3, "65534\n")
        assert sandbox.read("/tmp/out") == data
        with pytest.raises(sampan.CommandFailed):
            sandbox.read("/tmp/none")
    assert engine.containers(all=True) == []


def test_little_is_allowed(daemon, engine):
    with box(daemon, engine, pids=20) as sandbox:
        status = sandbox.run(["cat", "/proc/self/status"]).text
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        devices = sandbox.run(["cat", "/proc/net/dev"]).text
        assert len(devices.splitlines()) == 3  # two lines of titles and lo


def test_a_command_without_end_ends_the_sandbox(daemon, engine):
    with box(daemon, engine) as sandbox:
        with pytest.raises(errors.DeadlineExceeded):
            sandbox.run(["sleep", "1000"], timeout=0.2)
        assert engine.containers(all=True) == []
        with pytest.raises(errors.FailedPrecondition):
            sandbox.run(["true"])
    with pytest.raises(errors.InvalidArgument):
        box(daemon, engine, time=0)


def test_it_ends_with_its_process(daemon, engine):
    program = f"""
import sampan, sys, time
engine = sampan.Engine.open(host={daemon.host!r})
with sampan.Sandbox(rootfs={daemon.base + "/rootfs:O"!r}, engine=engine) as box:
    print("ready", flush=True)
    time.sleep(1000)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": dockerlab.SOURCES},
        stdout=subprocess.PIPE,
    )
    assert child.stdout.readline() == b"ready\n"
    assert len(engine.containers()) == 1
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 30
    while engine.containers(all=True):
        assert time.monotonic() < deadline, "the sandbox outlived its process"


def test_what_is_left_in_the_background_ends_with_the_time(daemon, engine):
    with box(daemon, engine, time=1.0) as sandbox:
        sandbox.run(["sh", "-c", "sleep 1000 > /dev/null 2>&1 &"])
        deadline = time.monotonic() + 30
        while engine.containers(all=True):
            assert time.monotonic() < deadline, "the sandbox outlived its time"


def test_a_user_namespace_and_trees(daemon, engine, tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/file").write_text("content")
    with box(daemon, engine, userns=True, user="0:0") as sandbox:
        assert sandbox.run(["cat", "/proc/self/uid_map"]).text.split()[1] != "0"
        sandbox.put(tmp_path / "in", "/tmp/")
        assert sandbox.run(["cat", "/tmp/in/deep/file"]).text == "content"
        sandbox.run(["sh", "-c", "echo more > /tmp/in/deep/more"]).check()
        sandbox.get("/tmp/in", tmp_path / "out")
    assert (tmp_path / "out/deep/more").read_text() == "more\n"


def anybody_in(cgroup):
    """Whether a process is in one of its children; one that is removed meanwhile has none."""
    for path in glob(f"/sys/fs/cgroup/*{cgroup}/*/cgroup.procs"):
        try:
            if Path(path).read_text():
                return True
        except OSError:  # ENOENT, or ENODEV while it is being removed
            continue
    return False


def test_an_embedded_one_ends_with_its_process(tmp_path):
    """No daemon takes part: nothing runs on, and the next engine of that root cleans up."""
    root = tmp_path / "rootfs"
    dockerlab.make_root(root)
    cgroup = f"/sampan-test/sandbox-{os.getpid()}"
    config = tmp_path / "config.toml"
    config.write_text(f'cgroup_parent = "{cgroup}"\n')
    config.chmod(0o600)
    where = f"root={str(tmp_path / 'root')!r}, state={str(tmp_path / 'state')!r}"
    opened = f"sampan.Engine.open({where}, config={str(config)!r}, embedded=True)"
    program = f"""
import sampan, sys, time
with {opened} as engine:
    with sampan.Sandbox(rootfs={str(root) + ":O"!r}, engine=engine) as box:
        print(box.run(["id", "-u"]).text, end="", flush=True)
        time.sleep(1000)
"""
    environ = {**os.environ, "PYTHONPATH": dockerlab.SOURCES}
    child = subprocess.Popen([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"65534\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 30
    while anybody_in(cgroup):
        assert time.monotonic() < deadline, "the sandbox outlived its process"
        time.sleep(0.01)
    check = f"import sampan\nwith {opened} as engine:\n    print(len(engine.containers(all=True)))"
    for _ in range(2):  # the first one removes what ended
        done = subprocess.run(
            [sys.executable, "-c", check], env=environ, check=True, capture_output=True
        )
    assert done.stdout == b"0\n"
    for path in glob(f"/sys/fs/cgroup/*{cgroup}"):
        os.rmdir(path)


@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft")
def test_what_it_may_reach(daemon, engine):
    """Without rules it has no network; with some it has one, and its rules in the kernel."""
    with box(daemon, engine, egress=["example.org", "192.0.2.0/24"]) as sandbox:
        assert "eth0" in sandbox.run(["cat", "/proc/net/dev"]).text
        assert "nameserver 127.0.0.11" in sandbox.run(["cat", "/etc/resolv.conf"]).text
        assert "192.0.2.0/24" in ruleset()
        sandbox.restrict([])
        assert "restricted4" in ruleset()
        assert "192.0.2.0/24" not in ruleset()
    with box(daemon, engine) as sandbox:
        assert "eth0" not in sandbox.run(["cat", "/proc/net/dev"]).text
        with pytest.raises(errors.FailedPrecondition):
            sandbox.restrict(["example.org"])
    with pytest.raises(errors.InvalidArgument), box(daemon, engine, egress=["a b"]):
        pass


def ruleset():
    """The packet filter, without the test's own address."""
    done = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True)
    return done.stdout
