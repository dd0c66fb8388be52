from __future__ import annotations

import json

import pytest

from sampan.engine import devices, profiles, seccomp, security
from sampan.engine.model import Device, HostConfig
from sampan.errors import InvalidArgument

NULL = Device(host_path="/dev/null", container_path="/dev/x", permissions="r")


def test_capabilities_follow_dockers_arithmetic():
    default = set(profiles.DEFAULT_CAPABILITIES)
    assert set(security.capabilities(HostConfig())) == default
    assert set(security.capabilities(HostConfig(cap_drop=("ALL",)))) == set()
    only = security.capabilities(HostConfig(cap_drop=("all",), cap_add=("net_admin",)))
    assert only == ("CAP_NET_ADMIN",)
    more = security.capabilities(HostConfig(cap_add=("CAP_SYS_TIME",), cap_drop=("KILL",)))
    assert set(more) == default - {"CAP_KILL"} | {"CAP_SYS_TIME"}
    everything = security.capabilities(HostConfig(cap_add=("ALL",), cap_drop=("BPF",)))
    assert set(everything) == set(security.ALL) - {"CAP_BPF"}
    assert security.capabilities(HostConfig(privileged=True)) == security.ALL


def test_no_new_privileges():
    on = HostConfig(security_opt=("no-new-privileges",))
    off = HostConfig(security_opt=("no-new-privileges=false",))
    assert security.no_new_privileges(HostConfig(), True)
    assert not security.no_new_privileges(HostConfig(), False)
    assert security.no_new_privileges(on, False)
    assert not security.no_new_privileges(off, True)
    assert not security.no_new_privileges(HostConfig(privileged=True), True)


def test_paths_are_masked_unless_the_user_says_otherwise():
    assert "/proc/kcore" in security.masked_paths(HostConfig())
    assert security.masked_paths(HostConfig(privileged=True)) == []
    assert security.masked_paths(HostConfig(security_opt=("systempaths=unconfined",))) == []
    assert security.masked_paths(HostConfig(masked_paths=("/x",))) == ["/x"]
    assert security.readonly_paths(HostConfig(readonly_paths=())) == []


def test_devices_begin_with_deny():
    rules = security.device_rules(HostConfig(devices=(NULL,)))
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert rules[-1] == {"allow": True, "type": "c", "access": "r", "major": 1, "minor": 3}
    with pytest.raises(InvalidArgument, match="not a device node"):
        devices.rule(Device(host_path="/etc/passwd", container_path="/x"))
    with pytest.raises(InvalidArgument, match="no such file"):
        devices.node(Device(host_path="/dev/none", container_path="/x"))


def test_which_filter():
    assert security.seccomp_key(HostConfig(privileged=True)) is None
    assert security.seccomp_key(HostConfig(security_opt=("seccomp=unconfined",))) is None
    assert security.seccomp_key(HostConfig()) == ("", profiles.DEFAULT_CAPABILITIES)


def test_one_filter_for_one_question():
    filters = seccomp.Filters()
    try:
        first = filters.get(HostConfig())
        assert first == filters.get(HostConfig(memory=5))
        assert first != filters.get(HostConfig(cap_drop=("ALL",)))
        assert filters.get(HostConfig(privileged=True)) is None
        for text in ("{}", "[", '{"defaultAction":"NONSENSE"}', '{"a":1,"a":2}', "x"):
            with pytest.raises(InvalidArgument):
                filters.get(HostConfig(security_opt=(f"seccomp={text}",)))
    finally:
        filters.close()


def test_a_profile_in_dockers_form():
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_A"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_A"]}},
            {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}},
            {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"names": ["old"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "3.0"}},
        ],
    }
    text = json.dumps(profile)

    def names(*held: str) -> list[str]:
        read = seccomp.read_profile(text, held, "amd64")
        assert len(read["architectures"]) == 2
        return [rule["names"][0] for rule in read["syscalls"]]

    assert names() == ["read", "clone", "old"]
    assert names("CAP_A") == ["read", "mount", "old"]
