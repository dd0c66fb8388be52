"""Our compiler against libseccomp: the same rules must give the same answers.

Random profiles are built by both, and both programs are run by our interpreter over system call
numbers, architectures and arguments. Left out is where we differ on purpose: calls newer than the
profile, x32 numbers when x32 is not listed, and conditions on calls that i386 multiplexes. So are
two rules with conditions on one argument of one call: libseccomp 2.5.4 takes 0xffffffff for greater
than 0x100000000 there. Those are judged by `seccomporacle` alone.
"""

from __future__ import annotations

import ctypes
import os
import random

import pytest

from bpfmachine import run_classic, seccomp_data
from sampan.engine import profiles
from sampan.kernel import seccomp, syscall_table
from seccomporacle import judge

try:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
except OSError:
    pytest.skip("libseccomp is not installed", allow_module_level=True)
if os.uname().machine != "x86_64":
    pytest.skip("libseccomp builds for its own machine", allow_module_level=True)

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
TOKENS = {"SCMP_ARCH_X86_64": X86_64, "SCMP_ARCH_X86": I386, "SCMP_ARCH_X32": 0x4000003E}
OPS = {name: n for n, name in enumerate("NE LT LE EQ GE GT MASKED_EQ".split(), 1)}
BAD_ARCH, NO_NEW_PRIVS = 2, 3


class Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


library.seccomp_init.restype = ctypes.c_void_p
library.seccomp_init.argtypes = [ctypes.c_uint32]
library.seccomp_release.argtypes = [ctypes.c_void_p]
library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
library.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Comparison),
]
library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]


def action_of(rule, key="action", errno_key="errnoRet"):
    action = seccomp.ACTIONS[rule[key]]
    if action in (seccomp.ERRNO, seccomp.TRACE):
        action |= rule.get(errno_key, 1)
    return action


def reference(profile) -> bytes:
    """The profile as libseccomp compiles it, fed as runc feeds it."""
    default = action_of(profile, "defaultAction", "defaultErrnoRet")
    context = library.seccomp_init(default)
    assert context
    try:
        assert library.seccomp_attr_set(context, BAD_ARCH, seccomp.KILL_PROCESS) == 0
        for name in profile["architectures"]:
            if TOKENS[name] != X86_64:
                assert library.seccomp_arch_add(context, TOKENS[name]) == 0
        for rule in profile["syscalls"]:
            action = action_of(rule)
            if action == default:
                continue
            comparisons = [
                Comparison(
                    arg["index"],
                    OPS[arg["op"].removeprefix("SCMP_CMP_")],
                    arg["value"],
                    arg.get("valueTwo", 0),
                )
                for arg in rule.get("args", ())
            ]
            for name in rule["names"]:
                number = library.seccomp_syscall_resolve_name(name.encode())
                if number == -1:
                    continue
                array = (Comparison * len(comparisons))(*comparisons)
                result = library.seccomp_rule_add_array(
                    context, action, number, len(comparisons), array
                )
                assert result == 0, (name, result)
        fd = os.memfd_create("bpf")
        try:
            assert library.seccomp_export_bpf(context, fd) == 0
            return os.pread(fd, 1 << 20, 0)
        finally:
            os.close(fd)
    finally:
        library.seccomp_release(context)


