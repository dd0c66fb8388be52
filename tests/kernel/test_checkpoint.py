"""checkpoint and restore: errors everywhere, and whole lives where CRIU works (`make test-vm`)."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
IN_VM = bool(os.environ.get("SAMPAN_VM"))
works = pytest.mark.skipif(not IN_VM, reason="CRIU works in the virtual machine")
COUNT = "i=0; while true; do i=$((i+1)); echo $i > /dev/shm/n; sleep 0.05; done"


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    spaces = made.config["linux"]["namespaces"]
    # CRIU would want iptables for a network namespace.
    made.config["linux"]["namespaces"] = [one for one in spaces if one["type"] != "network"]
    gone = ("/sys", "/sys/fs/cgroup")  # and sysfs one of the host's network
    mounts = made.config["mounts"]
    made.config["mounts"] = [one for one in mounts if one["destination"] not in gone]
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def start(bundle: Bundle, script: str = COUNT) -> None:
    bundle.shell(script)
    bundle.save()
    words = [bundle.runtime, "--root", str(bundle.root), "run", "--detach", bundle.id]
    null = subprocess.DEVNULL
    subprocess.run(
        words, check=True, cwd=bundle.path, stdin=null, stdout=null, stderr=null, timeout=60
    )


def count(bundle: Bundle) -> int:
    """What the container counts to, when it has counted on."""
    file = Path(f"/proc/{bundle.state()['pid']}/root/dev/shm/n")
    deadline = time.monotonic() + 60
    first = ""
    while time.monotonic() < deadline:
        text = file.read_text().strip() if file.exists() else ""
        if first and text and text != first:
            return int(text)
        first = first or text
        time.sleep(0.01)
    raise AssertionError("it does not count")


def test_settings_that_others_can_write_are_refused(bundle: Bundle, tmp_path: Path):
    settings = tmp_path / "criu.conf"
    settings.write_text("action-script=/bin/true\n")
    settings.chmod(0o666)
    bundle.config["annotations"] = {"org.criu.config": str(settings)}
    start(bundle)
    failed = bundle.oci("checkpoint", bundle.id)
    assert failed.returncode == 1
    assert "org.criu.config" in failed.stderr
    assert "only root can write" in failed.stderr
    assert bundle.state()["status"] == "running"


def test_a_restore_into_the_cgroup_of_another_leaves_that_alone(bundle: Bundle):
    start(bundle)
    failed = bundle.oci("restore", "--image-path", str(bundle.path / "nothing"), "another")
    assert failed.returncode == 1
    assert "is not empty" in failed.stderr
    assert bundle.state()["status"] == "running"


def test_a_restored_terminal_needs_its_socket(bundle: Bundle):
    bundle.config["process"]["terminal"] = True
    bundle.save()
    failed = bundle.oci("restore", "--detach", bundle.id)
    assert failed.returncode == 1
    assert "without setting console socket" in failed.stderr
    assert not (bundle.root / bundle.id).exists()


def test_what_is_not_running_is_refused(bundle: Bundle):
    assert "does not exist" in bundle.oci("checkpoint", "nosuch").stderr
    bundle.command("true")
    bundle.save()
    null = subprocess.DEVNULL
    words = [bundle.runtime, "--root", str(bundle.root), "create", bundle.id]
    subprocess.run(words, check=True, cwd=bundle.path, stdin=null, stdout=null, stderr=null)
    failed = bundle.oci("checkpoint", bundle.id)
    assert failed.returncode == 1
    assert failed.stderr.endswith("container cannot be checkpointed in created state\n")


def test_a_missing_criu_is_named(bundle: Bundle):
    start(bundle)
    failed = bundle.oci("checkpoint", bundle.id, env={"PATH": "/nosuch"})
    assert failed.returncode == 1
    assert "criu is not installed" in failed.stderr
    assert bundle.state()["status"] == "running"


def test_what_the_streams_were_is_told_before_the_dump(bundle: Bundle, tmp_path: Path):
    """With lazy pages a dump lasts until it has been restored, which needs to know them."""
    start(bundle)
    images, seen = tmp_path / "images", tmp_path / "seen"
    criu = tmp_path / "criu"
    criu.write_text(f"#!/bin/sh\n/bin/cat {images}/descriptors.json > {seen}\nexit 1\n")
    criu.chmod(0o755)
    words = ["checkpoint", "--image-path", str(images), bundle.id]
    failed = bundle.oci(*words, env={"PATH": str(tmp_path)})
    assert "criu failed" in failed.stderr
    assert len(json.loads(seen.read_text())) == 3
    assert bundle.state()["status"] == "running"


def test_wrong_words_are_refused(bundle: Bundle):
    start(bundle)
    for words, said in (
        (["--manage-cgroups-mode", "odd"], "Invalid manage cgroups mode"),
        (["--empty-ns", "pid"], "namespace pid is not supported"),
        (["--page-server", "nowhere"], "ADDRESS:PORT"),
        (["--parent-path", "/absolute"], "relative to the image path"),
    ):
        failed = bundle.oci("checkpoint", *words, bundle.id)
        assert failed.returncode == 1
        assert said in failed.stderr
    assert bundle.state()["status"] == "running"


def test_a_failed_restore_leaves_nothing(bundle: Bundle):
    bundle.save()
    failed = bundle.oci("restore", "--image-path", str(bundle.path / "nothing"), bundle.id)
    assert failed.returncode == 1
    assert "restore: criu failed: " in failed.stderr
    assert not (bundle.root / bundle.id).exists()


@pytest.mark.skipif(IN_VM, reason="it works there")
def test_a_criu_that_cannot_is_told_and_the_container_goes_on(bundle: Bundle):
    start(bundle)
    done = bundle.oci("checkpoint", "--image-path", str(bundle.path / "images"), bundle.id)
    if done.returncode == 0:
        pytest.skip("CRIU works on this host")
    assert "dump: criu failed: " in done.stderr
    assert f"its log is {bundle.path}/images/dump.log" in done.stderr
    assert count(bundle) > 0


@works
def test_a_container_goes_on_where_it_was(bundle: Bundle):
    start(bundle)
    before = count(bundle)
    images = str(bundle.path / "images")
    done = bundle.oci("checkpoint", "--image-path", images, bundle.id)
    assert done.returncode == 0, done.stderr
    assert not (bundle.root / bundle.id).exists()
    done = bundle.oci("restore", "--detach", "--image-path", images, bundle.id)
    assert done.returncode == 0, done.stderr
    assert bundle.state()["status"] == "running"
    assert count(bundle) > before
    pid = bundle.state()["pid"]
    assert f"/sampan-test/{bundle.id}" in Path(f"/proc/{pid}/cgroup").read_text()
    spaces = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("time", "cgroup", "ipc")]
    show = "for kind in time cgroup ipc; do readlink /proc/self/ns/$kind; done"
    found = bundle.oci("exec", bundle.id, "sh", "-c", show).stdout
    assert found.split() == spaces  # CRIU refuses a second time what is elsewhere
    bundle.oci("kill", bundle.id, "KILL", check=True)
    assert bundle.ended()


@works
def test_it_may_go_on_meanwhile_and_in_two_steps(bundle: Bundle):
    start(bundle)
    first, second = bundle.path / "images/first", bundle.path / "images/second"
    done = bundle.oci("checkpoint", "--pre-dump", "--image-path", str(first), bundle.id)
    assert done.returncode == 0, done.stderr
    assert bundle.state()["status"] == "running"
    words = ["--leave-running", "--parent-path", "../first", "--image-path", str(second)]
    done = bundle.oci("checkpoint", *words, bundle.id)
    assert done.returncode == 0, done.stderr
    assert count(bundle) > 0
    assert json.loads((second / "descriptors.json").read_text()) == ["/dev/null"] * 3


@contextlib.contextmanager
def console_at(path: Path) -> Iterator[socket.socket]:
    """A listener for `--console-socket`."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60)
        yield listener


