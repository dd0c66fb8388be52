"""Small habits of runc that callers and their suites rely on."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    made.config["root"]["readonly"] = False
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize(
    ("environment", "uid", "home"),
    [
        ([], 0, "/root"),
        ([], 33, "/var"),
        ([], 4711, "/"),
        (["HOME="], 33, "/var"),
        (["HOME=/a", "HOME="], 33, "/var"),
        (["HOME=/a"], 33, "/a"),
    ],
)
def test_home_is_that_of_the_user(bundle: Bundle, environment, uid, home):
    process = bundle.config["process"]
    process["env"] = ["PATH=/bin", *environment]
    process["user"] = {"uid": uid, "gid": 0}
    assert bundle.run("echo $HOME").stdout == f"{home}\n"


def test_home_is_found_behind_links_in_the_root(bundle: Bundle):
    (bundle.rootfs / "etc/passwd").rename(bundle.rootfs / "var/users")
    (bundle.rootfs / "etc/passwd").symlink_to("/var/users")
    assert bundle.run("echo $HOME").stdout == "/root\n"


def test_home_of_an_exec_is_that_of_its_own_user(bundle: Bundle):
    bundle.start()
    words = ["sh", "-c", "echo $HOME"]
    assert bundle.oci("exec", "--user", "33", bundle.id, *words).stdout == "/var\n"
    file = bundle.path / "process.json"
    file.write_text(json.dumps({"args": words, "cwd": "/", "user": {"uid": 33, "gid": 33}}))
    assert bundle.oci("exec", "--process", str(file), bundle.id).stdout == "/var\n"


def test_a_process_file_may_be_a_pipe(bundle: Bundle):
    bundle.start()
    # An affinity is what the machine does not do, so the command is begun again, sealed.
    process = {
        "args": ["echo", "read"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "execCPUAffinity": {"initial": str(min(os.sched_getaffinity(0)))},
    }
    read_end, write_end = os.pipe()
    os.write(write_end, json.dumps(process).encode())
    os.close(write_end)
    words = ["exec", "--process", f"/dev/fd/{read_end}", bundle.id]
    result = bundle.oci(*words, pass_fds=[read_end])
    os.close(read_end)
    assert result.stdout == "read\n", result.stderr


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_cpus_are_not_those_of_the_caller(bundle: Bundle):
    before = os.sched_getaffinity(0)
    listed = "grep Cpus_allowed_list /proc/self/status"
    os.sched_setaffinity(0, {min(before)})
    try:
        first = bundle.run(listed).stdout
        bundle.start()
        second = bundle.oci("exec", bundle.id, "sh", "-c", listed).stdout
    finally:
        os.sched_setaffinity(0, before)
    assert first == second
    assert first.split()[1] != str(min(before))


def test_capabilities_that_cannot_be_granted_are_told_and_left_out(bundle: Bundle):
    sets = bundle.config["process"]["capabilities"]
    sets["bounding"] = [*sets["bounding"], "CAP_UNKNOWN"]
    sets["inheritable"], sets["ambient"] = ["CAP_KILL"], ["CAP_KILL", "CAP_CHOWN"]
    result = bundle.run("grep CapAmb /proc/self/status")
    assert result.stdout.split()[1] == f"{1 << 5:016x}"
    assert "unknown capability CAP_UNKNOWN" in result.stderr
    assert "can't raise ambient capability CAP_CHOWN: " in result.stderr


def test_the_ambient_capabilities_of_older_bundles_are_no_noise(bundle: Bundle):
    sets = bundle.config["process"]["capabilities"]
    sets["ambient"] = list(sets["permitted"])
    result = bundle.run("grep CapAmb /proc/self/status")
    assert (result.stdout, result.stderr) == ("CapAmb:\t0000000000000000\n", "")


def test_a_log_that_cannot_be_written_is_an_error(bundle: Bundle):
    bundle.save()
    result = bundle.oci("--log", "/nonexistent/log", "run", bundle.id)
    assert result.returncode == 1
    assert "unable to open log file /nonexistent/log" in result.stderr


def test_a_log_is_there_though_nothing_was_said(bundle: Bundle):
    bundle.root.mkdir()
    bundle.oci("--log", str(bundle.path / "log"), "list", check=True)
    assert (bundle.path / "log").read_text() == ""


def test_a_root_that_is_named_must_be_there(bundle: Bundle):
    result = bundle.oci("list")
    assert result.returncode == 1
    assert "no such file" in result.stderr


def test_a_relative_mount_point_is_from_the_root(bundle: Bundle):
    bundle.config["mounts"].append({"destination": "tmp/x", "type": "tmpfs", "source": "t"})
    assert " /tmp/x " in bundle.run("grep /tmp/x /proc/mounts").stdout


@pytest.mark.parametrize("link", ["etc/hosts", "etc/below"])
def test_a_file_is_bound_behind_a_dangling_link_of_the_root(bundle: Bundle, link: str):
    source = bundle.path / "source"
    source.write_text("bound")
    if link == "etc/hosts":
        (bundle.rootfs / link).symlink_to("/tmp/not/there/hosts")
        at = "/tmp/not/there/hosts"
    else:
        (bundle.rootfs / link).symlink_to("../tmp/missing")
        link, at = "etc/below/hosts", "/tmp/missing/hosts"
    bundle.config["mounts"].append(
        {"destination": f"/{link}", "type": "bind", "source": str(source), "options": ["bind"]}
    )
    result = bundle.run(f"cat {at} /{link}")
    assert result.stdout == "boundbound", result.stderr
    assert not Path(at).exists()


def test_a_link_in_place_of_proc_is_named(bundle: Bundle):
    (bundle.rootfs / "proc").rmdir()
    (bundle.rootfs / "proc").symlink_to("/tmp")
    assert "/proc must be mounted on ordinary directory" in bundle.run("true").stderr


def test_a_cgroup_with_a_container_in_it_is_refused(bundle: Bundle):
    bundle.start()
    words = ["run", f"{bundle.id}-2"]
    result = bundle.oci(*words, stdin=subprocess.DEVNULL)
    assert "container's cgroup is not empty" in result.stderr
    assert bundle.state()["status"] == "running"


def test_no_processes_means_one(bundle: Bundle):
    bundle.config["linux"]["resources"]["pids"] = {"limit": 0}
    bundle.command("/bin/cat", "/sys/fs/cgroup/pids/pids.max")
    assert bundle.run().stdout == "1\n"


def test_a_domain_name_is_given_once(bundle: Bundle):
    bundle.config["domainname"] = "one"
    bundle.config["linux"]["sysctl"] = {"kernel.domainname": "two"}
    assert "linux.sysctl" in bundle.run("true").stderr
    bundle.config["domainname"] = "two"
    assert bundle.run("cat /proc/sys/kernel/domainname").stdout == "two\n"


def test_devices_of_a_user_namespace_are_no_programs(bundle: Bundle):
    linux = bundle.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [
        {"containerID": 0, "hostID": 100000, "size": 65536}
    ]
    subprocess.run(["chown", "-R", "100000:100000", bundle.rootfs], check=True)
    mounted = bundle.run("grep ' /dev/null ' /proc/mounts").stdout
    assert "nosuid" in mounted
    assert "noexec" in mounted


def test_what_execve_says_is_told_in_the_field_s_words(bundle: Bundle):
    (bundle.rootfs / "run.sh").write_text("#!/nosuch\n")
    (bundle.rootfs / "run.sh").chmod(0o755)
    bundle.start()
    said = bundle.oci("exec", bundle.id, "/run.sh").stderr
    assert "exec /run.sh: no such file or directory" in said
    assert "chdir to" in bundle.oci("exec", "--cwd", "/nosuch", bundle.id, "true").stderr


def test_signal_zero_asks_only(bundle: Bundle):
    bundle.start()
    assert bundle.oci("kill", bundle.id, "0").returncode == 0
    bundle.oci("kill", bundle.id, "KILL", check=True)
    while bundle.state()["status"] != "stopped":
        pass
    assert "container not running" in bundle.oci("kill", bundle.id, "0").stderr


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("user_space", [True, False])
def test_a_filter_may_forbid_what_the_runtime_calls(bundle: Bundle, *, quiet: bool, user_space):
    if user_space:  # which an interpreter makes
        linux = bundle.config["linux"]
        linux["namespaces"].append({"type": "time"})
    bundle.config["process"]["noNewPrivileges"] = quiet
    names = ["close_range", "rt_sigaction", "dup2", "umask", "setgroups", "mount"]
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    }
    bundle.command("/bin/echo", "fine")
    result = bundle.run()
    assert result.stdout == "fine\n", result.stderr


def test_spec_has_a_cgroup_namespace_where_runc_has_one(bundle: Bundle, tmp_path: Path):
    (tmp_path / "new").mkdir()
    bundle.oci("spec", "--bundle", str(tmp_path / "new"), check=True)
    spaces = json.loads((tmp_path / "new/config.json").read_text())["linux"]["namespaces"]
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    assert ({"type": "cgroup"} in spaces) == unified


def test_a_read_only_dev_is_filled_before(bundle: Bundle):
    for mount in bundle.config["mounts"]:
        if mount["destination"] == "/dev":
            mount["options"].append("ro")
    result = bundle.run("test -c /dev/null && ls /dev/pts && touch /dev/new")
    assert "ptmx" in result.stdout
    assert "Read-only file system" in result.stderr


@pytest.mark.parametrize("options", [["ro"], ["ro", "nosuid", "size=65536"]])
def test_a_read_only_tmpfs_holds_what_is_mounted_on_it(bundle: Bundle, options):
    tmpfs = {"type": "tmpfs", "source": "tmpfs", "options": options}
    bundle.config["mounts"] += [
        {**tmpfs, "destination": "/ro"},
        {**tmpfs, "destination": "/ro/below", "options": []},
    ]
    result = bundle.run("touch /ro/below/file && touch /ro/file")
    assert "/ro/file: Read-only file system" in result.stderr


def test_newlines_are_plain_from_the_first_on(bundle: Bundle):
    bundle.config["process"]["terminal"] = True
    bundle.command("/bin/echo", "plain")
    assert bundle.run().stdout == "plain\n"
    bundle.config["process"]["terminal"] = False
    bundle.start()
    said = bundle.oci("exec", "--tty", bundle.id, "echo", "plain", stdin=subprocess.DEVNULL)
    assert said.stdout == "plain\n"


def test_the_signal_that_ended_a_hook_has_its_name(bundle: Bundle):
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "kill -SYS $$"]}
    bundle.config["hooks"] = {"createRuntime": [hook]}
    assert "signal: bad system call" in bundle.run("true").stderr


def test_a_sub_cgroup_without_controller_is_one_of_each(bundle: Bundle):
    bundle.start()
    refused = bundle.oci("exec", "--cgroup", "..", bundle.id, "true")
    assert "bad sub cgroup path" in refused.stderr
    group = bundle.group()
    for directory in set(group.names().values()):
        os.mkdir(f"{directory}/below")
    said = bundle.oci("exec", "--cgroup", "below", bundle.id, "cat", "/proc/self/cgroup").stdout
    assert {line.rpartition("/")[2] for line in said.splitlines() if line[:2] != "0:"} == {"below"}


def test_a_limit_of_no_processes_by_flag_means_one(bundle: Bundle):
    bundle.start()
    bundle.oci("update", "--pids-limit", "0", bundle.id, check=True)
    assert bundle.group().stats()["pids"]["limit"] == 1
