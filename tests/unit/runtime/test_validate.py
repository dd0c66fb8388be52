"""What is refused before anything is made, with the name of the field in the message."""

from __future__ import annotations

import copy

import pytest

from sampan.runtime import validate
from sampan.runtime.failure import InvalidConfig
from sampan.runtime.specification import example


def set_at(spec: dict, path: str, value: object) -> dict:
    target = spec
    *parents, last = path.split(".")
    for key in parents:
        target = target.setdefault(key, {})
    target[last] = value
    return spec


def test_the_example_is_accepted():
    validate.check(example())


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("ociVersion", "2.0", "ociVersion"),
        ("ociVersion", None, "ociVersion"),
        ("root", {}, "root.path"),
        ("process", None, "process"),
        ("process.args", [], "process.args"),
        ("process.args", [""], "process.args"),
        ("process.args", ["a\0b"], "process.args"),
        ("process.args", "sh", "process.args"),
        ("process.cwd", "relative", "process.cwd"),
        ("process.env", ["NOEQUALS"], "process.env"),
        ("process.env", ["=x"], "process.env"),
        ("process.env", ["A=b\0c"], "process.env"),
        ("process.user", {"uid": -1}, "process.user"),
        ("process.user", {"uid": 2**32 - 1}, "process.user"),
        ("process.user", {"uid": "0"}, "process.user"),
        ("process.rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}], "process.rlimits"),
        ("process.rlimits", [{"type": "RLIMIT_AS", "soft": 2, "hard": 1}], "process.rlimits"),
        ("process.capabilities", {"bounding": "CAP_KILL"}, "process.capabilities.bounding"),
        ("process.oomScoreAdj", 1001, "process.oomScoreAdj"),
        ("process.apparmorProfile", "x", "process.apparmorProfile"),
        ("hooks", {"prestart": [{"path": "x"}]}, "hooks.prestart[0].path"),
        ("linux.namespaces", [{"type": "pid"}], "linux.maskedPaths"),
        ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}], "linux.namespaces"),
        ("linux.namespaces", [{"type": "mount", "path": "x"}], "linux.namespaces"),
        ("linux.namespaces", [{"type": "warp"}, {"type": "mount"}], "linux.namespaces"),
        ("linux.namespaces", [{"type": k} for k in ("mount", "user", "uts")], "linux.uidMappings"),
        ("linux.rootfsPropagation", "sideways", "linux.rootfsPropagation"),
        ("linux.maskedPaths", ["proc/kcore"], "linux.maskedPaths"),
        ("linux.devices", [{"path": "dev/x", "type": "c"}], "linux.devices"),
        ("linux.devices", [{"path": "/dev/x", "type": "z"}], "linux.devices"),
        ("mounts", [{"destination": ""}], "mounts[0].destination"),
        ("mounts", [{"destination": "/x", "options": [1]}], "mounts[0].options"),
        ("mounts", [{"destination": "/x", "options": ["idmap"]}], "mounts[0]"),
        ("hostname", "h" * 65, "hostname"),
    ],
)
def test_bad_fields_are_named(path: str, value: object, field: str):
    spec = set_at(copy.deepcopy(example()), path, value)
    with pytest.raises(InvalidConfig) as caught:
        validate.check(spec)
    assert str(caught.value).startswith(field + ":")


@pytest.mark.parametrize(
    "name",
    [
        "kernel/core_pattern",
        "kernel.core_pattern",
        "kernel.hostname",
        "vm.swappiness",
        "net.ipv4.ip_forward/../../kernel/core_pattern",
        "net..x",
        "fs.file-max",
        "user.max_user_namespaces",
        "../../etc/passwd",
        "",
        *("kernel/../kernel/core_pattern", "net/../kernel/core_pattern", "net.ipv4/../../vm.x"),
        *("/kernel/shmmax", "kernel.shmmax.", ".kernel.shmmax", "kernel//shmmax", "kernel.shm"),
        *("kernel.msgmax\n", "kernel.shmmax\0", "kernel.shmma\u0445", "KERNEL.SHMMAX", "net"),
        *(
            "kernel.sysrq",
            "kernel.modprobe",
            "kernel.panic",
            "kernel.pid_max",
            "kernel.poweroff_cmd",
        ),
        *(
            "kernel.randomize_va_space",
            "kernel.yama.ptrace_scope",
            "kernel.unprivileged_bpf_disabled",
        ),
        *("fs.mqueue", "fs.suid_dumpable", "fs.protected_symlinks", "fs.binfmt_misc.register"),
        *(
            "vm.overcommit_memory",
            "vm.mmap_min_addr",
            "dev.tty.ldisc_autoload",
            "debug.exception-trace",
        ),
        *("user.max_net_namespaces", "sunrpc.rpc_debug", "abi.vsyscall32", "crypto.fips_enabled"),
    ],
)
def test_sysctls_of_the_host_are_refused(name: str):
    spec = set_at(example(), "linux.sysctl", {name: "1"})
    with pytest.raises(InvalidConfig, match=r"linux\.sysctl"):
        validate.check(spec)


@pytest.mark.parametrize("value", ["1\n2", 1, None, ["1"]])
def test_values_of_sysctls_are_plain(value: object):
    spec = set_at(example(), "linux.sysctl", {"net.ipv4.ip_forward": value})
    with pytest.raises(InvalidConfig, match=r"linux\.sysctl"):
        validate.check(spec)


def test_sysctls_of_own_namespaces_are_accepted():
    names = {"net.ipv4.ip_forward": "1", "kernel/shmmax": "1024", "fs.mqueue.msg_max": "20"}
    validate.check(set_at(example(), "linux.sysctl", names))


def test_a_network_sysctl_needs_a_network_namespace_of_its_own():
    spec = set_at(example(), "linux.sysctl", {"net.ipv4.ip_forward": "1"})
    spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": "network", "path": "/run/netns/x"}]
    spec["hostname"] = ""
    with pytest.raises(InvalidConfig, match="network namespace"):
        validate.check(spec)
