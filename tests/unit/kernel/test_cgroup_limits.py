"""From OCI resources to writes, for both versions, without a kernel."""

from __future__ import annotations

import pytest

from sampan.kernel.cgroups import hierarchy, stats, v1_limits, v2_limits

MIB = 1 << 20


def v1(resources, **files):
    return lines(v1_limits.plan(resources, lambda _, file: files.get(file.replace(".", "_"))))


def v2(resources, **files):
    return lines(v2_limits.plan(resources, lambda _, file: files.get(file.replace(".", "_"))))


def lines(writes):
    return [f"{write.file} {write.value}" for write in writes]


@pytest.mark.parametrize(
    ("current", "limit", "swap", "first"),
    [
        (1 << 62, 64, 128, "limit"),  # a new cgroup shrinks: the inner limit first
        (64, 32, 48, "limit"),
        (64, 128, 256, "memsw"),  # growing: the outer limit first
        (64, 32, 256, "memsw"),
        (64, 128, -1, "memsw"),
    ],
)
def test_v1_limits_stay_within_each_other(current, limit, swap, first):
    written = v1({"memory": {"limit": limit, "swap": swap}}, memory_limit_in_bytes=str(current))
    names = [line.split()[0] for line in written]
    inner, outer = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
    assert names == ([inner, outer] if first == "limit" else [outer, inner])


def test_v1_memory():
    given = {"reservation": 5, "swappiness": 0, "disableOOMKiller": True, "kernel": 9}
    assert v1({"memory": given}) == [
        "memory.soft_limit_in_bytes 5",
        "memory.oom_control 1",
        "memory.swappiness 0",
    ]
    assert v1({"memory": {"limit": -1}}, memory_memsw_limit_in_bytes="5") == [
        "memory.memsw.limit_in_bytes -1",
        "memory.limit_in_bytes -1",
    ]
    assert v1({"memory": {"limit": 0, "swap": 0}}) == []


def test_v1_cpu():
    given = {
        "shares": 512, "quota": 50000, "period": 100000, "burst": 0, "idle": 1,
        "realtimeRuntime": 950000, "realtimePeriod": 1000000, "cpus": "0-1,3", "mems": "0",
    }  # fmt: skip
    assert v1({"cpu": given}) == [
        "cpu.rt_period_us 1000000",
        "cpu.rt_runtime_us 950000",
        "cpu.shares 512",
        "cpu.cfs_period_us 100000",
        "cpu.cfs_burst_us 0",
        "cpu.cfs_quota_us 50000",
        "cpu.idle 1",
        "cpuset.cpus 0-1,3",
        "cpuset.mems 0",
    ]


def test_v1_devices_and_the_rest():
    given = {
        "pids": {"limit": 7},
        "blockIO": {
            "weight": 300,
            "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 5}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 6}],
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
        "network": {"classID": 9, "priorities": [{"name": "eth0", "priority": 3}]},
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
    }
    assert v1(given, blkio_bfq_weight="100") == [
        "pids.max 7",
        "blkio.bfq.weight 300",
        "blkio.throttle.read_bps_device 8:1 5",
        "blkio.throttle.write_iops_device 8:0 6",
        "hugetlb.2MB.limit_in_bytes 4",
        "hugetlb.2MB.rsvd.limit_in_bytes 4",
        "net_cls.classid 9",
        "net_prio.ifpriomap eth0 3",
        "rdma.max mlx5_1 hca_handle=3 hca_object=4",
    ]
    assert v1({"pids": {"limit": -1}}) == ["pids.max max"]
    with pytest.raises(ValueError, match="version 2"):
        v1({"unified": {"memory.high": "5"}})


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, None), (2, 1), (1024, 100), (262144, 10000), (512, 59), (2048, 174), (1, 1)],
)
def test_v2_weight(shares, weight):
    assert v2({"cpu": {"shares": shares}}) == ([f"cpu.weight {weight}"] if weight else [])


def test_v2_weight_never_falls_and_stays_in_range():
    weights = [v2_limits.cpu_weight(shares) for shares in range(2, 262145, 64)]
    assert weights == sorted(weights)
    assert {weights[0], v2_limits.cpu_weight(262144)} == {1, 10000}
    assert [v2_limits.io_weight(weight) for weight in (10, 500, 1000)] == [1, 4950, 10000]