def receive_terminal(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    fds = array.array("i")
    fds.frombytes(ancillary[0][2][:4])
    return fds[0]


def read_until(terminal: int, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        found += os.read(terminal, 4096)
    return found


@works
def test_a_terminal_comes_back_to_the_console_socket(bundle: Bundle):
    bundle.config["process"]["terminal"] = True
    bundle.shell("x=kept; while read line; do echo $x $line; done")
    bundle.save()
    images = str(bundle.path / "images")
    with console_at(bundle.path / "console") as listener:
        words = ["--console-socket", str(bundle.path / "console"), bundle.id]
        assert bundle.oci("run", "--detach", *words).returncode == 0
        first = receive_terminal(listener)
        os.write(first, b"one\n")
        assert b"kept one" in read_until(first, b"kept one\r\n")
        done = bundle.oci("checkpoint", "--image-path", images, bundle.id)
        assert done.returncode == 0, done.stderr
        os.close(first)
        done = bundle.oci("restore", "--detach", "--image-path", images, *words)
        assert done.returncode == 0, done.stderr
        second = receive_terminal(listener)
    os.write(second, b"two\n")
    assert b"kept two" in read_until(second, b"kept two\r\n")
    os.close(second)


@works
def test_what_is_bound_within_what_is_bound_comes_back(bundle: Bundle):
    """Its mount point lies in a directory of the host, which is empty by then."""
    for name in ("outer", "inner"):
        (bundle.path / name).mkdir()
        point = {"outer": "/link", "inner": "/link/deep/inner"}[name]
        mount = {"type": "bind", "source": name, "destination": point, "options": ["bind"]}
        bundle.config["mounts"].append(mount)
    (bundle.rootfs / "real").mkdir()
    (bundle.rootfs / "link").symlink_to("real")
    start(bundle)
    images = str(bundle.path / "images")
    done = bundle.oci("checkpoint", "--image-path", images, bundle.id)
    assert done.returncode == 0, done.stderr
    (bundle.path / "outer/deep/inner").rmdir()
    (bundle.path / "outer/deep").rmdir()
    done = bundle.oci("restore", "--detach", "--image-path", images, bundle.id)
    assert done.returncode == 0, done.stderr
    assert bundle.oci("exec", bundle.id, "touch", "/real/deep/inner/new").returncode == 0
    assert (bundle.path / "inner/new").exists()


@works
@pytest.mark.skipif(not os.path.exists("/usr/sbin/iptables"), reason="CRIU locks networks by it")
def test_the_network_that_comes_back_has_its_loopback(bundle: Bundle):
    bundle.config["linux"]["namespaces"].append({"type": "network"})
    start(bundle)
    words = ["--image-path", str(bundle.path / "images")]
    done = bundle.oci("checkpoint", *words, bundle.id)
    assert done.returncode == 0, done.stderr
    done = bundle.oci("restore", "--detach", *words, bundle.id)
    assert done.returncode == 0, done.stderr
    assert count(bundle) > 0
    assert "127.0.0.1" in bundle.oci("exec", bundle.id, "ip", "addr", "show", "lo").stdout
