"""sampan-oci on the real kernel: what a container sees, and what is left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_run_gives_the_exit_code_and_leaves_nothing(bundle: Bundle):
    result = bundle.run("echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert os.listdir(bundle.root) == []
    assert bundle.cgroup_is_gone()


def test_a_killed_process_gives_128_and_the_signal(bundle: Bundle):
    # The first process of a pid namespace ignores signals that it has no handler for.
    assert bundle.run("sh -c 'kill -9 $$'; exit $?").returncode == 137


def test_only_standard_streams_are_open(bundle: Bundle):
    with open("/etc/hostname", "rb") as leak:
        os.set_inheritable(leak.fileno(), True)
        result = bundle.run("cd /proc/self/fd && for f in *; do readlink $f || echo $f; done")
    # The fourth is the directory that the shell reads.
    assert len(result.stdout.split()) <= 4
    assert "hostname" not in result.stdout


def test_pid_host_name_and_cgroup_are_the_containers_own(bundle: Bundle):
    result = bundle.run("echo $$; hostname; cat /proc/self/cgroup")
    lines = result.stdout.splitlines()
    assert lines[:2] == ["1", "sampan"]
    assert all(line.endswith(":/") for line in lines[2:])


def test_status_shows_dropped_capabilities_and_clean_signals(bundle: Bundle):
    bundle.command("cat", "/proc/self/status")
    result = bundle.run()
    status = dict(line.split(":\t", 1) for line in result.stdout.splitlines() if ":\t" in line)
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "0000000020000420"
    assert status["CapInh"] == status["CapAmb"] == "0" * 16
    assert status["NoNewPrivs"] == "1"
    assert status["SigIgn"] == status["SigBlk"] == "0" * 16


def test_user_groups_umask_and_limits(bundle: Bundle):
    bundle.config["process"]["user"] = {
        "uid": 33,
        "gid": 34,
        "additionalGids": [8, 10],
        "umask": 0o027,
    }
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]
    result = bundle.run("id -u; id -g; id -G; umask; ulimit -n; ulimit -Hn")
    assert result.stdout.split("\n")[:6] == ["33", "34", "34 8 10", "0027", "77", "99"]


def test_limits_above_what_the_caller_may_give_are_lowered(bundle: Bundle):
    huge = 1 << 40
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": huge, "hard": huge}]
    result = bundle.run("ulimit -Hn")
    assert result.returncode == 0
    assert 0 < int(result.stdout) <= huge


def test_masked_and_readonly_paths(bundle: Bundle):
    script = (
        "cat /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic; "
        "umount /proc/keys; echo x > /file; echo y > /dev/null && echo null"
    )
    bundle.config["linux"]["maskedPaths"].append("/nowhere")
    result = bundle.run(script)
    assert result.stdout == "0\n0\nnull\n"
    assert result.stderr.count("Read-only file system") == 2
    assert "umount" in result.stderr


def test_limits_of_the_cgroup_hold(bundle: Bundle):
    bundle.config["linux"]["resources"] = {
        "memory": {"limit": 32 << 20},
        "pids": {"limit": 9},
        "cpu": {"shares": 512, "quota": 25000, "period": 100000},
    }
    base = "/sys/fs/cgroup"
    result = bundle.run(
        f"cat {base}/memory/memory.limit_in_bytes {base}/pids/pids.max "
        f"{base}/cpu/cpu.shares {base}/cpu/cpu.cfs_quota_us"
    )
    assert result.stdout.split() == [str(32 << 20), "9", "512", "25000"]


def test_memory_beyond_the_limit_is_killed(bundle: Bundle):
    bundle.config["linux"]["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    result = bundle.run("tail /dev/zero; echo $?")
    assert result.stdout.strip() == "137"


@pytest.mark.parametrize("megabytes", [4, 6])
def test_a_tiny_memory_limit_starts(bundle: Bundle, megabytes: int):
    bundle.config["linux"]["resources"] = {"memory": {"limit": megabytes << 20}}
    assert bundle.run("true").returncode == 0


def test_devices_are_denied_but_for_the_usual_ones(bundle: Bundle):
    sets = bundle.config["process"]["capabilities"]
    for names in sets.values():
        names.append("CAP_MKNOD")
    bundle.config["root"]["readonly"] = False
    result = bundle.run("mknod /tmp/sda b 8 0 && cat /tmp/sda; head -c 3 /dev/zero | wc -c")
    assert "Operation not permitted" in result.stderr
    assert result.stdout.strip() == "3"


def test_the_control_files_of_cgroups_cannot_be_written(bundle: Bundle):
    result = bundle.run(
        "echo 1 > /sys/fs/cgroup/memory/cgroup.procs; echo a > /sys/fs/cgroup/devices/devices.allow"
    )
    assert result.stderr.count("Read-only file system") == 2


def test_binds_of_files_and_directories(bundle: Bundle):
    source = bundle.path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    bundle.config["mounts"] += [
        {"destination": "/data/a", "type": "bind", "source": str(source), "options": ["rbind"]},
        {
            "destination": "/data/f",
            "type": "bind",
            "source": str(source / "file"),
            "options": ["bind", "ro"],
        },
    ]
    result = bundle.run("cat /data/a/file /data/f; echo new > /data/a/new; echo x > /data/f")
    assert result.stdout == "contentcontent"
    assert "Read-only file system" in result.stderr
    assert (source / "new").read_text() == "new\n"
    assert (source / "file").read_text() == "content"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nosuch"], 1, 'exec: "nosuch": executable file not found in $PATH'),
        (["/etc/passwd"], 1, 'exec: "/etc/passwd": permission denied'),
        (["/etc"], 1, 'exec: "/etc": is a directory'),
        (["/nope/x"], 1, 'exec: "/nope/x": stat /nope/x: no such file or directory'),
    ],
)
def test_commands_that_cannot_be_executed(
    bundle: Bundle, words: list[str], code: int, message: str
):
    bundle.command(*words)
    result = bundle.run()
    assert (result.returncode, result.stderr) == (code, f"sampan-oci: {message}\n")
    assert os.listdir(bundle.root) == []


def test_a_failing_operation_is_named_and_undone(bundle: Bundle):
    bundle.config["mounts"].append(
        {"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["ro"]}
    )
    result = bundle.run("true")
    assert result.returncode == 1
    assert "bind mount of /no/such/source on /x" in result.stderr
    assert "no such file or directory" in result.stderr
    assert os.listdir(bundle.root) == []
    assert bundle.cgroup_is_gone()


def test_the_life_of_a_container_in_steps(bundle: Bundle):
    bundle.shell("sleep 1000")
    bundle.save()
    pid_file = bundle.path / "pid"
    null = subprocess.DEVNULL
    command = [bundle.runtime, "--root", str(bundle.root), "create", "--pid-file", str(pid_file)]
    subprocess.run([*command, bundle.id], check=True, cwd=bundle.path, stdout=null, stderr=null)
    state = bundle.state()
    assert state["status"] == "created"
    assert state["pid"] == int(pid_file.read_text())
    assert bundle.oci("start", bundle.id).returncode == 0
    assert bundle.state()["status"] == "running"
    again = bundle.oci("start", bundle.id)
    assert "cannot start an already running container" in again.stderr
    refused = bundle.oci("delete", bundle.id)
    assert f"cannot delete container {bundle.id} that is not stopped: running" in refused.stderr
    pidfd = os.pidfd_open(int(pid_file.read_text()))
    assert bundle.oci("kill", bundle.id, "KILL").returncode == 0
    wait_for_end(pidfd)
    assert bundle.state()["status"] == "stopped"
    assert "container not running" in bundle.oci("kill", bundle.id, "KILL").stderr
    assert bundle.oci("delete", bundle.id).returncode == 0
    missing = bundle.oci("state", bundle.id)
    assert (missing.returncode, missing.stderr.strip()) == (
        1,
        f"sampan-oci: container does not exist: {bundle.id}",
    )


def wait_for_end(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(10_000)
    os.close(pidfd)


def test_a_created_container_that_is_deleted_never_ran(bundle: Bundle):
    bundle.config["root"]["readonly"] = False
    bundle.shell("touch /ran")
    bundle.save()
    words = [bundle.runtime, "--root", str(bundle.root), "create", bundle.id]
    subprocess.run(words, check=True, cwd=bundle.path, stdout=subprocess.DEVNULL)
    assert bundle.oci("delete", bundle.id).returncode == 0
    assert not (bundle.rootfs / "ran").exists()


def test_exec_joins_with_the_same_rights(bundle: Bundle):
    bundle.start()
    probe = "cat /proc/self/status | grep -E 'Cap|NoNew|Seccomp|SigBlk'; cat /proc/self/cgroup"
    inside = bundle.oci("exec", bundle.id, "sh", "-c", probe)
    first = bundle.oci("exec", bundle.id, "sh", "-c", probe.replace("/self/", "/1/"))
    assert inside.stdout == first.stdout
    assert "CapEff" in inside.stdout


def test_exec_sees_the_containers_processes_and_gives_the_code(bundle: Bundle):
    bundle.start()
    result = bundle.oci(
        "exec", "--cwd", "/tmp", "-e", "A=b", bundle.id, "sh", "-c", "pwd; echo $A; exit 5"
    )
    assert (result.returncode, result.stdout) == (5, "/tmp\nb\n")
    listed = bundle.oci("exec", bundle.id, "ps").stdout
    assert "sleep 1000" in listed
    missing = bundle.oci("exec", bundle.id, "nosuch")
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.stderr


def test_exec_as_another_user_has_no_capabilities_left(bundle: Bundle):
    bundle.start()
    result = bundle.oci(
        "exec",
        "--user",
        "33:34",
        bundle.id,
        "sh",
        "-c",
        "id -u; id -g; grep CapEff /proc/self/status",
    )
    assert result.stdout.split() == ["33", "34", "CapEff:", "0" * 16]


def test_exec_with_a_terminal(bundle: Bundle):
    bundle.start()
    result = bundle.oci(
        "exec",
        "--tty",
        bundle.id,
        "sh",
        "-c",
        "tty; test -t 0 && echo yes",
        stdin=subprocess.DEVNULL,
    )
    assert result.stdout.split() == ["/dev/pts/0", "yes"]


def test_two_containers_do_not_share_an_id(bundle: Bundle):
    bundle.start()
    result = bundle.oci("create", bundle.id)
    assert f"container with given ID already exists: {bundle.id}" in result.stderr
    assert bundle.state()["status"] == "running"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "a b", "x\n"])
def test_ids_that_are_paths_are_refused(bundle: Bundle, name: str):
    bundle.save()
    result = bundle.oci("create", name)
    assert result.returncode == 1
    assert "invalid container id" in result.stderr
    assert not bundle.root.exists() or os.listdir(bundle.root) == []


def test_list_in_its_three_forms(bundle: Bundle):
    bundle.start()
    table = bundle.oci("list").stdout.splitlines()
    assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert table[1].split()[0] == bundle.id
    assert bundle.oci("list", "--quiet").stdout == f"{bundle.id}\n"
    assert json.loads(bundle.oci("list", "--format", "json").stdout)[0]["id"] == bundle.id


def test_errors_go_to_the_log_as_runc_writes_them(bundle: Bundle):
    log = bundle.path / "log"
    bundle.oci("--log", str(log), "--log-format", "json", "state", "nope")
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist: nope")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}', "\xff", ""])
def test_a_malformed_configuration_makes_nothing(bundle: Bundle, text: str):
    (bundle.path / "config.json").write_text(text, encoding="latin-1")
    result = bundle.oci("run", bundle.id)
    assert result.returncode == 1
    assert "config.json" in result.stderr
    assert "Traceback" not in result.stderr
    assert not bundle.root.exists()


def test_plan_prints_every_operation_and_does_none(bundle: Bundle):
    bundle.shell("true")
    bundle.save()
    result = bundle.oci("plan")
    assert "pivot into the root file system" in result.stdout
    assert "wait for start" in result.stdout
    assert not bundle.root.exists()


def test_killed_between_create_and_start_it_can_be_deleted(bundle: Bundle):
    bundle.shell("sleep 1000")
    bundle.save()
    null = subprocess.DEVNULL
    for delay in (0.005, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08):
        words = [bundle.runtime, "--root", str(bundle.root), "create", bundle.id]
        process = subprocess.Popen(words, cwd=bundle.path, stdout=null, stderr=null)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert bundle.oci("delete", "--force", bundle.id).returncode == 0
        assert bundle.cgroup_is_gone()
        assert not (bundle.root / bundle.id).exists()


def test_a_source_that_was_mounted_after_the_child_was_made_is_bound(tmp_path: Path):
    """A blank child has the mounts of its birth; binds come from the mounts of the launch."""
    from sampan.kernel import fds
    from sampan.runtime import create as runtime

    bundle = Bundle(tmp_path)
    late = tmp_path / "late"
    late.mkdir()
    blank = runtime.make_blank(["ipc", "mount", "network", "pid", "uts"])
    subprocess.run(["mount", "-t", "tmpfs", "late", str(late)], check=True)
    (late / "file").write_text("mounted late")
    bundle.config["mounts"].append({"destination": "/late", "type": "bind", "source": str(late)})
    bundle.shell("cat /late/file")
    bundle.config["root"]["path"] = str(bundle.rootfs)
    read_end, write_end = os.pipe()
    created = runtime.create(
        bundle.id,
        bundle.config,
        stdio=(0, write_end, 2),
        attach_at=str(tmp_path),
        blank=blank,
        use_gate=False,
    )
    os.close(write_end)
    with os.fdopen(read_end) as output:
        assert output.read() == "mounted late"
    os.waitid(os.P_PIDFD, created.pidfd, os.WEXITED)
    fds.close_all([created.pidfd])
    assert created.cgroup is not None
    created.cgroup.remove()
    subprocess.run(["umount", str(late)], check=True)


def test_more_binds_than_one_message_carries(bundle: Bundle):
    source = bundle.path / "source"
    source.write_text("x")
    bundle.config["root"]["readonly"] = False
    for number in range(300):
        mount = {"destination": f"/b/{number}", "type": "bind", "source": str(source)}
        bundle.config["mounts"].append(mount)
    assert bundle.run("cat /b/* | wc -c").stdout.strip() == "300"
