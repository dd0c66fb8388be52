"""What only a host with cgroup version 2 and systemd can show. `make test-vm` runs this."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from bundles import OCI, Bundle
from sampan.kernel import cgroups

pytestmark = pytest.mark.skipif(not os.environ.get("SAMPAN_VM"), reason="for the virtual machine")
MIB = 1 << 20


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone()


def look(bundle: Bundle, file: str) -> str:
    return Path(f"/sys/fs/cgroup{bundle.config['linux']['cgroupsPath']}/{file}").read_text().strip()


def test_the_host_is_what_it_should_be():
    assert cgroups.mode() == "unified"
    have = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    assert {"cpuset", "cpu", "io", "memory", "pids"} <= set(have)
    assert Path("/run/systemd/system").is_dir()


def test_the_container_sees_its_own_cgroup_as_the_root(bundle: Bundle):
    said = bundle.run(
        "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs; "
        "ls /sys/fs/cgroup | grep -c memory.max; touch /sys/fs/cgroup/x"
    )
    assert said.returncode == 1, said.stderr
    lines = said.stdout.splitlines()
    assert lines[0] == "0::/"
    assert "1" in lines
    assert lines[-1] == "1"
    assert "Read-only" in said.stderr


def writable(bundle: Bundle, *, own_namespace: bool) -> None:
    """Let the container write to its cgroup file system."""
    for mount in bundle.config["mounts"]:
        if mount["destination"] == "/sys/fs/cgroup":
            mount["options"] = ["nosuid", "noexec", "nodev", "rw"]
    spaces = [one for one in bundle.config["linux"]["namespaces"] if one["type"] != "cgroup"]
    own: list[dict[str, str]] = [{"type": "cgroup"}] if own_namespace else []
    bundle.config["linux"]["namespaces"] = spaces + own


def test_an_exec_follows_the_first_process_when_its_cgroup_is_gone(bundle: Bundle):
    writable(bundle, own_namespace=False)
    elsewhere = Path(f"/sys/fs/cgroup/sampan-test/{bundle.id}-elsewhere")
    elsewhere.mkdir(parents=True)
    own = Path(f"/sys/fs/cgroup{bundle.config['linux']['cgroupsPath']}")
    try:
        bundle.start(f"echo 1 > {elsewhere}/cgroup.procs && exec sleep 1000")
        deadline = time.monotonic() + 60
        while (own / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        own.rmdir()
        said = bundle.oci("exec", bundle.id, "cat", "/proc/self/cgroup")
        assert said.stdout == f"0::{str(elsewhere)[14:]}\n", said.stderr
        bundle.oci("delete", "--force", bundle.id, check=True)
    finally:
        elsewhere.rmdir()


def test_an_exec_into_a_cgroup_that_hands_controllers_down_is_told_in_runcs_words(bundle: Bundle):
    writable(bundle, own_namespace=True)
    bundle.start(
        "mkdir /sys/fs/cgroup/a && echo 1 > /sys/fs/cgroup/a/cgroup.procs && "
        "echo +memory > /sys/fs/cgroup/cgroup.subtree_control; exec sleep 1000"
    )
    deadline = time.monotonic() + 60
    while "memory" not in look(bundle, "cgroup.subtree_control"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    said = bundle.oci("exec", bundle.id, "grep", "0::/a", "/proc/self/cgroup")
    assert said.returncode == 0, said.stderr
    said = bundle.oci("exec", "--cgroup", "/", bundle.id, "true")
    assert said.returncode != 0
    assert " adding pid 0, itself, to cgroups: " in said.stderr
    assert "device or resource busy" in said.stderr


def test_limits_of_every_kind(bundle: Bundle):
    bundle.config["linux"]["resources"].update(
        memory={"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB},
        cpu={"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "idle": 0},
        pids={"limit": 77},
        unified={"memory.high": str(60 * MIB), "cgroup.max.depth": "5"},
    )
    bundle.start()
    assert look(bundle, "memory.max") == str(64 * MIB)
    assert look(bundle, "memory.low") == str(32 * MIB)
    assert look(bundle, "memory.swap.max") == str(32 * MIB)
    assert look(bundle, "memory.high") == str(60 * MIB)
    assert look(bundle, "cpu.max") == "50000 100000"
    assert look(bundle, "cpu.weight") != "100"
    assert look(bundle, "cpuset.cpus") == "0"
    assert look(bundle, "pids.max") == "77"
    assert look(bundle, "cgroup.max.depth") == "5"
    bundle.oci(
        "update",
        "--memory",
        str(80 * MIB),
        "--memory-swap",
        str(80 * MIB),
        "--pids-limit",
        "50",
        "--cpu-quota",
        "20000",
        bundle.id,
        check=True,
    )
    assert look(bundle, "memory.max") == str(80 * MIB)
    assert look(bundle, "memory.swap.max") == "0"
    assert look(bundle, "pids.max") == "50"
    assert look(bundle, "cpu.max") == "20000 100000"


def test_devices_are_guarded_by_a_program(bundle: Bundle):
    rules = bundle.config["linux"]["resources"]["devices"]
    rules.append({"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rw"})
    for kind in ("bounding", "effective", "permitted"):
        bundle.config["process"]["capabilities"][kind].append("CAP_MKNOD")
    said = bundle.run(
        "mknod /dev/allowed c 5 1; mknod /dev/refused c 4 65; head -c 1 /dev/zero | wc -c; "
        "true > /dev/allowed && echo opens; true > /dev/refused"
    )
    assert said.stdout.split() == ["1", "opens"], said.stderr
    assert "/dev/refused: Operation not permitted" in said.stderr


def test_freezing_and_killing(bundle: Bundle):
    bundle.start("i=0; while true; do i=$((i+1)); echo $i > /dev/shm/n; sleep 0.01; done")
    bundle.oci("pause", bundle.id, check=True)
    assert bundle.state()["status"] == "paused"
    assert "frozen 1" in look(bundle, "cgroup.events")
    bundle.oci("resume", bundle.id, check=True)
    assert bundle.state()["status"] == "running"
    bundle.oci("kill", "--all", bundle.id, "KILL", check=True)
    assert bundle.ended()


def test_want_of_memory_is_seen(bundle: Bundle):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 8 * MIB, "swap": 8 * MIB}
    bundle.start("sleep 2; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1000")
    deadline = time.monotonic() + 60
    while bundle.group().oom_kills() == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stats = json.loads(bundle.oci("events", "--stats", bundle.id, check=True).stdout)
    assert stats["data"]["memory"]["usage"]["limit"] == 8 * MIB
    assert stats["data"]["pids"]["current"] >= 1


def test_four_mebibytes_are_enough(bundle: Bundle):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 4 * MIB}
    bundle.command("true")
    bundle.save()
    done = bundle.oci("run", bundle.id)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_ordinary_user_with_a_delegated_cgroup(tmp_path: Path):
    """As systemd delegates one: the directory and its control files are the user's."""
    made = Bundle(tmp_path)
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    group = Path("/sys/fs/cgroup/sampan-delegated")
    group.mkdir()
    (group / "cgroup.subtree_control").write_text("+memory +pids")
    inner = group / "user"
    inner.mkdir()
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        os.chown(inner / name, 1234, 1234)
    subprocess.run(["chown", "-R", "1234:1234", tmp_path], check=True)
    leaf = inner / "caller"
    leaf.mkdir()
    os.chown(leaf, 1234, 1234)
    os.chown(leaf / "cgroup.procs", 1234, 1234)

    def become() -> None:
        (leaf / "cgroup.procs").write_text("0")
        os.setgroups([])
        os.setresgid(1234, 1234, 1234)
        os.setresuid(1234, 1234, 1234)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [OCI, "--root", f"{tmp_path}/mine", *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            preexec_fn=become,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    (tmp_path / "config.json").unlink(missing_ok=True)
    assert call("spec", "--rootless").stderr == ""
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"].update(terminal=False, args=["/bin/sh", "-c", "id -u; cat /proc/self/cgroup"])
    config["process"]["env"] = ["PATH=/bin"]
    config["linux"]["resources"] = {"pids": {"limit": 55}}
    config["linux"]["cgroupsPath"] = "/sampan-delegated/user/one"
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = call("run", made.id)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "0"
    for path in (leaf, inner, group):
        path.rmdir()
