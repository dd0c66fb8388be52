"""The rarer fields of a configuration, seen from inside: schedulers, memory policy, personality,
labels, network devices, mapped ids, copies in a tmpfs, and an agent for system calls."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from bundles import Bundle
from sampan.kernel import fds
from sampan.runtime import labels

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MAPPED = [{"containerID": 0, "hostID": 100000, "size": 65536}]
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101  # linux/seccomp.h


@pytest.fixture
def bundle(tmp_path: Path):
    made = Bundle(tmp_path)
    made.config["root"]["readonly"] = False
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def refused(bundle: Bundle, field: str) -> str:
    """Nothing was made, and the message begins with the field."""
    result = bundle.run("true")
    assert result.returncode == 1
    assert field in result.stderr
    assert not list(bundle.root.glob("*"))
    assert bundle.cgroup_is_gone()
    return result.stderr


# Fields 40 and 41 of /proc/PID/stat: real-time priority and policy; 19 is nice.


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ({"policy": "SCHED_OTHER", "nice": 7}, "7 0 0"),
        ({"policy": "SCHED_BATCH", "nice": -3}, "-3 0 3"),
        ({"policy": "SCHED_IDLE"}, "0 0 5"),
        ({"policy": "SCHED_FIFO", "priority": 9}, "0 9 1"),
        (
            {"policy": "SCHED_RR", "priority": 4, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            "0 4 1073741826",
        ),
    ],
)
def test_the_scheduler_is_the_one_that_was_asked_for(bundle: Bundle, scheduler, said):
    bundle.config["process"]["scheduler"] = scheduler
    bundle.config["linux"]["resources"]["cpu"] = {"realtimePeriod": 1000000}
    bundle.command("/bin/cut", "-d ", "-f19,40,41", "/proc/self/stat")
    result = bundle.run()
    if result.returncode and scheduler["policy"] in ("SCHED_FIFO", "SCHED_RR"):
        assert "realtimeRuntime" in result.stderr
        pytest.skip("the cgroup has no share of real time")
    # The kernel keeps SCHED_RESET_ON_FORK to itself in this file.
    assert result.stdout.split()[:2] == said.split()[:2], result.stderr
    assert int(result.stdout.split()[2]) & 0xF == int(said.split()[2]) & 0xF


@pytest.mark.parametrize(
    ("scheduler", "field"),
    [
        ({}, "process.scheduler.policy"),
        ({"policy": "SCHED_NICE"}, "process.scheduler.policy"),
        ({"policy": "SCHED_OTHER", "nice": 20}, "process.scheduler.nice"),
        ({"policy": "SCHED_OTHER", "priority": 1}, "process.scheduler.priority"),
        ({"policy": "SCHED_FIFO", "priority": 100}, "process.scheduler.priority"),
        ({"policy": "SCHED_OTHER", "runtime": 5}, "process.scheduler"),
        ({"policy": "SCHED_OTHER", "flags": ["FAST"]}, "process.scheduler.flags"),
        ("SCHED_FIFO", "process.scheduler"),
    ],
)
def test_a_wrong_scheduler_is_refused(bundle: Bundle, scheduler, field):
    bundle.config["process"]["scheduler"] = scheduler
    refused(bundle, field)


@pytest.mark.parametrize(
    ("times", "field", "problem"),
    [
        ({"deadline": 20_000_000}, "runtime", "requires `runtime`"),
        ({"runtime": 10_000_000}, "deadline", "requires `deadline`"),
        ({"runtime": 0, "deadline": 20_000_000}, "runtime", "must be greater than 0"),
        ({"runtime": 1023, "deadline": 20_000_000}, "runtime", "must be between 1024"),
        ({"runtime": 1 << 63, "deadline": 1 << 63}, "runtime", "must be between 1024"),
        ({"runtime": 3000, "deadline": 2000}, "runtime", "must be <= deadline (2000)"),
        ({"runtime": 2000, "deadline": 3000, "period": 2500}, "deadline", "<= period (2500)"),
    ],
)
def test_times_that_the_kernel_would_refuse_are_named(bundle: Bundle, times, field, problem):
    bundle.config["process"]["scheduler"] = {"policy": "SCHED_DEADLINE", **times}
    assert problem in refused(bundle, f"process.scheduler.{field}")


def test_the_io_priority_counts_for_exec_too(bundle: Bundle):
    bundle.config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    bundle.start()
    pid = bundle.state()["pid"]
    assert ctypes.CDLL(None).syscall(252, 1, pid) == 2 << 13 | 6
    result = bundle.oci("exec", bundle.id, "ionice", "-p", "1")
    assert result.stdout.strip() == "best-effort: prio 6"
    inner = bundle.oci("exec", bundle.id, "sh", "-c", "ionice -p $$")
    assert inner.stdout.strip() == "best-effort: prio 6"


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"class": "IOPRIO_CLASS_BEST", "priority": 1}, "process.ioPriority.class"),
        ({"class": "IOPRIO_CLASS_BE", "priority": 8}, "process.ioPriority.priority"),
        ({"class": "IOPRIO_CLASS_BE", "priority": "1"}, "process.ioPriority.priority"),
    ],
)
def test_a_wrong_io_priority_is_refused(bundle: Bundle, wanted, field):
    bundle.config["process"]["ioPriority"] = wanted
    refused(bundle, field)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_cpus_of_an_exec_are_its_own(bundle: Bundle):
    first, second, *_ = sorted(os.sched_getaffinity(0))
    affinity = {"initial": str(first), "final": str(second)}
    bundle.config["process"]["execCPUAffinity"] = affinity
    bundle.start()
    listed = ["grep", "Cpus_allowed_list", "/proc/self/status"]
    assert bundle.oci("exec", bundle.id, *listed).stdout.split()[1] == str(second)
    init = Path(f"/proc/{bundle.state()['pid']}/status").read_text()
    assert f"Cpus_allowed_list:\t{second}\n" not in init


def test_wrong_cpus_are_refused(bundle: Bundle):
    bundle.config["process"]["execCPUAffinity"] = {"initial": "0-x"}
    refused(bundle, "process.execCPUAffinity.initial")


NUMA = "head -n 1 /proc/self/numa_maps | cut -d ' ' -f 2"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, "interleave:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_DEFAULT"}, "default"),
    ],
)
def test_the_memory_policy_is_the_one_that_was_asked_for(bundle: Bundle, policy, said):
    bundle.config["linux"]["memoryPolicy"] = policy
    bundle.start()
    assert bundle.oci("exec", bundle.id, "sh", "-c", NUMA).stdout.strip() == said
    assert Path(f"/proc/{bundle.state()['pid']}/numa_maps").read_text().split()[1] == said


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({}, "linux.memoryPolicy.mode"),
        ({"mode": "INTERLEAVE", "nodes": "0"}, "linux.memoryPolicy.mode"),
        ({"mode": "MPOL_DEFAULT", "nodes": "0-7"}, "mode requires 0 nodes but got 8"),
        ({"mode": "MPOL_BIND"}, "linux.memoryPolicy.nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0-9876543210"}, "linux.memoryPolicy.nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["bad"]}, "linux.memoryPolicy.flags"),
    ],
)
def test_a_wrong_memory_policy_is_refused(bundle: Bundle, policy, field):
    bundle.config["linux"]["memoryPolicy"] = policy
    refused(bundle, field)


def test_the_personality_counts_for_exec_too(bundle: Bundle):
    bundle.config["linux"]["personality"] = {"domain": "LINUX32"}
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO"}],
    }
    bundle.start()
    assert bundle.oci("exec", bundle.id, "uname", "-m").stdout.strip() == "i686"
    assert Path(f"/proc/{bundle.state()['pid']}/personality").read_text().strip() == "00000008"


@pytest.mark.parametrize("personality", [{"domain": "BSD"}, {"domain": "LINUX", "flags": ["X"]}])
def test_a_wrong_personality_is_refused(bundle: Bundle, personality):
    bundle.config["linux"]["personality"] = personality
    refused(bundle, "linux.personality")


def test_intel_rdt_is_refused(bundle: Bundle):
    bundle.config["linux"]["intelRdt"] = {"closID": "x"}
    refused(bundle, "linux.intelRdt")


@pytest.mark.parametrize(
    ("place", "field", "has"),
    [
        ("process", "apparmorProfile", labels.has_apparmor),
        ("process", "selinuxLabel", labels.has_selinux),
        ("linux", "mountLabel", labels.has_selinux),
    ],
)
def test_a_label_that_the_kernel_cannot_keep_is_refused(bundle: Bundle, place, field, has):
    if has():
        pytest.skip("this kernel has the module")
    bundle.config[place][field] = "some_label"
    assert "not enabled on this kernel" in refused(bundle, f"{place}.{field}")


@pytest.mark.skipif(not labels.has_apparmor(), reason="this kernel has no AppArmor")
def test_an_apparmor_profile_is_the_one_of_the_process(bundle: Bundle):
    name = "sampan-test"
    profile = f"profile {name} flags=(attach_disconnected) {{ file, capability, mount, }}"
    load = ["apparmor_parser", "--replace", "--skip-cache"]
    subprocess.run(load, input=profile, text=True, check=True)
    try:
        bundle.config["process"]["apparmorProfile"] = name
        bundle.start()
        inside = bundle.oci("exec", bundle.id, "cat", "/proc/self/attr/current").stdout
        assert inside.strip() == f"{name} (enforce)"
        assert Path(f"/proc/{bundle.state()['pid']}/attr/current").read_text() == inside
        bundle.oci("delete", "--force", bundle.id)
        bundle.config["process"]["apparmorProfile"] = "no-such-profile"
        assert "set the AppArmor label" in bundle.run("true").stderr
    finally:
        subprocess.run(["apparmor_parser", "--remove"], input=profile, text=True, check=True)


def test_unconfined_needs_no_module(bundle: Bundle):
    bundle.config["process"]["apparmorProfile"] = "unconfined"
    assert bundle.run("echo fine").stdout == "fine\n"


@pytest.fixture
def device():
    """A virtual device of this network namespace, with its peer."""
    name, peer = f"s{os.getpid() % 99999}a", f"s{os.getpid() % 99999}b"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", peer], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", peer], check=False, capture_output=True)


def test_a_network_device_moves_with_its_lasting_addresses(bundle: Bundle, device: str):
    for words in (["mtu", "1432"], ["address", "02:00:00:00:00:07"]):
        subprocess.run(["ip", "link", "set", device, *words], check=True)
    for address in ("198.51.100.7/24", "2001:db8::7/64"):
        extra = ["nodad"] if ":" in address else []
        subprocess.run(["ip", "address", "add", address, "dev", device, *extra], check=True)
    subprocess.run(
        ["ip", "address", "add", "198.51.100.8/24", "dev", device, "valid_lft", "99",
         "preferred_lft", "99"], check=True,
    )  # fmt: skip
    bundle.config["linux"]["netDevices"] = {device: {"name": "data0"}}
    shown = bundle.run("ip address show dev data0").stdout
    for part in ("mtu 1432", "02:00:00:00:00:07", "198.51.100.7/24", "2001:db8::7/64", ",UP"):
        assert part in shown
    assert "198.51.100.8" not in shown


def test_a_network_device_moves_into_a_namespace_that_is_joined(bundle: Bundle, device: str):
    holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    path = f"/proc/{holder.pid}/ns/net"
    try:
        while os.readlink(path) == os.readlink("/proc/self/ns/net"):
            assert holder.poll() is None
        for space in bundle.config["linux"]["namespaces"]:
            if space["type"] == "network":
                space["path"] = path
        bundle.config["linux"]["netDevices"] = {device: {}}
        assert f"{device}@" in bundle.run("ip link show").stdout
    finally:
        holder.kill()
        holder.wait()


def test_a_missing_network_device_undoes_everything(bundle: Bundle):
    bundle.config["linux"]["netDevices"] = {"nosuch0": {}}
    refused(bundle, "there is no network device nosuch0")


@pytest.mark.parametrize(
    "devices", [{"a/b": {}}, {"x" * 16: {}}, {"a": {"name": "c"}, "b": {"name": "c"}}, {"a": 1}]
)
def test_wrong_network_devices_are_refused(bundle: Bundle, devices):
    bundle.config["linux"]["netDevices"] = devices
    refused(bundle, "linux.netDevices")


def test_network_devices_need_a_namespace(bundle: Bundle):
    spaces = bundle.config["linux"]["namespaces"]
    bundle.config["linux"]["namespaces"] = [one for one in spaces if one["type"] != "network"]
    bundle.config["linux"]["netDevices"] = {"eth0": {}}
    refused(bundle, "linux.netDevices")


# Bind mounts with mapped ids


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with a file of root, and a mount below with another."""
    path = tmp_path / "source"
    (path / "below").mkdir(parents=True)
    (path / "file").write_text("")
    return path


