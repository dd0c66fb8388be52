"""`--systemd-cgroup` on a host with cgroup version 1, in a boot of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import OCI
from sampan.kernel import cgroups
from scopelab import MIB, TREE, Scoped, unit

pytestmark = pytest.mark.skipif(
    not os.environ.get("SAMPAN_VM") or cgroups.mode() == "unified",
    reason="for the virtual machine, with version 1",
)


class OldScoped(Scoped):
    """A scope, with a directory in each hierarchy."""

    @property
    def place(self) -> str:
        return f"sampan.slice/sampan-test.slice/{self.unit}"

    def look(self, file: str) -> str:
        controller = file.partition(".")[0]
        return (TREE / controller / self.place / file).read_text().strip()

    def is_gone(self) -> bool:
        state = unit(self.unit, "LoadState")["LoadState"]
        return state == "not-found" and not list(TREE.glob(f"*/{self.place}"))


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[OldScoped]:
    made = OldScoped(tmp_path)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.is_gone(), done


def places(pid: int) -> set[str]:
    """Where a process is, in all hierarchies but those of no use to a container."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    mounted = {name for tree in cgroups.mounted() for name in tree.controllers or ("",)}
    return {path for _, names, path in lines if set(names.split(",")) & mounted}


def test_the_container_is_in_the_scope_in_every_hierarchy(bundle: OldScoped):
    bundle.config["linux"]["resources"].update(
        memory={"limit": 64 * MIB, "swap": 64 * MIB},
        cpu={"shares": 512, "quota": 50500, "period": 100000, "cpus": "0"},
        pids={"limit": 77},
    )
    bundle.begin()
    assert places(bundle.state()["pid"]) == {f"/{bundle.place}"}
    names = "ControlGroup Slice Delegate MemoryLimit TasksMax CPUShares DevicePolicy ActiveState"
    assert unit(bundle.unit, *names.split(), "CPUQuotaPerSecUSec") == {
        "ControlGroup": f"/{bundle.place}",
        "Slice": "sampan-test.slice",
        "Delegate": "yes",
        "MemoryLimit": str(64 * MIB),
        "TasksMax": "77",
        "CPUShares": "512",
        "CPUQuotaPerSecUSec": "510ms",  # systemd's own step, upwards
        "DevicePolicy": "strict",
        "ActiveState": "active",
    }
    assert bundle.look("memory.limit_in_bytes") == str(64 * MIB)
    assert bundle.look("cpu.shares") == "512"
    assert bundle.look("cpu.cfs_quota_us") == "50500"
    assert bundle.look("cpuset.cpus") == "0"
    assert bundle.look("pids.max") == "77"


def test_an_exec_is_there_as_well_and_pause_and_kill_go_by_it(bundle: OldScoped, tmp_path: Path):
    bundle.begin()
    pids = tmp_path / "pid"
    bundle.beside("exec", "--detach", "--pid-file", str(pids), bundle.id, "sleep", "1000")
    assert places(int(pids.read_text())) == {f"/{bundle.place}"}
    bundle.oci("pause", bundle.id, check=True)
    assert bundle.state()["status"] == "paused"
    bundle.oci("resume", bundle.id, check=True)
    bundle.oci("kill", "--all", bundle.id, "KILL", check=True)
    assert bundle.ended()
    bundle.oci("delete", bundle.id, check=True)
    assert bundle.is_gone()


def test_an_update_outlives_a_reload(bundle: OldScoped):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 * MIB}
    bundle.begin()
    bundle.oci("update", "--memory", "80m", "--pids-limit", "50", bundle.id, check=True)
    bundle.oci("update", "--cpu-quota", "20000", "--cpu-share", "100", bundle.id, check=True)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    said = unit(bundle.unit, "MemoryLimit", "TasksMax", "CPUQuotaPerSecUSec", "CPUShares")
    assert said == {
        "MemoryLimit": str(80 * MIB),
        "TasksMax": "50",
        "CPUQuotaPerSecUSec": "200ms",
        "CPUShares": "100",
    }
    assert bundle.look("memory.limit_in_bytes") == str(80 * MIB)
    assert bundle.look("pids.max") == "50"
    assert bundle.look("cpu.cfs_quota_us") == "20000"
    assert bundle.look("cpu.shares") == "100"


def test_devices_are_guarded_before_and_after_a_reload(bundle: OldScoped):
    rules = bundle.config["linux"]["resources"]["devices"]
    rules.append({"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rw"})
    for kind in ("bounding", "effective", "permitted"):
        bundle.config["process"]["capabilities"][kind].append("CAP_MKNOD")
    bundle.begin("mknod /dev/allowed c 5 1; mknod /dev/refused c 4 65; sleep 1000")
    probe = "true > /dev/allowed && echo opens; true > /dev/refused"
    for reload in (False, True):
        if reload:
            subprocess.run(["systemctl", "daemon-reload"], check=True)
        said = bundle.oci("exec", bundle.id, "sh", "-c", probe)
        assert said.stdout.split() == ["opens"], said.stderr
        assert "/dev/refused: Operation not permitted" in said.stderr


def test_a_run_leaves_no_unit_and_a_failure_neither(bundle: OldScoped):
    said = bundle.run("echo hello")
    assert (said.returncode, said.stdout) == (0, "hello\n"), said.stderr
    assert bundle.is_gone()
    bundle.config["linux"]["resources"]["cpu"] = {"cpus": "4000"}
    said = bundle.run("true")
    assert said.returncode == 1
    assert "linux.resources.cpu.cpus" in said.stderr
    assert bundle.is_gone()


def test_what_a_killed_creation_left_is_deleted(bundle: OldScoped):
    bundle.begin()
    path = bundle.root / bundle.id / "state.json"
    whole = json.loads(path.read_text())
    first = {key: whole[key] for key in ("v", "id", "bundle", "cgroup", "scope")}
    path.write_text(json.dumps({**first, "pid": 0}))
    (bundle.root / bundle.id / "quick").unlink()
    bundle.oci("delete", "--force", bundle.id, check=True)
    assert bundle.is_gone()


def test_features_say_so():
    said = json.loads(subprocess.run([OCI, "features"], check=True, capture_output=True).stdout)
    wanted = {"v1": True, "v2": False, "systemd": True, "systemdUser": False}
    assert said["linux"]["cgroup"].items() >= wanted.items()
