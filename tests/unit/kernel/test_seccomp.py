"""The compiler's own rules: what it refuses, what newer and foreign calls get, how fast it is."""

from __future__ import annotations

import errno

import pytest

from bpfmachine import run_classic, seccomp_data
from sampan.kernel import bpf, seccomp
from sampan.kernel.syscall_table import AARCH64, ARM, I386, X32, X86_64

NATIVE, COMPAT, ARM64_TOKEN, ARM_TOKEN = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
ENOSYS, EPERM = (seccomp.ERRNO | number for number in (errno.ENOSYS, errno.EPERM))


def profile(*rules, default="SCMP_ACT_ERRNO", **more):
    return {"defaultAction": default, "syscalls": list(rules), **more}


def rule(*names, action="SCMP_ACT_ALLOW", **more):
    return {"names": list(names), "action": action, **more}


def arg(index, op, value, second=0):
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}


def ask(document, number, *args, arch=NATIVE, machine="x86_64"):
    program = seccomp.compile(document, machine).program
    return run_classic(program, seccomp_data(number, arch, *args))[0]


def test_newer_calls_do_not_exist():
    document = profile(rule("read", "openat2"))
    assert ask(document, X86_64["read"]) == seccomp.ALLOW
    assert ask(document, X86_64["io_uring_setup"]) == EPERM
    assert ask(document, X86_64["openat2"] + 1) == ENOSYS
    assert ask(document, 999) == ENOSYS


def test_newer_calls_are_left_to_a_permissive_default():
    for default in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
        document = profile(rule("read", action="SCMP_ACT_ERRNO"), default=default)
        assert ask(document, 999) == seccomp.ACTIONS[default]
    document = profile(rule("read"), default="SCMP_ACT_TRACE", defaultErrnoRet=7)
    assert ask(document, 999) == seccomp.TRACE | 7


def test_a_profile_without_known_names_has_no_newest_call():
    assert ask(profile(rule("no_such_call")), 999) == EPERM


def test_default_errno():
    assert ask(profile(rule("write"), defaultErrnoRet=38), 0) == ENOSYS
    assert ask(profile(rule("write")), 0) == EPERM


def test_foreign_architectures_are_killed():
    document = profile(rule("read"), default="SCMP_ACT_ALLOW")
    assert ask(document, I386["read"], arch=COMPAT) == seccomp.KILL_PROCESS
    assert ask(document, 0, arch=0x12345678) == seccomp.KILL_PROCESS