WORDS = (0, 1, 2, 8, 0x28, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def values(rng, wide):
    high = rng.choice((0, 0, 1, 0xFFFFFFFF)) if wide else 0
    return high << 32 | rng.choice(WORDS)


def is_known(name):
    """Whether this libseccomp is new enough to know the call."""
    return library.seccomp_syscall_resolve_name(name.encode()) != -1


def random_profile(rng, architectures, *, wide, most=1):
    names = [n for n in syscall_table.X86_64 if is_known(n)]
    rng.shuffle(names)
    rules = []
    for _ in range(rng.randrange(1, 12)):
        rule = {
            "names": [names.pop() for _ in range(rng.randrange(1, 30))],
            "action": rng.choice(sorted(seccomp.ACTIONS.keys() - {"SCMP_ACT_NOTIFY"})),
        }
        if rule["action"] in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") and rng.random() < 0.5:
            rule["errnoRet"] = rng.randrange(1, 200)
        rules.append(rule)
    plain = [n for n in names if n not in seccomp._MULTIPLEXED]
    for _ in range(rng.randrange(0, 12)):
        name, action = plain.pop(), rng.choice(("SCMP_ACT_ALLOW", "SCMP_ACT_TRAP"))
        for _ in range(rng.randint(1, most)):
            args = []
            for index in rng.sample(range(6), rng.randrange(1, 4)):
                op = rng.choice(list(OPS))
                value, second = values(rng, wide), values(rng, wide)
                if op == "MASKED_EQ":
                    value = value or 0xFF
                    second &= value
                args.append(
                    {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}
                )
            rules.append({"names": [name], "action": action, "args": args})
    rng.shuffle(rules)
    return {
        "defaultAction": rng.choice(("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS")),
        "architectures": architectures,
        "syscalls": rules,
    }


def newest(profile, table):
    named = {name for rule in profile["syscalls"] for name in rule["names"]}
    return max((number for name, number in table.items() if name in named), default=-1)


def numbers(profile, token):
    """The (table, numbers) where both must agree: up to the newest call that is named."""
    if token == I386:
        return range(newest(profile, syscall_table.I386) + 1)
    found = list(range(newest(profile, syscall_table.X86_64) + 1))
    if "SCMP_ARCH_X32" in profile["architectures"]:
        found.extend(range(1 << 30, newest(profile, syscall_table.X32) + 1))
    return found


def compare(profile, rng, *, wide, vectors):
    expected, ours = reference(profile), seccomp.compile(profile, "x86_64").program
    seen = set()
    for token in (X86_64, I386):
        if token == I386 and "SCMP_ARCH_X86" not in profile["architectures"]:
            continue
        for number in numbers(profile, token):
            for _ in range(vectors):
                # A 64 bit program may leave anything above the arguments of a 32 bit call.
                args = [values(rng, wide or token == I386) for _ in range(6)]
                data = seccomp_data(number, token, *args)
                want, got = run_classic(expected, data)[0], run_classic(ours, data)[0]
                assert got == want, (hex(token), number, args, profile)
                seen.add(want)
    return seen


@pytest.mark.parametrize("seed", range(10))
def test_native_profiles_with_64_bit_arguments(seed):
    rng = random.Random(seed)
    profile = random_profile(rng, ["SCMP_ARCH_X86_64"], wide=True)
    assert compare(profile, rng, wide=True, vectors=4)


@pytest.mark.parametrize("seed", range(10))
def test_profiles_for_all_abis_of_the_machine(seed):
    rng = random.Random(1000 + seed)
    listed = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    profile = random_profile(rng, listed, wide=False)
    assert compare(profile, rng, wide=False, vectors=2)


@pytest.mark.parametrize("seed", range(10))
def test_any_profile_means_what_it_says(seed):
    rng = random.Random(2000 + seed)
    profile = random_profile(rng, ["SCMP_ARCH_X86_64"], wide=True, most=4)
    program = seccomp.compile(profile, "x86_64").program
    end = newest(profile, syscall_table.X86_64)
    for name, number in syscall_table.X86_64.items():
        for _ in range(6 if number <= end else 0):
            args = [values(rng, True) for _ in range(6)]
            got, _ = run_classic(program, seccomp_data(number, X86_64, *args))
            assert got == judge(profile, name, args), (name, args, profile)


@pytest.mark.parametrize("op", OPS)
def test_every_operator_at_every_edge(op):
    pivot = [hi << 32 | lo for hi in (0, 1, 0xFFFFFFFF) for lo in (0, 5, 0xFFFFFFFF)]
    around = sorted({(v + d) % (1 << 64) for v in pivot for d in (-1, 0, 1)})
    for value in pivot:
        first, second = (
            (0xFFFF0000FFFF, value & 0xFFFF0000FFFF) if op == "MASKED_EQ" else (value, 0)
        )
        profile = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["lseek"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [
                        {
                            "index": 3,
                            "op": f"SCMP_CMP_{op}",
                            "value": first,
                            "valueTwo": second,
                        }
                    ],
                }
            ],
        }
        expected, ours = reference(profile), seccomp.compile(profile, "x86_64").program
        for argument in around:
            data = seccomp_data(8, X86_64, 0, 0, 0, argument)
            assert run_classic(ours, data)[0] == run_classic(expected, data)[0], (value, argument)


@pytest.mark.parametrize("capabilities", [(), profiles.DEFAULT_CAPABILITIES, ("CAP_SYS_ADMIN",)])
def test_default_profile(capabilities):
    rng = random.Random(7)
    profile = profiles.seccomp_profile(capabilities)
    # libseccomp turns the conditions on socket into permission for socketcall; ours does not.
    profile["architectures"] = ["SCMP_ARCH_X86_64"]
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if is_known(name)]
    seen = compare(profile, rng, wide=True, vectors=6)
    assert {seccomp.ALLOW, seccomp.ERRNO | 1} <= seen