def bind(source: Path, *options: str, **more: object) -> dict[str, object]:
    words = ["rbind", *options]
    return {
        "destination": "/mapped",
        "type": "bind",
        "source": str(source),
        "options": words,
        **more,
    }


def test_a_mount_with_its_own_mappings_shows_other_owners(bundle: Bundle, source: Path):
    maps = {"uidMappings": MAPPED, "gidMappings": [{**MAPPED[0], "hostID": 200000}]}
    bundle.config["mounts"].append(bind(source, "idmap", **maps))
    assert bundle.run("stat -c %u:%g /mapped/file").stdout == "100000:200000\n"
    assert os.stat(source / "file").st_uid == 0


def test_mappings_without_the_word_count_as_well(bundle: Bundle, source: Path):
    maps = {"uidMappings": MAPPED, "gidMappings": MAPPED}
    bundle.config["mounts"].append(bind(source, **maps))
    assert bundle.run("stat -c %u:%g /mapped/file").stdout == "100000:100000\n"


@pytest.mark.parametrize(("word", "owner"), [("idmap", "0:0"), ("ridmap", "100000:100000")])
def test_what_is_mounted_below_is_mapped_with_ridmap_only(
    bundle: Bundle, source: Path, word: str, owner: str
):
    subprocess.run(["mount", "-t", "tmpfs", "none", source / "below"], check=True)
    try:
        (source / "below/file").write_text("")
        maps = {"uidMappings": MAPPED, "gidMappings": MAPPED}
        bundle.config["mounts"].append(bind(source, word, **maps))
        script = "stat -c %u:%g /mapped/file /mapped/below/file"
        assert bundle.run(script).stdout == f"100000:100000\n{owner}\n"
    finally:
        subprocess.run(["umount", source / "below"], check=True)