def test_listed_32_bit_calls_have_their_own_numbers():
    document = profile(rule("getpid"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    assert ask(document, I386["getpid"], arch=COMPAT) == seccomp.ALLOW
    assert ask(document, X86_64["getpid"], arch=COMPAT) == ENOSYS  # 39 is newer than 20 there
    assert ask(document, X86_64["getpid"]) == seccomp.ALLOW


@pytest.mark.parametrize("default", ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"])
def test_x32_numbers_go_around_no_rule(default):
    document = profile(rule("mount", action="SCMP_ACT_TRAP"), default=default)
    for number in (X32["mount"], X32["read"], 0xFFFFFFFF):
        assert ask(document, number) == ENOSYS
    listed = {**document, "architectures": ["SCMP_ARCH_X32"]}
    assert ask(listed, X32["mount"]) == seccomp.TRAP


def test_arm_has_private_calls():
    document = profile(rule("set_tls", "read"), architectures=["SCMP_ARCH_ARM"])
    check = {ARM["read"]: seccomp.ALLOW, ARM["set_tls"]: seccomp.ALLOW, ARM["write"]: ENOSYS}
    for number, wanted in {**check, ARM["get_tls"]: ENOSYS}.items():
        assert ask(document, number, arch=ARM_TOKEN, machine="aarch64") == wanted
    assert ask(document, AARCH64["read"], arch=ARM64_TOKEN, machine="aarch64") == seccomp.ALLOW


def test_a_condition_forbids_what_a_plain_rule_allows():
    denied = rule("socket", action="SCMP_ACT_ERRNO", args=[arg(0, "EQ", 38)])
    for rules in ((denied, rule("socket")), (rule("socket"), denied)):
        document = profile(*rules)
        assert ask(document, X86_64["socket"], 38) == EPERM
        assert ask(document, X86_64["socket"], 2) == seccomp.ALLOW


def test_of_two_plain_rules_the_stricter_one_counts():
    document = profile(rule("read"), rule("read", action="SCMP_ACT_KILL"), rule("write"))
    assert ask(document, 0) == seccomp.KILL_THREAD


def test_one_argument_twice_means_either():
    document = profile(rule("socket", args=[arg(0, "EQ", 1), arg(0, "EQ", 2)]))
    assert [ask(document, X86_64["socket"], family) == seccomp.ALLOW for family in range(4)] == [
        False,
        True,
        True,
        False,
    ]


def test_negative_values_on_32_bits():
    document = profile(
        rule("setuid", args=[arg(0, "EQ", (1 << 64) - 1)]), architectures=["SCMP_ARCH_X86"]
    )
    assert ask(document, I386["setuid"], 0xFFFFFFFF, arch=COMPAT) == seccomp.ALLOW
    assert ask(document, X86_64["setuid"], 0xFFFFFFFF) == EPERM


@pytest.mark.parametrize("op", ["EQ", "GE", "GT", "MASKED_EQ"])
def test_what_is_left_in_upper_halves_is_no_way_around_on_32_bits(op):
    first, second = {"EQ": (38, 0), "GE": (38, 0), "GT": (37, 0), "MASKED_EQ": (0xFF, 38)}[op]
    denied = rule("socket", action="SCMP_ACT_ERRNO", args=[arg(0, op, first, second)])
    document = profile(denied, default="SCMP_ACT_ALLOW", architectures=["SCMP_ARCH_X86"])
    for upper in (0, 1, 0xFFFFFFFF):
        assert ask(document, I386["socket"], upper << 32 | 38, arch=COMPAT) == EPERM
        assert ask(document, I386["socket"], upper << 32 | 2, arch=COMPAT) == seccomp.ALLOW
        assert ask(document, I386["socketcall"], upper << 32 | 1, arch=COMPAT) == EPERM


@pytest.mark.parametrize(("op", "always"), [("GT", 0), ("GE", 0), ("LT", 1), ("LE", 1), ("EQ", 0)])
def test_values_that_no_32_bit_argument_has(op, always):
    allowed = rule("lseek", args=[arg(0, op, 5 << 32 | 7)])
    document = profile(allowed, architectures=["SCMP_ARCH_X86"])
    for value in (0, 7, 0xFFFFFFFF, 6 << 32):
        got = ask(document, I386["lseek"], value, arch=COMPAT)
        assert got == (seccomp.ALLOW if always else EPERM)


def test_socketcall_follows_the_rules_of_the_calls_inside():
    listed = {"architectures": ["SCMP_ARCH_X86"]}
    denied = profile(
        rule("socket", action="SCMP_ACT_ERRNO", args=[arg(0, "EQ", 38)]),
        rule("semop", action="SCMP_ACT_ERRNO"),
        default="SCMP_ACT_ALLOW",
        **listed,
    )
    assert ask(denied, I386["socketcall"], 1, arch=COMPAT) == EPERM
    assert ask(denied, I386["socketcall"], 2, arch=COMPAT) == seccomp.ALLOW
    # The version in the upper half of ipc's number is no way around.
    assert ask(denied, I386["ipc"], 1 << 16 | 1, arch=COMPAT) == EPERM
    allowed = profile(rule("socket", args=[arg(0, "EQ", 2)]), rule("bind"), **listed)
    assert ask(allowed, I386["socketcall"], 1, arch=COMPAT) == EPERM
    assert ask(allowed, I386["socketcall"], 2, arch=COMPAT) == seccomp.ALLOW


def test_unknown_names_are_left_out():
    assert ask(profile(rule("read", "call_of_the_future")), 0) == seccomp.ALLOW


@pytest.mark.parametrize(
    "document",
    [
        {},
        profile(default="SCMP_ACT_allow"),
        profile(default=None),
        profile(default="SCMP_ACT_NOTIFY"),
        profile(defaultErrnoRet=4096),
        profile(defaultErrnoRet=-1),
        profile(defaultErrnoRet=True),
        profile(rule("read", action="")),
        profile(rule("read", action="SCMP_ACT_ERRNO", errnoRet="1")),
        profile(rule("read", errnoRet=1)),
        profile(rule()),
        profile(rule(1)),
        profile({"names": "read", "action": "SCMP_ACT_ALLOW"}),
        profile("read"),
        profile(rule("write", action="SCMP_ACT_NOTIFY")),
        profile(rule("read", args={})),
        profile(rule("read", args=[7])),
        profile(rule("read", args=[arg(6, "EQ", 0)])),
        profile(rule("read", args=[arg(-1, "EQ", 0)])),
        profile(rule("read", args=[arg(0, "EQ", 1 << 64)])),
        profile(rule("read", args=[arg(0, "EQ", -1)])),
        profile(rule("read", args=[arg(0, "NEQ", 0)])),
        profile(rule("read", args=[{"index": 0, "value": 0}])),
        profile(architectures=["SCMP_ARCH_VAX"]),
        profile(architectures="SCMP_ARCH_X86"),
        profile(flags=["SECCOMP_FILTER_FLAG_NEW"]),
        profile(flags=[4]),
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}},
    ],
)
def test_what_is_not_understood_is_refused(document):
    with pytest.raises(ValueError, match=r"^linux\.seccomp"):
        seccomp.compile(document, "x86_64")


def test_a_machine_without_a_table_is_refused():
    with pytest.raises(ValueError, match="vax"):
        seccomp.compile(profile(), "vax")


def test_flags():
    assert seccomp.compile(profile(), "x86_64").flags == seccomp.FLAG_SPEC_ALLOW
    assert seccomp.compile(profile(flags=[]), "x86_64").flags == 0
    names = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]
    assert seccomp.compile(profile(flags=names), "x86_64").flags == seccomp.FLAG_LOG
    listening = seccomp.compile(profile(rule("mkdir", action="SCMP_ACT_NOTIFY")), "x86_64")
    assert listening.flags == seccomp.FLAG_SPEC_ALLOW | seccomp.FLAG_NEW_LISTENER


