from __future__ import annotations

import os

import pytest

from sampan.engine import limits, security, storage
from sampan.engine.model import HostConfig, RestartName, RestartPolicy, Ulimit
from sampan.errors import Conflict, FailedPrecondition, InvalidArgument
from sampan.runtime import labels

CPUS = os.cpu_count() or 1


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"memory": 1000}, "Minimum memory limit allowed is 512KB"),
        ({"memory": -5}, "invalid memory: -5"),
        (
            {"memory": 1 << 20, "memory_swap": 1 << 19},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"memory_swap": 1 << 20},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            {"memory": 1 << 20, "memory_reservation": 1 << 21},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        ({"memory_swappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"nano_cpus": (CPUS + 1) * 10**9}, f"as there are only {CPUS} CPUs available"),
        ({"nano_cpus": -1}, "Range of CPUs is from 0.01"),
        ({"nano_cpus": 10**9, "cpu_quota": 5000}, "CPU Quota cannot both be set"),
        ({"cpu_period": 999}, "CPU cfs period can not be less than 1ms"),
        ({"cpu_quota": 999}, "CPU cfs quota can not be less than 1ms"),
        ({"cpu_shares": -1}, "invalid CPU shares"),
        ({"cpuset_cpus": "0-9999"}, "Requested CPUs are not available - requested 0-9999"),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus"),
        ({"cpuset_cpus": "\uff11"}, "Invalid value \uff11 for cpuset cpus"),
        ({"pids_limit": -2}, "invalid pids limit"),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"oom_score_adj": 1001}, "range for oom score adj is [-1000, 1000]"),
        ({"shm_size": -1}, "SHM size can not be less than 0"),
        ({"ulimits": (Ulimit(name="none", soft=1, hard=1),)}, "invalid ulimit type: none"),
        ({"ulimits": (Ulimit(name="nofile", soft=2, hard=1),)}, "2 > 1"),
        ({"cap_add": ("NOPE",)}, 'invalid CapAdd: unknown capability: "NOPE"'),
        ({"security_opt": ("nonsense",)}, "invalid --security-opt: 'nonsense'"),
        ({"security_opt": ("seccomp=",)}, "an empty seccomp profile"),
        ({"security_opt": ("no-new-privileges=maybe",)}, "invalid --security-opt"),
        ({"restart": RestartPolicy(max_retries=3)}, "can only be used with 'on-failure'"),
        (
            {"auto_remove": True, "restart": RestartPolicy(name=RestartName.ALWAYS)},
            "can't create 'AutoRemove' container with restart policy",
        ),
        ({"tmpfs": {"x": ""}}, "mount path must be absolute"),
        ({"tmpfs": {"//": ""}}, "destination can't be '/'"),
        ({"device_rules": ("c 1:3",)}, "invalid device cgroup rule format"),
        ({"device_rules": ("c 1:3 rwx",)}, "invalid device cgroup rule format"),
        ({"device_rules": ("c 1:3 r\n",)}, "invalid device cgroup rule format"),
        ({"cgroup_parent": "/a/../b"}, "invalid cgroup parent"),
        ({"cgroup_parent": "../b"}, "invalid cgroup parent"),
        ({"cpu_shares": 1}, "minimum allowed cpu-shares is 2"),
        ({"cpu_shares": 262145}, "maximum allowed cpu-shares is 262144"),
        ({"sysctls": {"net.x": "1\n2"}}, "invalid character"),
    ],
)
def test_what_is_refused(wish, sentence):
    with pytest.raises(InvalidArgument) as failure:
        limits.check(HostConfig(**wish))
    assert sentence in str(failure.value)


@pytest.mark.skipif(labels.has_apparmor(), reason="AppArmor is here")
def test_a_profile_that_would_not_confine_is_refused():
    with pytest.raises(FailedPrecondition, match="apparmor=mine: this kernel has no AppArmor"):
        limits.check(HostConfig(security_opt=("apparmor=mine",)))
    limits.check(HostConfig(security_opt=("apparmor=unconfined", "label=disable")))


@pytest.mark.skipif(labels.has_selinux(), reason="SELinux is here")
def test_a_label_that_would_not_hold_is_refused():
    with pytest.raises(FailedPrecondition, match="label: this kernel has no SELinux"):
        limits.check(HostConfig(security_opt=("label=type:mine_t",)))


def test_the_words_of_security_modules():
    host = HostConfig(security_opt=("apparmor=mine", "label=type:x_t", "label=level:s0:c1,c2"))
    assert security.apparmor_profile(host) == "mine"
    process, files = security.selinux_labels(host)
    assert process == "system_u:system_r:x_t:s0:c1,c2"
    assert files == "system_u:object_r:container_file_t:s0:c1,c2"
    quiet = HostConfig(security_opt=("label=type:x_t", "label=disable"))
    assert security.selinux_labels(quiet) == ("", "")


@pytest.mark.parametrize(
    "text", ["apparmor=", "apparmor=a\nb", "label=", "label=x:y", "label=type:"]
)
def test_labels_without_sense_are_refused(text):
    with pytest.raises(InvalidArgument, match="invalid --security-opt"):
        limits.check(HostConfig(security_opt=(text,)))


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, 0), ({"size": "10g"}, 10 << 30), ({"Size": "1048576"}, 1 << 20), ({"size": "9KiB"}, None),
     ({"size": "1M"}, 1 << 20), ({"size": "64kb"}, 64 << 10), ({"size": ""}, None),
     ({"size": "-1"}, None), ({"size": "1e9"}, None), ({"dm.basesize": "1g"}, None)],
)  # fmt: skip
def test_sizes_of_the_writable_layer(options, size):
    if size is None:
        with pytest.raises(InvalidArgument, match="--storage-opt"):
            limits.check(HostConfig(storage_opt=options))
    else:
        assert storage.size_of(options) == size


def test_two_mounts_at_one_place():
    with pytest.raises(Conflict, match="Duplicate mount point: /x"):
        limits.check(HostConfig(tmpfs={"/x/": "", "/x": ""}))


def test_swap_follows_memory():
    host, warnings = limits.check(HostConfig(memory=64 << 20))
    assert host.memory_swap == 128 << 20
    assert warnings == []


def test_smallest_memory_is_half_a_mebibyte():
    assert limits.check(HostConfig(memory=512 << 10))[0].memory == 512 << 10


def test_sets_of_processors():
    assert limits.parse_set("0-2,5") == {0, 1, 2, 5}
    assert limits.parse_set("3") == {3}
    for bad in ("", "-", "1-", "a", "1,,2", "-1", "99999999"):
        assert limits.parse_set(bad) is None