@pytest.mark.parametrize(
    ("memory", "written"),
    [
        ({"limit": 64 * MIB}, [f"memory.max {64 * MIB}"]),
        ({"limit": MIB, "swap": 3 * MIB}, [f"memory.swap.max {2 * MIB}", f"memory.max {MIB}"]),
        ({"limit": MIB, "swap": MIB}, ["memory.swap.max 0", f"memory.max {MIB}"]),
        ({"limit": MIB, "swap": -1}, ["memory.swap.max max", f"memory.max {MIB}"]),
        ({"limit": -1}, ["memory.swap.max max", "memory.max max"]),
        ({"reservation": 5}, ["memory.low 5"]),
    ],
)
def test_v2_memory(memory, written):
    assert v2({"memory": memory}) == written


def test_v2_cpu_keeps_what_is_not_given():
    assert v2({"cpu": {"quota": 5000}}) == ["cpu.max 5000 100000"]
    assert v2({"cpu": {"quota": -1}}, cpu_max="5000 20000") == ["cpu.max max 20000"]
    assert v2({"cpu": {"period": 30000}}, cpu_max="5000 20000") == ["cpu.max 5000 30000"]
    assert v2({"cpu": {"idle": 1, "burst": 7, "cpus": "1"}}) == [
        "cpu.idle 1",
        "cpu.max.burst 7",
        "cpuset.cpus 1",
    ]


def test_v2_io_and_the_rest():
    given = {
        "pids": {"limit": 0},
        "blockIO": {
            "weight": 500,
            "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 5}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
        },
        "hugepageLimits": [{"pageSize": "1GB", "limit": 4}],
        "unified": {"memory.high": "max"},
    }
    assert v2(given) == [
        "pids.max 1",
        "io.weight 4950",
        "io.max 8:1 rbps=5",
        "io.max 8:0 wiops=max",
        "hugetlb.1GB.max 4",
        "hugetlb.1GB.rsvd.max 4",
        "memory.high max",
    ]
    assert "io.bfq.weight 500" in v2(given, io_bfq_weight="100")


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": {"limit": 0, "swap": 5}},
        {"memory": {"limit": 9, "swap": 5}},
        {"memory": {"limit": 10, "checkBeforeUpdate": True}},
        {"memory": {"disableOOMKiller": True}},
        {"cpu": {"realtimeRuntime": 5}},
        {"network": {"classID": 5}},
        {"unified": {"cgroup.procs": "1"}},
        {"unified": {"../x.y": "1"}},
        {"unified": {"memory": "1"}},
        {"unified": {"memory.high": 1}},
    ],
)
def test_v2_refuses(resources):
    with pytest.raises(ValueError, match=r"^linux\.resources"):
        v2(resources, memory_current="10")


def test_v2_tells_what_would_be_exceeded_in_runcs_words():
    both = {"memory": {"limit": 9, "swap": 10, "checkBeforeUpdate": True}}
    with pytest.raises(ValueError, match=r"\.swap: rejecting memory\+swap limit 10, usage is 10"):
        v2(both, memory_current="10")
    with pytest.raises(ValueError, match=r"\.limit: rejecting memory limit 9, usage is 9"):
        v2(both, memory_current="9")
    assert v2(both, memory_current="8") == ["memory.swap.max 1", "memory.max 9"]


def test_v2_writes_a_unified_file_line_by_line():
    given = {"unified": {"io.max": "7:0 riops=3\n7:1 wiops=4\n"}}
    assert v2(given) == ["io.max 7:0 riops=3", "io.max 7:1 wiops=4"]