def test_without_mappings_those_of_the_user_namespace_count(bundle: Bundle, source: Path):
    linux = bundle.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = MAPPED
    subprocess.run(["chown", "-R", "100000:100000", bundle.rootfs], check=True)
    bundle.config["mounts"].append(bind(source, "idmap"))
    assert bundle.run("stat -c %u:%g /mapped/file; id -u").stdout == "0:0\n0\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "tmpfs", "options": ["idmap"]}, "only supported for bind-mounts"),
        ({"options": ["rbind", "idmap"]}, "no mappings"),
        ({"uidMappings": MAPPED}, "gidMappings"),
        ({"uidMappings": [{"size": 0}], "gidMappings": MAPPED}, "uidMappings[0]"),
    ],
)
def test_wrong_mappings_of_a_mount_are_refused(bundle: Bundle, source: Path, change, said):
    bundle.config["mounts"].append({**bind(source), **change})
    assert said in refused(bundle, f"mounts[{len(bundle.config['mounts']) - 1}]")


# tmpfs


def tmpfs(*options: str) -> dict[str, object]:
    return {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def test_a_tmpfs_begins_with_a_copy(bundle: Bundle):
    data = bundle.rootfs / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub/file").write_text("content" * 1000)
    os.chown(data / "sub/file", 33, 34)
    (data / "sub/file").chmod(0o4757)
    os.utime(data / "sub/file", (1000, 2000))
    (data / "out").symlink_to("/etc/passwd")
    os.mkfifo(data / "pipe", 0o604)
    (data / "sub").chmod(0o2710)
    bundle.config["mounts"].append(tmpfs("tmpcopyup", "nosuid", "nodev"))
    result = bundle.run(
        "cd /data; stat -c '%n %u:%g %a %Y %F' sub/file; stat -c '%a %F' sub pipe;"
        "readlink out; wc -c < sub/file; echo new > sub/file; grep /data /proc/self/mountinfo"
    )
    lines = result.stdout.splitlines()
    assert not result.stderr
    assert lines[:5] == [
        "sub/file 33:34 4757 2000 regular file",
        "2710 directory",
        "604 fifo",
        "/etc/passwd",
        "7000",
    ]
    assert "nosuid,nodev" in lines[5]
    assert (data / "sub/file").read_text() == "content" * 1000


def test_a_copy_can_be_read_only(bundle: Bundle):
    (bundle.rootfs / "data").mkdir()
    (bundle.rootfs / "data/file").write_text("content")
    bundle.config["mounts"].append(tmpfs("tmpcopyup", "ro"))
    result = bundle.run("cat /data/file; touch /data/new")
    assert result.stdout == "content"
    assert "Read-only" in result.stderr


def test_a_copy_stays_inside_of_the_root(bundle: Bundle, tmp_path: Path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("of the host")
    (bundle.rootfs / "data").symlink_to(tmp_path / "secret")
    bundle.config["mounts"].append(tmpfs("tmpcopyup"))
    assert "of the host" not in bundle.run("find / -xdev -name key | xargs cat").stdout


def test_a_copy_is_for_tmpfs_only(bundle: Bundle, source: Path):
    bundle.config["mounts"].append(bind(source, "tmpcopyup"))
    refused(bundle, "tmpcopyup")


def test_a_tmpfs_has_the_mode_of_what_it_covers(bundle: Bundle):
    (bundle.rootfs / "data").mkdir()
    (bundle.rootfs / "data").chmod(0o2705)
    bundle.config["mounts"] += [tmpfs(), {**tmpfs(), "destination": "/new"}]
    assert bundle.run("stat -c %a /data /new").stdout == "2705\n1777\n"
    bundle.config["mounts"][-2]["options"] = ["mode=0711"]
    assert bundle.run("stat -c %a /data").stdout == "711\n"


# cgroup mounts


def test_a_mount_of_version_2_is_of_version_2(bundle: Bundle):
    if "cgroup2 /sys/fs/cgroup/unified" not in Path("/proc/mounts").read_text():
        pytest.skip("needs a host with both versions")
    mount = {"destination": "/two", "type": "cgroup2", "source": "cgroup2", "options": ["ro"]}
    bundle.config["mounts"].append(mount)
    result = bundle.run("cat /two/cgroup.type /two/cgroup.procs; grep ' /two ' /proc/mounts")
    assert " cgroup2 ro" in result.stdout


# An agent for system calls


class Agent:
    """Takes one listener, and answers `count` notifications with an errno."""

    def __init__(self, path: Path, count: int = 1) -> None:
        self.path, self.count = path, count
        self.told: list[dict[str, object]] = []
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        for _ in range(self.count):
            connection, _ = self.listening.accept()
            with connection:
                text, passed = fds.receive(connection, 65536)
            if not text:
                return
            self.told.append(json.loads(text))
            (listener,) = passed
            self.answer(listener)
            os.close(listener)

    @staticmethod
    def answer(listener: int) -> None:
        notification = bytearray(80)
        fcntl.ioctl(listener, NOTIF_RECV, notification)
        (number,) = struct.unpack_from("<Q", notification)
        fcntl.ioctl(listener, NOTIF_SEND, struct.pack("<QqiI", number, 0, -errno.ENOMEDIUM, 0))

    def close(self) -> None:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(self.path))
        except ConnectionRefusedError:
            pass
        self.thread.join(20)
        self.listening.close()


@pytest.fixture
def agent():
    made = []

    def make(path: Path, count: int = 1) -> Agent:
        made.append(Agent(path, count))
        return made[-1]

    yield make
    for one in made:
        one.close()


def notify(bundle: Bundle, path: Path, *names: str) -> None:
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": str(path),
        "listenerMetadata": "some metadata",
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
    }


