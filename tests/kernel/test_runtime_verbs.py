"""pause, resume, ps, update, events and kill of sampan-oci, on the real kernel."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from bundles import Bundle
from sampan.kernel import cgroups

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MIB = 1 << 20


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def limit(bundle: Bundle, controller: str, file: str) -> str:
    text = bundle.group().look(controller, file)
    assert text is not None
    return text.strip()


def wait_for(what: str, condition, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def test_a_paused_container_stands_still_until_it_is_resumed(bundle: Bundle):
    bundle.start("i=0; while true; do i=$((i+1)); echo $i > /dev/shm/n; done")
    counter = Path(f"/proc/{bundle.state()['pid']}/root/dev/shm/n")
    wait_for("the counter to exist", lambda: counter.exists() and counter.read_text().strip())
    bundle.oci("pause", bundle.id, check=True)
    assert bundle.state()["status"] == "paused"
    assert bundle.group().is_frozen()
    before = counter.read_text()
    assert Path(f"/proc/{bundle.state()['pid']}/wchan").exists()
    assert counter.read_text() == before
    bundle.oci("resume", bundle.id, check=True)
    assert bundle.state()["status"] == "running"
    wait_for("the counter to go on", lambda: counter.read_text() not in ("", before))


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs on this host")
def test_systemd_cgroups_are_refused_where_systemd_does_not_run(bundle: Bundle):
    bundle.shell("true")
    bundle.save()
    for verb in ("run", "create"):
        said = bundle.oci("--systemd-cgroup", verb, bundle.id, stdin=subprocess.DEVNULL)
        assert said.returncode == 1
        assert "systemd does not run on this host" in said.stderr
        assert not bundle.root.exists()
    # What callers ask of a container that is there works with the flag as without it.
    bundle.start()
    assert bundle.oci("--systemd-cgroup", "state", bundle.id, check=True).stdout
    bundle.oci("--systemd-cgroup", "kill", bundle.id, "KILL", check=True)
    assert bundle.ended()
    bundle.oci("--systemd-cgroup", "delete", bundle.id, check=True)


def test_a_bundle_cannot_name_a_unit_of_systemd(bundle: Bundle):
    """The word by which the runtime remembers one is its own."""
    bundle.config["linux"]["scope"] = {"unit": "ssh.service", "properties": []}
    assert bundle.run("true").returncode == 0


def test_pause_and_resume_refuse_the_wrong_state(bundle: Bundle):
    bundle.start()
    assert bundle.oci("resume", bundle.id).stderr.endswith("container not paused\n")
    bundle.oci("pause", bundle.id, check=True)
    again = bundle.oci("pause", bundle.id)
    assert (again.returncode, again.stderr) == (1, "sampan-oci: container not running\n")
    assert bundle.oci("exec", bundle.id, "true").returncode == 255


def test_kill_reaches_a_paused_container(bundle: Bundle):
    bundle.start()
    bundle.oci("pause", bundle.id, check=True)
    bundle.oci("kill", bundle.id, "KILL", check=True)
    wait_for("the end", lambda: bundle.state()["status"] == "stopped")


def test_kill_signals_the_first_process_or_all(bundle: Bundle):
    bundle.start(
        "trap 'touch /dev/shm/first' USR1; (trap 'touch /dev/shm/second' USR1; "
        "touch /dev/shm/ready; while true; do sleep 0.01; done) & "
        "while true; do sleep 0.01; done"
    )
    shared = Path(f"/proc/{bundle.state()['pid']}/root/dev/shm")
    wait_for("the traps", (shared / "ready").exists)
    bundle.oci("kill", bundle.id, "USR1", check=True)
    wait_for("the first trap", (shared / "first").exists)
    assert not (shared / "second").exists()
    # sleep(1) has no handler and dies; the shells go on.
    bundle.oci("kill", "--all", bundle.id, "SIGUSR1", check=True)
    wait_for("the second trap", (shared / "second").exists)


def test_kill_without_a_pid_namespace_ends_every_process(bundle: Bundle):
    spaces = bundle.config["linux"]["namespaces"]
    bundle.config["linux"]["namespaces"] = [one for one in spaces if one["type"] != "pid"]
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "proc"]
    bundle.config["linux"]["maskedPaths"] = bundle.config["linux"]["readonlyPaths"] = []
    bundle.start("sleep 1000 & sleep 1000 & sleep 1000; true")
    wait_for("three children", lambda: len(bundle.group().pids()) == 4)
    bundle.oci("kill", bundle.id, "9", check=True)
    wait_for("the end of all", lambda: not bundle.group().pids())


def test_ps_shows_the_processes_of_the_container_alone(bundle: Bundle):
    bundle.start("sleep 4321 & sleep 1000")
    wait_for("two sleeps", lambda: len(bundle.group().pids()) == 2)
    pids = json.loads(bundle.oci("ps", "--format", "json", bundle.id, check=True).stdout)
    assert sorted(pids) == sorted(bundle.group().pids())
    lines = bundle.oci("ps", bundle.id, check=True).stdout.splitlines()
    assert lines[0].split()[:2] == ["UID", "PID"]
    assert sorted(int(line.split()[1]) for line in lines[1:]) == sorted(pids)
    own = bundle.oci("ps", bundle.id, "-eo", "pid,args", check=True).stdout
    assert "sleep 4321" in own
    assert str(os.getpid()) not in own.split()
    bad = bundle.oci("ps", "--format", "yaml", bundle.id)
    assert (bad.returncode, bad.stderr) == (1, "sampan-oci: invalid format option\n")
    assert "couldn't find PID field" in bundle.oci("ps", bundle.id, "-eo", "args").stderr


def test_update_sets_every_limit_by_flag(bundle: Bundle):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 * MIB}
    bundle.start()
    words = "--memory 96m --memory-reservation 32MiB --cpu-share 512 --cpu-period 50000"
    words += " --cpu-quota 20000 --cpuset-cpus 0 --pids-limit 21 --kernel-memory 1g"
    bundle.oci("update", *words.split(), bundle.id, check=True)
    assert limit(bundle, "memory", "memory.limit_in_bytes") == str(96 * MIB)
    assert limit(bundle, "memory", "memory.soft_limit_in_bytes") == str(32 * MIB)
    assert limit(bundle, "cpu", "cpu.shares") == "512"
    assert limit(bundle, "cpu", "cpu.cfs_period_us") == "50000"
    assert limit(bundle, "cpu", "cpu.cfs_quota_us") == "20000"
    assert limit(bundle, "cpuset", "cpuset.cpus") == "0"
    assert limit(bundle, "pids", "pids.max") == "21"
    bundle.oci("update", "--memory", "-1", "--pids-limit", "-1", bundle.id, check=True)
    assert int(limit(bundle, "memory", "memory.limit_in_bytes")) > 1 << 60
    assert limit(bundle, "pids", "pids.max") == "max"


def test_update_takes_resources_from_a_file_and_from_standard_input(bundle: Bundle, tmp_path: Path):
    bundle.start()
    wanted = {"memory": {"limit": 40 * MIB}, "pids": {"limit": 0}, "devices": [{"allow": False}]}
    (tmp_path / "resources.json").write_text(json.dumps(wanted))
    devices = limit(bundle, "devices", "devices.list")
    bundle.oci("update", "--resources", str(tmp_path / "resources.json"), bundle.id, check=True)
    assert limit(bundle, "memory", "memory.limit_in_bytes") == str(40 * MIB)
    assert limit(bundle, "pids", "pids.max") == "max"
    assert limit(bundle, "devices", "devices.list") == devices
    bundle.oci("update", "-r", "-", bundle.id, check=True, input='{"cpu": {"shares": 77}}')
    assert limit(bundle, "cpu", "cpu.shares") == "77"
    recorded = json.loads((bundle.root / bundle.id / "state.json").read_text())
    resources = recorded["config"]["linux"]["resources"]
    assert resources["memory"]["limit"] == 40 * MIB
    assert resources["cpu"]["shares"] == 77


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--memory 5x", "invalid value for memory: invalid size: '5x'"),
        ("--cpu-share -3", 'invalid value for cpu-share: parsing "-3": not a number in range'),
        ("--cpuset-cpus a", "linux.resources.cpu.cpus: 'a' is not a list of numbers"),
        ("--l3-cache-schema L3:0=f", "Intel RDT/CAT: l3 cache schema is not enabled"),
        ("--resources /dev/null", "/dev/null: "),
        ("--memory 1g --memory-swap 512m", "memory and swap are less than memory"),
        ("--memory 1g --cpuset-cpus 4000", "set linux.resources.cpu.cpus: "),
        ("--cpu-share 3000000000", "is not within 2 and 262144"),
    ],
)
def test_update_refuses_and_changes_nothing(bundle: Bundle, words: str, message: str):
    bundle.start()
    before = [limit(bundle, "memory", "memory.limit_in_bytes"), limit(bundle, "cpu", "cpu.shares")]
    result = bundle.oci("update", *words.split(), bundle.id)
    assert result.returncode == 1
    assert message in result.stderr
    after = [limit(bundle, "memory", "memory.limit_in_bytes"), limit(bundle, "cpu", "cpu.shares")]
    assert after == before


def test_statistics_have_the_names_and_values_that_tools_read(bundle: Bundle):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 * MIB}
    bundle.config["linux"]["resources"]["pids"] = {"limit": 33}
    bundle.start()
    event = json.loads(bundle.oci("events", "--stats", bundle.id, check=True).stdout)
    assert (event["type"], event["id"]) == ("stats", bundle.id)
    data = event["data"]
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert data["memory"]["usage"]["usage"] > 0
    assert data["memory"]["raw"]["hierarchical_memory_limit"] == 64 * MIB
    assert data["pids"] == {"current": 1, "limit": 33}
    assert data["cpu"]["usage"]["total"] > 0
    assert data["cpuset"]["cpus"][0] == 0


def test_events_tell_of_memory_running_out_and_end_with_the_container(bundle: Bundle):
    bundle.config["linux"]["resources"]["memory"] = {"limit": 16 * MIB, "swap": 16 * MIB}
    bundle.start(
        "while [ ! -e /dev/shm/go ]; do sleep 0.01; done; "
        "sh -c 'dd if=/dev/zero of=/dev/shm/fill bs=1M count=40'; sleep 1000"
    )
    shared = Path(f"/proc/{bundle.state()['pid']}/root/dev/shm")
    words = [bundle.runtime, "--root", str(bundle.root), "events", "--interval", "50ms", bundle.id]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        assert json.loads(watcher.stdout.readline())["type"] == "stats"  # it watches now
        (shared / "go").touch()
        kinds = iter(lambda: json.loads(watcher.stdout.readline())["type"], "oom")
        assert set(kinds) <= {"stats"}
        bundle.oci("delete", "--force", bundle.id, check=True)
        watcher.stdout.read()
        assert watcher.wait(20) == 0


@pytest.mark.parametrize("interval", ["0", "-1s", "5", "x"])
def test_events_refuse_an_interval_that_is_none(bundle: Bundle, interval: str):
    bundle.start()
    assert bundle.oci("events", f"--interval={interval}", bundle.id).returncode == 1


@pytest.mark.parametrize("verb", ["pause", "resume", "ps", "update", "events", "state", "kill"])
def test_a_container_that_is_not_there_is_named(bundle: Bundle, verb: str):
    result = bundle.oci(verb, "nobody")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "sampan-oci: container does not exist: nobody\n"


@pytest.mark.parametrize("verb", ["pause", "update", "events", "kill", "exec"])
def test_a_stopped_container_refuses(bundle: Bundle, verb: str):
    bundle.start("exit 0")
    wait_for("the end", lambda: bundle.state()["status"] == "stopped")
    words = ["true"] if verb == "exec" else []
    assert bundle.oci(verb, bundle.id, *words).returncode in (1, 255)


def test_cgroup_paths_that_are_relative_lie_below_the_callers_own(bundle: Bundle):
    own = f"/sampan-test/own-{bundle.id}"
    outer = cgroups.manager(own)
    outer.create({})
    name = f"r{bundle.id}"
    bundle.config["linux"]["cgroupsPath"] = name
    bundle.command("sleep", "1000")
    bundle.save()
    script = (
        f"for d in /sys/fs/cgroup/*/{own}; do echo $$ > $d/cgroup.procs; done; "
        f"{bundle.runtime} --root {bundle.root} run -d {bundle.id} </dev/null >/dev/null"
    )
    try:
        subprocess.run(["sh", "-c", script], check=True, cwd=bundle.path, timeout=30)
        pid = bundle.state()["pid"]
        memory = next(
            line
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            if ":memory:" in line
        )
        assert memory.endswith(f":{own}/{name}")
        # From outside, where "relative" would mean another place.
        bundle.oci("pause", bundle.id, check=True)
        bundle.oci("delete", "--force", bundle.id, check=True)
        assert not cgroups.manager(f"{own}/{name}").exists()
    finally:
        outer.kill()
        outer.remove()


def session_keyring(text: str) -> str:
    """The line of /proc/keys of a process's session keyring."""
    return "\n".join(line for line in text.splitlines() if " _ses" in line)