@pytest.mark.parametrize("plan", [v1, v2])
@pytest.mark.parametrize(
    "resources",
    [
        {"memory": []},
        {"memory": {"limit": "5"}},
        {"memory": {"limit": True}},
        {"memory": {"limit": 1.5}},
        {"memory": {"limit": 1 << 65}},
        {"cpu": {"cpus": "0;rm"}},
        {"cpu": {"cpus": "0\n1"}},
        {"cpu": {"idle": 2}},
        {"pids": {"limit": "max"}},
        {"blockIO": {"throttleReadBpsDevice": {}}},
        {"blockIO": {"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}},
        {"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]},
        {"hugepageLimits": [{"pageSize": "MB", "limit": 1}]},
        {"rdma": {"a b": {"hcaHandles": 1}}},
    ],
)
def test_malformed_values_are_refused(plan, resources):
    with pytest.raises(ValueError, match=r"^linux\.resources"):
        plan(resources)


def test_v1_refuses_shares_that_the_kernel_would_change():
    for shares in (1, 262145):
        with pytest.raises(ValueError, match="shares"):
            v1({"cpu": {"shares": shares}})


@pytest.mark.parametrize(
    "path", ["", "/", "//", ".", "/..", "a/../../b", "/a/..", "/a\0b", "/a\nb", "/" + "x" * 256,
             "/a" * 2500]
)  # fmt: skip
def test_paths_that_could_leave_are_refused(path):
    with pytest.raises(ValueError, match="cgroup path"):
        hierarchy.parts(path)


def test_paths_are_cleaned():
    assert hierarchy.parts("/sampan//./x/") == ["sampan", "x"]


MOUNTS = r"""
25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/with\040blank rw - cgroup cgroup rw,xattr,memory
34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 31 0:32 / /sys/fs/cgroup/elogind rw - cgroup cgroup rw,name=elogind
36 31 0:30 /x /run/c/rootfs/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
37 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
"""


def test_mounts_are_found_by_their_controllers():
    assert hierarchy.parse_mountinfo(MOUNTS) == [
        (1, ("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct", "/"),
        (1, ("memory",), "/sys/fs/cgroup/with blank", "/"),
        (1, ("name=systemd",), "/sys/fs/cgroup/systemd", "/"),
        (2, (), "/sys/fs/cgroup/unified", "/"),
    ]


def test_stats_have_one_shape():
    first = {
        "cpuacct.usage": "900\n", "cpuacct.usage_user": "600\n", "cpuacct.usage_sys": "300\n",
        "cpuacct.usage_percpu": "500 400 \n",
        "cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 7000\n",
        "memory.usage_in_bytes": "100\n", "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.memsw.usage_in_bytes": "130\n", "memory.max_usage_in_bytes": "150\n",
        "memory.failcnt": "3\n",
        "memory.stat": "cache 1\ntotal_cache 40\ntotal_rss 50\ntotal_inactive_file 10\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        "pids.current": "6\n", "pids.max": "max\n",
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 7\n8:0 Write 8\nTotal 15\n",
        "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
    }  # fmt: skip
    second = {
        "cpu.stat": "usage_usec 9\nuser_usec 6\nsystem_usec 3\nnr_periods 5\nnr_throttled 2\n"
        "throttled_usec 7\n",
        "memory.current": "100\n", "memory.max": "max\n", "memory.peak": "150\n",
        "memory.swap.current": "30\n", "memory.events": "low 0\nmax 3\noom_kill 4\n",
        "memory.stat": "file 40\nanon 50\ninactive_file 10\n",
        "pids.current": "6\n", "pids.max": "max\n",
        "io.stat": "8:0 rbytes=7 wbytes=8 rios=1 wios=2 dbytes=0 dios=0\n",
    }  # fmt: skip
    old = stats.from_v1(lambda _, file: first.get(file))
    new = stats.from_v2(lambda _, file: second.get(file))
    assert old["cpu"].pop("per_cpu_ns") == [500, 400]
    assert new["cpu"].pop("per_cpu_ns") == []
    new["cpu"] = {
        "usage_ns": new["cpu"]["usage_ns"] // 10,
        "user_ns": new["cpu"]["user_ns"] // 10,
        "system_ns": new["cpu"]["system_ns"] // 10,
        "throttling": new["cpu"]["throttling"],
    }
    old["memory"].pop("stat")
    new["memory"].pop("stat")
    assert old == new
    assert old["memory"]["limit"] == old["pids"]["limit"] == stats.UNLIMITED
    assert (old["oom_kills"], old["memory"]["swap_usage"]) == (4, 30)


def test_stats_of_nothing_are_zero():
    for make in (stats.from_v1, stats.from_v2):
        nothing = make(lambda _, file: None)
        assert nothing["memory"]["usage"] == nothing["cpu"]["usage_ns"] == 0
        assert nothing["blkio"]["bytes"] == []