def test_long_jumps_and_the_ceiling():
    many = [rule("socket", args=[arg(n % 3, "EQ", n)], action="SCMP_ACT_ALLOW") for n in range(400)]
    document = profile(rule("read"), *many, rule("io_uring_setup"))
    program = seccomp.compile(document, "x86_64").program
    assert len(program) // bpf.INSTRUCTION.size > 1000
    for number, args, wanted in (
        (X86_64["read"], (), seccomp.ALLOW),
        (X86_64["io_uring_setup"], (), seccomp.ALLOW),
        (X86_64["socket"], (0,), seccomp.ALLOW),
        (X86_64["socket"], (5, 5, 398), seccomp.ALLOW),
        (X86_64["socket"], (5, 5, 5 | 1 << 32), EPERM),
        (X86_64["write"], (), EPERM),
        (999, (), ENOSYS),
    ):
        assert run_classic(program, seccomp_data(number, NATIVE, *args))[0] == wanted
    with pytest.raises(ValueError, match="more than the kernel takes"):
        seccomp.compile(profile(*many, *many, *many), "x86_64")


def test_allowed_whatever_the_arguments_needs_no_argument():
    """The kernel then remembers the answer, and runs no program at all."""
    document = profile(rule("clone", args=[arg(0, "EQ", 1)]), rule("clone"))
    program = seccomp.compile(document, "x86_64").program
    assert run_classic(program, seccomp_data(X86_64["clone"], NATIVE))[1] < 10
    assert len(program) // 8 < 15


def test_the_tables_agree_on_what_all_abis_share():
    for name in ("openat2", "clone3", "mseal", "futex_wait"):
        assert X86_64[name] == I386[name] == AARCH64[name] == ARM[name] == X32[name] & ~(1 << 30)
    assert X86_64["read"] == 0
    assert I386["read"] == 3
    assert len(X86_64) == len(set(X86_64.values()))
