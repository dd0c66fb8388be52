"""config.json with values of a wrong type in every place: refused by the field's name, or taken."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from sampan.kernel import seccomp
from sampan.kernel.cgroups import devices, v1_limits, v2_limits
from sampan.runtime import plan, shapes, validate
from sampan.runtime.failure import InvalidConfig
from sampan.runtime.specification import example

MAPS = [{"containerID": 0, "hostID": 0, "size": 10}]
WRONG = (None, -1, 1.5, "x", "a\0b", [], [1], [{}], {"a": 1}, True, 1 << 70)


def everything() -> dict:
    """A configuration with most fields there are."""
    spec = {**copy.deepcopy(example()), "annotations": {"a": "b"}, "domainname": "d"}
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart")
    hook = {"path": "/bin/true", "args": ["a"], "env": ["A=b"], "timeout": 3}
    spec["hooks"] = {kind: [dict(hook)] for kind in (*kinds, "poststop")}
    spec["process"] |= {
        "consoleSize": {"height": 1, "width": 2},
        "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0", "final": "0"},
        "oomScoreAdj": 5,
    }
    spec["process"]["user"] |= {"umask": 18, "additionalGids": [5]}
    bound = {"destination": "/b", "type": "bind", "source": "/", "options": ["rbind", "idmap"]}
    spec["mounts"].append({**bound, "uidMappings": list(MAPS), "gidMappings": list(MAPS)})
    device = {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0}
    spec["linux"] |= {
        "uidMappings": copy.deepcopy(MAPS),
        "gidMappings": copy.deepcopy(MAPS),
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "cgroupsPath": "/a/b",
        "rootfsPropagation": "private",
        "devices": [device],
        "netDevices": {"eth9": {"name": "e0"}},
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}},
        "memoryPolicy": {"mode": "MPOL_LOCAL", "flags": [], "nodes": ""},
        "personality": {"domain": "LINUX"},
    }
    spec["linux"]["namespaces"] += [{"type": "user"}, {"type": "time"}]
    argument = {"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}
    rule = {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2, "args": [argument]}
    spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [rule],
    }
    disk = {"major": 8, "minor": 0}
    spec["linux"]["resources"] = {
        "devices": [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}],
        "memory": {"limit": 1 << 26, "reservation": 1, "swap": 1 << 27},
        "cpu": {"shares": 100, "quota": 100, "period": 1000, "burst": 1, "cpus": "0", "idle": 0},
        "pids": {"limit": 5},
        "blockIO": {"weightDevice": [{**disk, "weight": 10}], "throttleReadBpsDevice": [disk]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
        "rdma": {"mlx": {"hcaHandles": 1}},
    }
    return spec


def places(node: object, path: tuple = ()) -> Iterator[tuple]:
    if path:
        yield path
    members = node.items() if isinstance(node, dict) else enumerate(node[:2])
    for key, value in members:
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def judge(spec: dict) -> None:
    """All that is asked of a configuration before anything is made."""
    shapes.check(spec, shapes.CONFIG)
    validate.check(spec)
    linux = spec["linux"]
    if linux.get("seccomp"):
        seccomp.compile(linux["seccomp"])
    resources = linux.get("resources") or {}
    devices.policy(resources.get("devices"))
    for limits in (v1_limits, v2_limits):
        limits.plan(resources, lambda _controller, _file: None)
    plan.build(spec, plan.Facts("/x", "/a/b"))


def refusal(spec: dict) -> str:
    try:
        judge(spec)
    except (InvalidConfig, ValueError) as error:
        return str(error)
    return "taken:"


def test_the_whole_configuration_is_taken():
    judge(everything())


@pytest.mark.parametrize(
    "path", list(places(everything())), ids=lambda path: ".".join(map(str, path))
)
def test_a_wrong_type_is_refused_by_name_or_taken(path: tuple):
    """Never a defect: an error is one of ours, and names what it is about."""
    for value in WRONG:
        spec = everything()
        target = spec
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        said = refusal(spec)
        assert ":" in said, (path, value, said)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("process", 5, "process: must be an object"),
        ("mounts", [None], "mounts[0]: must be an object"),
        ("mounts", {"a": 1}, "mounts: must be a list"),
        ("hostname", 7, "hostname: must be a string"),
        ("annotations", {"a": 1}, "annotations.a: must be a string"),
        ("linux", {"resources": {"pids": {"limit": "5"}}}, "linux.resources.pids.limit: must be"),
        ("linux", {"seccomp": "unconfined"}, "linux.seccomp: must be an object"),
        ("root", {"path": "x", "readonly": "no"}, "root.readonly: must be true or false"),
        ("process", {"user": {"uid": -1}}, "process.user.uid: must be a whole number, not below"),
    ],
)
def test_the_field_is_named(field: str, value: object, said: str):
    with pytest.raises(InvalidConfig) as caught:
        shapes.check({field: value}, shapes.CONFIG)
    assert str(caught.value).startswith(said)


def test_null_is_as_good_as_absent_and_what_is_unknown_is_left_alone():
    document = {"hostname": None, "linux": {"seccomp": None, "x": 1}, "windows": {"a": [1.5]}}
    shapes.check(document, shapes.CONFIG)
    assert document == {"linux": {"x": 1}, "windows": {"a": [1.5]}}
