"""Cgroups on the real kernel, below /sampan-test/<unique> only, and nothing of them left."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from sampan.kernel import bpf, cgroups
from sampan.kernel.cgroups import hierarchy, v1, v2
from sampan.kernel.cgroups.tree import below, remove_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MIB = 1 << 20
ROOT = "/sampan-test"


def is_v2_mounted():
    return any(tree.version == 2 for tree in hierarchy.mounted())


@pytest.fixture
def parent():
    """A cgroup path of this test; a test that leaves something below it fails."""
    path = f"{ROOT}/{os.getpid()}-{time.monotonic_ns()}"
    yield path
    left = [tree.name(name) for tree in hierarchy.mounted() for name in below(tree, path[1:])]
    for tree in hierarchy.mounted():
        remove_tree(tree, path[1:], 0)
    assert left == []


@pytest.fixture(params=["v1", "v2"])
def cgroup(request, parent):
    """A cgroup that does not exist yet, of each version that this host has mounted."""
    versions = {tree.version for tree in hierarchy.mounted()}
    kind, number = (v1.Cgroup, 1) if request.param == "v1" else (v2.Cgroup, 2)
    if number not in versions:
        pytest.skip(f"no version {number} here")
    group = kind(f"{parent}/c")
    yield group
    if group.exists():
        group.kill()
        group.remove()


@pytest.fixture
def first(parent):
    """A cgroup of version 1 that does not exist yet: here are the controllers."""
    if not any("memory" in tree.controllers for tree in hierarchy.mounted()):
        pytest.skip("needs version 1 controllers")
    group = v1.Cgroup(f"{parent}/c")
    yield group
    if group.exists():
        group.kill()
        group.remove()


class Member:
    """A child process in a cgroup, which does what it is told, byte by byte."""

    def __init__(self, group):
        fds = group.procs_fds()
        self.ready, ready = os.pipe()
        go, self.go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.go)
                for _, fd in fds:
                    os.write(fd, b"0")
                os.write(ready, b"j")
                while command := os.read(go, 1):
                    os.write(ready, self.obey(command))
            finally:
                os._exit(0)
        for fd in (ready, go, *(fd for _, fd in fds)):
            os.close(fd)
        assert os.read(self.ready, 1) == b"j"

    @staticmethod
    def obey(command):
        try:
            if command == b"m":
                return bytes(memoryview(b"x" * (64 * MIB))[:1])
            if command == b"f":
                child = os.fork()
                if child == 0:
                    os._exit(0)
                os.waitpid(child, 0)
            if command == b"z":
                os.close(os.open("/dev/zero", os.O_RDONLY))
        except OSError as error:
            return bytes([error.errno])
        return b"k"

    def tell(self, command):
        os.write(self.go, command)
        return os.read(self.ready, 1)

    def end(self):
        """The exit status, or minus the signal."""
        os.close(self.go)
        os.close(self.ready)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def membership(pid):
    with open(f"/proc/{pid}/cgroup") as stream:
        lines = [line.rstrip("\n").split(":", 2) for line in stream]
    return {controllers: path for _, controllers, path in lines}


def test_this_host_is_recognised():
    assert cgroups.mode() in {"legacy", "hybrid", "unified"}
    assert isinstance(cgroups.manager(f"{ROOT}/x"), cgroups.detect())
    assert not cgroups.manager(f"{ROOT}/no-such-cgroup").exists()


def test_life(cgroup, parent):
    cgroup.create({})
    assert cgroup.exists()
    member = Member(cgroup)
    assert cgroup.pids() == [member.pid]
    names = cgroup.names()
    for controllers, path in membership(member.pid).items():
        if any(controller in names for controller in controllers.split(",")):
            assert path == f"{parent}/c"
    assert member.end() == 0
    cgroup.remove()
    assert not cgroup.exists()
    cgroup.remove()  # absent is fine


def test_join_by_number(cgroup, parent):
    cgroup.create({})
    other = type(cgroup)(f"{parent}/other")
    other.create({})
    member = Member(cgroup)
    other.join(member.pid)
    assert other.pids() == [member.pid]
    assert cgroup.pids() == []
    member.end()
    other.remove()


def test_freeze_and_thaw(cgroup):
    cgroup.create({})
    member = Member(cgroup)
    again = type(cgroup)(cgroup.path)
    again.freeze()
    assert again.is_frozen()
    with pytest.raises(BlockingIOError, match="frozen"):
        again.procs_fds()
    os.write(member.go, b"x")
    assert not readable(member.ready, 0.05)
    again.thaw()
    assert not again.is_frozen()
    assert readable(member.ready, 10)
    member.end()


def readable(fd, seconds):
    return bool(select.select([fd], [], [], seconds)[0])


@pytest.mark.parametrize("frozen", [False, True])
def test_kill_ends_all_also_below(cgroup, frozen):
    cgroup.create({})
    below_it = type(cgroup)(f"{cgroup.path}/inner")
    below_it.create({})
    members = [Member(below_it), Member(below_it)]
    if frozen:
        cgroup.freeze()
    cgroup.kill()
    assert [member.end() for member in members] == [-signal.SIGKILL] * 2
    assert cgroup.pids() == []
    cgroup.remove()
    assert not below_it.exists()


def test_remove_does_not_take_what_is_used(cgroup):
    cgroup.create({})
    member = Member(cgroup)
    assert not cgroup.remove_empty()
    with pytest.raises(OSError, match="rmdir") as caught:
        cgroup.remove()
    assert caught.value.errno == errno.EBUSY
    assert cgroup.pids() == [member.pid]
    member.end()
    assert cgroup.remove_empty()


def test_create_takes_over_what_is_empty_only(cgroup):
    cgroup.create({})
    type(cgroup)(f"{cgroup.path}/left").create({})
    type(cgroup)(cgroup.path).create({})
    assert not type(cgroup)(f"{cgroup.path}/left").exists()
    member = Member(cgroup)
    with pytest.raises(FileExistsError):
        type(cgroup)(cgroup.path).create({})
    assert cgroup.pids() == [member.pid]
    member.end()


def test_a_controller_that_is_missing_is_named(cgroup):
    offered = Path("/sys/fs/cgroup/cgroup.controllers")  # of version 2 alone
    if offered.exists() and "rdma" in offered.read_text().split():
        pytest.skip("this host has it")
    with pytest.raises(OSError, match=r"linux\.resources\.rdma\.mlx0: .* controller rdma is not"):
        cgroup.create({"rdma": {"mlx0": {"hcaHandles": 1}}})
    assert not cgroup.exists()


def test_v2_controllers_are_handed_down(parent):
    """Few hosts with version 1 leave a controller to version 2; huge pages are left here."""
    tree = next((tree for tree in hierarchy.mounted() if tree.version == 2), None)
    if tree is None or "hugetlb" not in hierarchy.read(tree, "cgroup.controllers").split():
        pytest.skip("no huge pages in version 2 here")
    group = v2.Cgroup(f"{parent}/deep/er/c")
    group.create({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]})
    assert text(group, "hugetlb", "hugetlb.2MB.max") == str(4 * MIB)
    group.update({"unified": {"hugetlb.2MB.max": "0"}})
    assert text(group, "hugetlb", "hugetlb.2MB.max") == "0"
    with pytest.raises(OSError, match=r"this kernel has no hugetlb\.1MB\.max"):
        group.update({"hugepageLimits": [{"pageSize": "1MB", "limit": 1}]})
    group.remove()
    v2.Cgroup(f"{parent}/deep").remove()


def test_refused_values_leave_nothing(cgroup):
    for request in ({"memory": {"limit": "1"}}, {"devices": [{"allow": 1}]}):
        with pytest.raises(ValueError, match=r"linux\.resources"):
            cgroup.create(request)
        assert not cgroup.exists()


def test_a_refused_write_leaves_nothing(first):
    with pytest.raises(OSError, match=r"set linux\.resources\.cpu\.cpus.*4095") as caught:
        first.create({"cpu": {"cpus": "4095"}})
    assert caught.value.errno in {errno.EINVAL, errno.ERANGE, errno.EACCES}
    assert not first.exists()


def text(group, controller, file):
    return group.look(controller, file).strip()


def test_limits_arrive(first):
    first.create(
        {
            "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
            "cpu": {"shares": 512, "quota": 20000, "period": 50000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 20},
        }
    )
    limits = first.stats()
    assert limits["memory"]["limit"] == 64 * MIB
    assert limits["pids"]["limit"] == 20
    assert text(first, "memory", "memory.memsw.limit_in_bytes") == str(96 * MIB)
    assert text(first, "cpu", "cpu.cfs_quota_us") == "20000"
    assert text(first, "cpuset", "cpuset.cpus") == "0"


def test_update_grows_and_shrinks(first):
    first.create({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}, "pids": {"limit": 5}})
    for size in (128, 32, 256):
        first.update({"memory": {"limit": size * MIB, "swap": size * MIB}})
        assert first.stats()["memory"]["limit"] == size * MIB
    first.update({"memory": {"limit": -1}})
    assert first.stats()["memory"]["limit"] > 1 << 62
    first.update({"cpu": {"quota": 10000, "period": 100000}})
    # Neither can be written first: a period may not make the old quota too large, nor the reverse.
    first.update({"cpu": {"quota": 2000, "period": 2000}})
    assert text(first, "cpu", "cpu.cfs_period_us") == "2000"
    first.update({"cpu": {"burst": 1000}})
    first.update({"cpu": {"burst": 5000, "quota": 9000}})
    assert text(first, "cpu", "cpu.cfs_burst_us") == "5000"
    assert first.stats()["pids"]["limit"] == 5


def test_out_of_memory_is_counted(first):
    first.create({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    assert first.oom_kills() == 0
    member = Member(first)
    os.write(member.go, b"m")
    assert member.end() == -signal.SIGKILL
    assert first.oom_kills() == 1
    assert first.stats()["oom_kills"] == 1


def test_processes_are_limited(first):
    first.create({"pids": {"limit": 1}})
    member = Member(first)
    assert member.tell(b"f") == bytes([errno.EAGAIN])
    member.end()


def test_devices_are_denied_unless_allowed(first):
    first.create({"devices": [{"allow": False}]})
    lines = text(first, "devices", "devices.list").split("\n")
    assert "c 1:3 rwm" in lines
    assert not any(line.startswith("a") for line in lines)
    member = Member(first)
    assert member.tell(b"z") == b"k"
    first.update({"devices": [{"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"}]})
    assert "b 8:0 r" in text(first, "devices", "devices.list").split("\n")
    first.update({"devices": []})
    assert "b 8:0" not in text(first, "devices", "devices.list")
    assert member.tell(b"z") == b"k"
    member.end()


def test_privileged_has_all_devices(first):
    first.create({"devices": [{"allow": True, "type": "a", "access": "rwm"}]})
    assert text(first, "devices", "devices.list") == "a *:* rwm"


def test_statistics_count(first):
    first.create({})
    member = Member(first)
    assert member.tell(b"f") == b"k"
    counted = first.stats()
    assert counted["pids"]["current"] == 1
    assert counted["cpu"]["usage_ns"] > 0
    assert counted["memory"]["usage"] >= 0
    assert len(counted["cpu"]["per_cpu_ns"]) >= 1
    member.end()


def test_closed_descriptors_are_noticed(cgroup, parent):
    """By a forked child, which may have closed what it does not know."""
    trees = hierarchy.mounted()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for tree in trees:
                os.close(tree.fd)
            for _ in range(20):  # take the numbers for something else
                os.open("/", os.O_PATH)
            again = type(cgroup)(f"{parent}/c")
            again.create({})
            is_there = again.exists()
            again.remove()
            code = 0 if is_there and not os.path.exists(f"{parent}/c") else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_device_program_guards_a_v2_cgroup(parent):
    if not is_v2_mounted():
        pytest.skip("no version 2 here")
    group = v2.Cgroup(f"{parent}/c")
    group.create({"devices": [{"allow": True, "type": "c", "major": 1, "minor": 1, "access": "r"}]})
    member = Member(group)
    assert member.tell(b"z") == b"k"
    # Replacing keeps exactly one program.
    directory = group.clone_fd()
    assert len(bpf.attached_device_programs(directory)) == 1
    group.update({"devices": [{"allow": False}]})
    assert len(bpf.attached_device_programs(directory)) == 1
    os.close(directory)
    assert member.end() == 0
    group.remove()


def test_v2_denies_a_device(parent):
    if not is_v2_mounted():
        pytest.skip("no version 2 here")
    group = v2.Cgroup(f"{parent}/c")
    group.create({})
    fds = group.procs_fds()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            for _, fd in fds:
                os.write(fd, b"0")
            os.close(os.open("/dev/null", os.O_WRONLY))
            try:
                os.open("/dev/kmsg", os.O_RDONLY)
                code = 1
            except PermissionError:
                code = 0
        finally:
            os._exit(code)
    for _, fd in fds:
        os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    group.remove()


def test_relative_paths_are_below_our_own_cgroup():
    tree = hierarchy.mounted()[0]
    own = hierarchy.own_paths()[tree.controllers[0] if tree.controllers else ""]
    name = hierarchy.names([tree], "inner/c")[0][1]
    assert name == "/".join([*filter(None, own.split("/")), "inner", "c"])


@pytest.mark.parametrize("path", ["/", "..", "/a/../b", f"{ROOT}/../x"])
def test_no_path_leaves(path):
    with pytest.raises(ValueError, match="cgroup path"):
        cgroups.manager(path)


def test_imports_stay_light():
    """The runtime imports this in each start; see the contract for what may come along."""
    code = (
        "import sys; before = set(sys.modules); import sampan.kernel.cgroups;"
        "print(sorted(n for n in set(sys.modules) - before if not n.startswith('sampan')))"
    )
    reader, writer = os.pipe()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {source()!r}); {code}"],
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)],
    )
    os.close(writer)
    with open(reader) as stream:
        names = stream.read()
    os.waitpid(child, 0)
    for forbidden in ("typing", "dataclasses", "re'", "enum", "socket'", "signal'", "logging"):
        assert forbidden not in names


def source():
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(cgroups.__file__))))