def test_the_session_keyring_is_the_containers_own(bundle: Bundle):
    bundle.config["linux"]["maskedPaths"] = []
    bundle.start()
    name = f"_ses.{bundle.id}"
    inside = bundle.oci("exec", bundle.id, "cat", "/proc/keys", check=True).stdout
    assert name in session_keyring(inside)
    bundle.oci("delete", "--force", bundle.id, check=True)
    bundle.shell("cat /proc/keys")
    bundle.save()
    kept = bundle.oci("run", "--no-new-keyring", f"{bundle.id}-b", stdin=subprocess.DEVNULL)
    assert kept.returncode == 0
    assert f"{name}-b" not in kept.stdout


def test_a_root_without_pivot(bundle: Bundle):
    bundle.shell("ls /; cat /proc/self/mountinfo; echo $$; touch /dev/shm/x && ls /dev/shm")
    bundle.save()
    result = bundle.oci("run", "--no-pivot", bundle.id, stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert "rootfs" not in lines
    assert "bin" in lines
    assert "/etc/hostname" not in result.stdout
    assert lines[-2:] == ["1", "x"]


@pytest.mark.parametrize("text", ['{"ociVersion": "1.0.2"}', '{"ociVersion": 1}', "{}"])
def test_a_configuration_without_its_parts_is_refused_before_anything_is_made(
    bundle: Bundle, text: str
):
    (bundle.path / "config.json").write_text(text)
    result = bundle.oci("run", bundle.id)
    assert result.returncode == 1
    assert "defect" not in result.stderr
    assert not bundle.root.exists()
