"""`--systemd-cgroup` with a systemd that is the first process. `make test-vm` runs this."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import OCI, Bundle
from sampan.kernel import dbus
from sampan.kernel.cgroups import scope
from scopelab import MIB, TREE, Scoped, unit

pytestmark = pytest.mark.skipif(not os.environ.get("SAMPAN_VM"), reason="for the virtual machine")


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Scoped]:
    made = Scoped(tmp_path)
    yield made
    made.oci("delete", "--force", made.id)
    assert made.is_gone()


def test_the_container_is_in_a_scope_with_its_limits(bundle: Scoped):
    bundle.config["linux"]["resources"].update(
        memory={"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB},
        cpu={"shares": 512, "quota": 50500, "period": 100000, "cpus": "0"},
        pids={"limit": 77},
        unified={"memory.high": str(60 * MIB)},
    )
    bundle.begin()
    pid = bundle.state()["pid"]
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::{str(bundle.group_path)[14:]}\n"
    assert unit(
        bundle.unit,
        *(
            "ControlGroup Slice Delegate MemoryMax MemoryLow MemorySwapMax MemoryHigh TasksMax "
            "CPUWeight CPUQuotaPerSecUSec AllowedCPUs DevicePolicy ActiveState"
        ).split(),
    ) == {
        "ControlGroup": str(bundle.group_path)[14:],
        "Slice": "sampan-test.slice",
        "Delegate": "yes",
        "MemoryMax": str(64 * MIB),
        "MemoryLow": str(32 * MIB),
        "MemorySwapMax": str(32 * MIB),
        "MemoryHigh": str(60 * MIB),
        "TasksMax": "77",
        "CPUWeight": bundle.look("cpu.weight"),
        "CPUQuotaPerSecUSec": "510ms",  # systemd's own step, upwards
        "AllowedCPUs": "0",
        "DevicePolicy": "strict",
        "ActiveState": "active",
    }
    assert bundle.look("memory.max") == str(64 * MIB)
    assert bundle.look("memory.high") == str(60 * MIB)
    assert bundle.look("cpu.max") == "50500 100000"  # the kernel has it as it was asked for
    assert bundle.look("cpuset.cpus") == "0"
    assert bundle.look("pids.max") == "77"


def test_an_update_outlives_a_reload(bundle: Scoped):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 * MIB}
    bundle.begin()
    bundle.oci("update", "--memory", "80m", "--pids-limit", "50", bundle.id, check=True)
    bundle.oci("update", "--cpu-quota", "20000", "--cpu-share", "100", bundle.id, check=True)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    said = unit(bundle.unit, "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec")
    expected = {"MemoryMax": str(80 * MIB), "TasksMax": "50", "CPUQuotaPerSecUSec": "200ms"}
    assert said == expected
    assert bundle.look("memory.max") == str(80 * MIB)
    assert bundle.look("pids.max") == "50"
    assert bundle.look("cpu.max") == "20000 100000"
    stats = json.loads(bundle.oci("events", "--stats", bundle.id, check=True).stdout)
    assert stats["data"]["memory"]["usage"]["limit"] == 80 * MIB
    assert stats["data"]["pids"]["limit"] == 50


def test_a_refused_update_changes_nothing(bundle: Scoped):
    bundle.begin()
    said = bundle.oci("update", "--memory", "80m", "--cpuset-cpus", "4000", bundle.id)
    assert said.returncode == 1
    assert "linux.resources.cpu.cpus" in said.stderr
    assert bundle.look("memory.max") == "max"
    assert unit(bundle.unit, "MemoryMax") == {"MemoryMax": "infinity"}


def test_devices_are_guarded_before_and_after_a_reload(bundle: Scoped):
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


def test_exec_pause_and_kill_go_by_the_scope(bundle: Scoped):
    bundle.begin()
    said = bundle.oci("exec", bundle.id, "sleep", "0", check=True)
    assert said.stderr == ""
    bundle.beside("exec", "--detach", bundle.id, "sleep", "1000")
    assert len(bundle.look("cgroup.procs").split()) == 2
    bundle.oci("pause", bundle.id, check=True)
    assert bundle.state()["status"] == "paused"
    bundle.oci("resume", bundle.id, check=True)
    bundle.oci("kill", "--all", bundle.id, "KILL", check=True)
    assert bundle.ended()
    assert bundle.state()["status"] == "stopped"
    bundle.oci("delete", bundle.id, check=True)
    assert bundle.is_gone()


def test_a_run_leaves_no_unit(bundle: Scoped):
    said = bundle.run("cat /proc/self/cgroup")
    assert (said.returncode, said.stdout) == (0, "0::/\n"), said.stderr
    assert bundle.is_gone()


def test_a_command_that_is_missing(bundle: Scoped):
    bundle.command("/no/such/program")
    bundle.save()
    said = bundle.oci("run", bundle.id)
    assert said.returncode == 1
    assert "no such file or directory" in said.stderr
    assert bundle.is_gone()


def test_a_limit_that_the_kernel_refuses(bundle: Scoped):
    bundle.config["linux"]["resources"]["unified"] = {"memory.no.such": "1"}
    said = bundle.run("true")
    assert said.returncode == 1
    assert "memory.no.such" in said.stderr
    assert bundle.is_gone()


def test_a_unit_of_that_name_is_not_taken_over(bundle: Scoped):
    words = ["systemd-run", "--scope", f"--unit={bundle.unit}"]
    words += ["sh", "-c", "echo on; exec sleep 1000"]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(words, stdout=pipe, stderr=null) as other:
        assert other.stdout is not None
        other.stdout.readline()
        said = bundle.run("true")
        still = other.poll() is None
        other.kill()
    assert said.returncode == 1
    assert "not empty" in said.stderr
    assert still


def test_what_a_killed_creation_left_is_deleted(bundle: Scoped):
    """As after `kill -9` of the command: only the first record is on the disk, and the unit."""
    bundle.begin()
    path = bundle.root / bundle.id / "state.json"
    whole = json.loads(path.read_text())
    first = {key: whole[key] for key in ("v", "id", "bundle", "cgroup", "scope")}
    path.write_text(json.dumps({**first, "pid": 0}))
    (bundle.root / bundle.id / "quick").unlink()
    bundle.oci("delete", "--force", bundle.id, check=True)
    assert bundle.is_gone()


def test_annotations_are_properties_of_the_unit(bundle: Scoped):
    bundle.config["annotations"] = {
        "org.systemd.property.TimeoutStopSec": "uint64 7",
        "org.systemd.property.KillSignal": "10",
        "org.systemd.property.Description": "'a box'",
    }
    bundle.begin()
    said = unit(bundle.unit, "TimeoutStopUSec", "KillSignal", "Description")
    assert said == {"TimeoutStopUSec": "7s", "KillSignal": "10", "Description": "a box"}


def test_without_a_path_it_is_in_the_system_slice(bundle: Scoped):
    del bundle.config["linux"]["cgroupsPath"]
    bundle.begin()
    name = f"sampan-{bundle.id}.scope"
    assert unit(name, "ControlGroup")["ControlGroup"] == f"/system.slice/{name}"
    bundle.oci("delete", "--force", bundle.id, check=True)
    assert unit(name, "LoadState")["LoadState"] == "not-found"


@pytest.mark.parametrize("path", ["/sampan-test/x", "a.slice:b", "a:b:c", "a--b.slice:b:c"])
def test_a_path_of_another_form_is_refused(bundle: Scoped, path: str):
    bundle.config["linux"]["cgroupsPath"] = path
    said = bundle.run("true")
    assert said.returncode == 1
    assert "linux.cgroupsPath" in said.stderr
    assert not bundle.root.exists() or not list(bundle.root.iterdir())


def test_four_mebibytes_are_enough(bundle: Scoped):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 4 * MIB}
    bundle.command("true")
    bundle.save()
    done = bundle.oci("run", bundle.id)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_restored_container_is_in_a_scope_again(bundle: Scoped, tmp_path: Path):
    spaces = bundle.config["linux"]["namespaces"]
    # CRIU would want iptables for a network namespace.
    bundle.config["linux"]["namespaces"] = [one for one in spaces if one["type"] != "network"]
    gone = ("/sys", "/sys/fs/cgroup")
    mounts = bundle.config["mounts"]
    bundle.config["mounts"] = [one for one in mounts if one["destination"] not in gone]
    bundle.config["linux"]["resources"]["pids"] = {"limit": 77}
    bundle.begin("exec 2>/dev/null; echo before > /dev/shm/f; sleep 1000")  # no file of the host's
    images = str(tmp_path / "images")
    said = bundle.oci("checkpoint", "--image-path", images, bundle.id)
    assert said.returncode == 0, said.stderr
    assert bundle.is_gone()
    bundle.beside("restore", "--detach", "--image-path", images, bundle.id)
    pid = bundle.state()["pid"]
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::{str(bundle.group_path)[14:]}\n"
    assert unit(bundle.unit, "ActiveState", "TasksMax") == {
        "ActiveState": "active",
        "TasksMax": "77",
    }
    assert Path(f"/proc/{pid}/root/dev/shm/f").read_text() == "before\n"
    bundle.oci("update", "--pids-limit", "55", bundle.id, check=True)
    assert bundle.look("pids.max") == "55"
    bundle.oci("delete", "--force", bundle.id, check=True)
    assert bundle.is_gone()


def test_its_own_socket_does_where_there_is_no_bus():
    with scope.Manager(dbus.Connection("/run/systemd/private"), is_bus=False) as manager:
        assert manager.control_group() == ""
        manager.stop("sampan-no-such.scope")


def test_features_say_so():
    said = json.loads(subprocess.run([OCI, "features"], check=True, capture_output=True).stdout)
    assert said["linux"]["cgroup"]["systemd"] is True


def test_an_ordinary_user_has_a_manager_of_its_own(tmp_path: Path):
    subprocess.run(["useradd", "--create-home", "boxer"], check=True)
    user = pwd.getpwnam("boxer")
    subprocess.run(["systemctl", "start", f"user@{user.pw_uid}.service"], check=True)
    made = Bundle(tmp_path)
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", tmp_path], check=True)

    def call(*words: str) -> tuple[int, str]:
        # Files, as a detached container would keep pipes open.
        with open(tmp_path / "said", "w+") as said:
            done = subprocess.run(
                [OCI, "--root", f"{tmp_path}/mine", "--systemd-cgroup", *words],
                check=False,
                stdout=said,
                stderr=said,
                cwd=tmp_path,
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": f"/run/user/{user.pw_uid}"},
                timeout=60,
                stdin=subprocess.DEVNULL,
            )
            said.seek(0)
            return done.returncode, said.read()

    try:
        assert call("spec", "--rootless") == (0, "")
        config = json.loads((tmp_path / "config.json").read_text())
        config["process"].update(terminal=False, args=["sleep", "1000"], env=["PATH=/bin"])
        config["linux"]["resources"] = {"pids": {"limit": 55}, "memory": {"limit": 64 * MIB}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert call("run", "--detach", "--pid-file", "pid", made.id) == (0, "")
        pid = int((tmp_path / "pid").read_text())
        place = Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")
        assert place.endswith(f"/user@{user.pw_uid}.service/user.slice/sampan-{made.id}.scope")
        assert (TREE / place.lstrip("/") / "pids.max").read_text() == "55\n"
        assert (TREE / place.lstrip("/") / "memory.max").read_text() == f"{64 * MIB}\n"
        assert call("update", "--pids-limit", "44", made.id) == (0, "")
        assert (TREE / place.lstrip("/") / "pids.max").read_text() == "44\n"
        assert call("delete", "--force", made.id) == (0, "")
        assert not (TREE / place.lstrip("/")).exists()
    finally:
        call("delete", "--force", made.id)
        subprocess.run(["systemctl", "stop", f"user@{user.pw_uid}.service"], check=True)
        subprocess.run(["userdel", "boxer"], check=True)
