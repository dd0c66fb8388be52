"""The plan is pure: what a configuration becomes, in which order."""

from __future__ import annotations

import marshal

from sampan.runtime import plan
from sampan.runtime.specification import example


def described(spec: dict, facts: plan.Facts | None = None) -> tuple[list[str], list[str]]:
    built = plan.build(spec, facts or plan.Facts("/at", "/sampan/x"))
    return (
        [operation.describe() for operation in built.before_gate],
        [operation.describe() for operation in built.after_gate],
    )


def test_the_example_mounts_before_it_masks_and_pivots_before_the_gate():
    before, after = described(example())
    order = [
        "attach the root file system at /at",
        "mount proc on /proc (defaults)",
        "make the devices null, zero, full, random, urandom, tty and the links of /dev",
        "make /proc/sys read-only",
        "mask /proc/kcore",
        "make the root read-only",
        "pivot into the root file system",
        "join the cgroup /sampan/x and unshare its namespace",
        "start a session with a controlling terminal",
        "find the program sh",
    ]
    positions = [before.index(line) for line in order]
    assert positions == sorted(positions)
    assert after[-1] == "execute sh"


def test_with_no_new_privs_the_filter_comes_last():
    spec = example()
    spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    _, after = described(spec)
    assert after[-3:] == ["set no_new_privs", "load the seccomp filter", "execute sh"]


def test_without_no_new_privs_the_filter_comes_before_the_capabilities_go():
    spec = example()
    spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    spec["process"]["noNewPrivileges"] = False
    _, after = described(spec)
    loaded = after.index("load the seccomp filter")
    assert after[loaded + 1].startswith("set the capabilities to")
    assert "set no_new_privs" not in after


def test_joined_namespaces_are_not_made_and_mount_is_joined_last():
    spec = example()
    spec["linux"]["namespaces"] = [
        {"type": "mount", "path": "/proc/1/ns/mnt"},
        {"type": "network", "path": "/run/netns/a"},
        {"type": "pid"},
    ]
    new, join = plan.namespaces(spec)
    before, _ = described(spec)
    assert new == ["pid"]
    assert len(join) == 2
    assert before[0] == "join the network namespace /run/netns/a"
    assert before[1] == "join the mount namespace /proc/1/ns/mnt"
    assert "bring up the loopback interface" not in before


def test_a_bind_mounted_dev_is_left_alone():
    spec = example()
    spec["mounts"] = [
        {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}
    ]
    before, _ = described(spec)
    assert not [line for line in before if "device" in line]


def test_a_configured_device_replaces_the_default_of_its_path():
    spec = example()
    spec["linux"]["devices"] = [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600}
    ]
    before, _ = described(spec)
    position = before.index("make device /dev/null (c 1:5)")
    assert before[position - 1].startswith("make the devices zero, full")


def test_home_is_added_only_where_it_is_missing():
    assert plan.with_home(["A=b"], {"home": "/root"}) == ["A=b", "HOME=/root"]
    assert plan.with_home(["HOME=/x"], {"home": "/root"}) == ["HOME=/x"]
    assert plan.with_home([], {}) == ["HOME=/"]


def test_a_plan_survives_packing():
    spec = example()
    spec["linux"]["devices"] = [{"path": "/dev/x", "type": "b", "major": 7, "minor": 1}]
    spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    spec["mounts"].append({"destination": "/a", "type": "bind", "source": "/b"})
    facts = plan.Facts("/at", "/c")
    facts.hierarchies = [("memory", "/sys/fs/cgroup/memory/c")]
    facts.sealed = False
    built = plan.build(spec, facts)
    again = plan.Plan.unpack(marshal.loads(marshal.dumps(built.pack())))
    for before, after in (
        (built.before_gate, again.before_gate),
        (built.after_gate, again.after_gate),
    ):
        assert [type(one) for one in before] == [type(one) for one in after]
        assert [one.describe() for one in before] == [one.describe() for one in after]