@pytest.mark.parametrize("quiet", [True, False])
def test_an_agent_answers_for_system_calls(bundle: Bundle, tmp_path: Path, agent, quiet: bool):
    answering = agent(tmp_path / "agent")
    notify(bundle, answering.path, "mkdir")
    bundle.config["process"]["noNewPrivileges"] = quiet
    result = bundle.run("mkdir /tmp/x; echo done")
    assert "No medium found" in result.stderr
    assert result.stdout == "done\n"
    (told,) = answering.told
    assert told["fds"] == ["seccompFd"]
    assert told["metadata"] == "some metadata"
    assert told["state"]["id"] == bundle.id
    assert told["state"]["status"] == "creating"
    assert told["pid"] == told["state"]["pid"] > 1


def test_an_agent_is_told_of_an_exec(bundle: Bundle, tmp_path: Path, agent):
    answering = agent(tmp_path / "agent", count=2)
    notify(bundle, answering.path, "mkdir")
    bundle.start("mkdir /tmp/x; sleep 1000")
    result = bundle.oci("exec", bundle.id, "mkdir", "/tmp/y")
    assert "No medium found" in result.stderr
    first, second = answering.told
    init = bundle.state()["pid"]
    assert first["pid"] == init
    assert second["state"]["pid"] == init != second["pid"]
    assert second["state"]["status"] == "running"


def test_an_agent_is_told_at_the_start_of_a_created_container(bundle, tmp_path: Path, agent):
    answering = agent(tmp_path / "agent")
    notify(bundle, answering.path, "mkdir")
    bundle.shell("mkdir /tmp/x; sleep 1000")
    bundle.save()
    words = [bundle.runtime, "--root", str(bundle.root), "create", bundle.id]
    null = subprocess.DEVNULL
    subprocess.run(words, check=True, cwd=bundle.path, stdin=null, stdout=null, stderr=null)
    assert not answering.told
    bundle.oci("start", bundle.id, check=True)
    answering.thread.join(20)
    assert answering.told[0]["pid"] == bundle.state()["pid"]


def test_a_profile_that_notifies_nobody_needs_no_agent(bundle: Bundle, tmp_path: Path):
    notify(bundle, tmp_path / "nobody", "mkdir")
    bundle.config["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_ERRNO"
    bundle.config["linux"]["seccomp"]["flags"] = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    assert bundle.run("echo fine").stdout == "fine\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"listenerPath": ""}, "linux.seccomp.listenerPath"),
        ({"listenerPath": "/nonexistent/agent"}, "linux.seccomp.listenerPath"),
        ({"listenerMetadata": 7}, "linux.seccomp.listenerMetadata"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction"),
        (
            {"syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]},
            "cannot be used for the write syscall",
        ),
    ],
)
def test_what_cannot_be_notified_is_refused(bundle: Bundle, tmp_path: Path, change, said):
    notify(bundle, tmp_path / "nobody", "mkdir")
    bundle.config["linux"]["seccomp"].update(change)
    refused(bundle, said)
