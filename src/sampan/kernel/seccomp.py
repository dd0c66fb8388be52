"""Seccomp: an OCI profile compiled into a classic BPF program, and loaded.

`compile` is pure and answers with a `Filter`; `load` puts one into force. The profile is OCI
`linux.seccomp`. Its rules are looked at in this order for each system call: rules with conditions
as they are listed, then a rule without any (of several, the one that forbids most), then the
default action.

Fail closed: an action, operator, flag or architecture that is not known is a ValueError, as is an
index, an errno or a program out of its range. Only names of system calls that the table does not
have are left out, as runc does it: they are other architectures' or newer than we are.

Beyond the rules, as runc: calls newer than the newest that the profile names get ENOSYS, if the
default denies, so that C libraries fall back; a foreign architecture is killed. The x32 numbers of
x86_64 get ENOSYS unless SCMP_ARCH_X32 is listed, as from a kernel without them (runc kills).
"""

from __future__ import annotations

import errno
import os

from sampan.kernel import bpf
from sampan.kernel import syscall_table as table
from sampan.kernel.filters import FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, load

__all__ = ["FLAG_NEW_LISTENER", "FLAG_SPEC_ALLOW", "Filter", "compile", "load"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
NOTIFY = 0x7FC00000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000

ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_NOTIFY": NOTIFY,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_ALLOW": ALLOW,
}
# From the one that forbids most, in the kernel's own order.
_ORDER = (KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, NOTIFY, TRACE, LOG, ALLOW)
_PERMISSIVE = frozenset((ALLOW, LOG, TRACE))
_MAX_ERRNO = 4095
_MAX_TRACE = 0xFFFF

OPERATORS = frozenset(
    f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)
FLAG_LOG = 2
_WAIT_KILLABLE_RECV = 32
FLAGS = {
    # Synchronising threads means nothing for a process that has one; runc ignores it as well.
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": _WAIT_KILLABLE_RECV,
}
DEFAULT_FLAGS = FLAG_SPEC_ALLOW

# OCI name -> (AUDIT_ARCH of linux/audit.h, table, machine word)
_KNOWN: dict[str, tuple[int, dict[str, int], int]] = {
    "SCMP_ARCH_X86_64": (0xC000003E, table.X86_64, 64),
    "SCMP_ARCH_X32": (0xC000003E, table.X32, 64),
    "SCMP_ARCH_X86": (0x40000003, table.I386, 32),
    "SCMP_ARCH_AARCH64": (0xC00000B7, table.AARCH64, 64),
    "SCMP_ARCH_ARM": (0x40000028, table.ARM, 32),
}
# Words of the specification that no process of the hosts above can run as.
_FOREIGN = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        "MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X "
        "PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
)
ARCHITECTURES = frozenset(_KNOWN) | _FOREIGN
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_FAMILY = {
    "SCMP_ARCH_X86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_X86"),
    "SCMP_ARCH_AARCH64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_X32_BIT = 0x40000000
_ARM_PRIVATE = 0xF0000
_MAX_INSTRUCTIONS = 4096

# struct seccomp_data {int nr; u32 arch; u64 instruction_pointer; u64 args[6]}, little endian
_NUMBER = 0
_ARCHITECTURE = 4
_ARGUMENTS = 16

# Calls that i386 also has as a number of socketcall or ipc; a rule for a name means both ways.
_SOCKETCALLS = (
    "socket bind connect listen accept getsockname getpeername socketpair send recv sendto "
    "recvfrom shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
).split()
_IPC_CALLS = {
    "semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12,
    "msgget": 13, "msgctl": 14, "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
}  # fmt: skip
_MULTIPLEXED = {
    **{name: ("socketcall", number) for number, name in enumerate(_SOCKETCALLS, 1)},
    **{name: ("ipc", number) for name, number in _IPC_CALLS.items()},
}


class Filter:
    """A compiled profile: the program, and the flags to load it with."""

    __slots__ = ("flags", "program")

    def __init__(self, program: bytes, flags: int) -> None:
        self.program = program
        self.flags = flags


class _Condition:
    """One comparison of an argument."""

    __slots__ = ("index", "operator", "value", "value_two")

    def __init__(self, index: int, operator: str, value: int, value_two: int) -> None:
        self.index = index
        self.operator = operator
        self.value = value
        self.value_two = value_two


class _Rules:
    """What is to be done about one system call number."""

    __slots__ = ("conditional", "plain")

    def __init__(self) -> None:
        self.conditional: list[tuple[list[_Condition], int]] = []
        self.plain: int | None = None

    def constant(self, default: int) -> int | _Rules:
        """The one result that these rules have whatever the arguments are, or the rules."""
        last = default if self.plain is None else self.plain
        # Conditions at the end that change nothing: dropped, so that the kernel can see, without
        # running the program, that the call is allowed.
        while self.conditional and self.conditional[-1][1] == last:
            self.conditional.pop()
        return self if self.conditional else last

    def add(self, conditions: list[_Condition], result: int) -> None:
        if conditions:
            self.conditional.append((conditions, result))
        elif self.plain is None or _severity(result) < _severity(self.plain):
            self.plain = result


def compile(profile: dict[str, Any], arch: str = "host") -> Filter:  # noqa: A001
    """Compile OCI `linux.seccomp` for `arch` ("x86_64", "aarch64" or this host's).

    Raises ValueError for anything in the profile that is not understood.
    """
    native = _NATIVE.get(os.uname().machine if arch == "host" else arch)
    if native is None:
        raise ValueError(f"seccomp: no system call table for {arch}")
    default = _result(profile, "defaultAction", "defaultErrnoRet", "linux.seccomp")
    if default == NOTIFY:
        raise ValueError("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default")
    rules = _parse_rules(profile.get("syscalls"))
    flags = _parse_flags(profile.get("flags"))
    if any(result == NOTIFY for _, _, result in rules):
        flags |= FLAG_NEW_LISTENER
    else:  # how a listener is waited for says nothing where there is none
        flags &= ~_WAIT_KILLABLE_RECV
    listed = {native, *_parse_architectures(profile.get("architectures"))}
    program = _assemble([name for name in _FAMILY[native] if name in listed], rules, default)
    return Filter(program, flags)


def _result(rule: dict[str, Any], key: str, errno_key: str, place: str) -> int:
    """The return value for the kernel that an action with its errno stands for."""
    name, number = rule.get(key), rule.get(errno_key)
    if not isinstance(name, str) or name not in ACTIONS:
        raise ValueError(f"{place}.{key}: unknown action {name!r}")
    action = ACTIONS[name]
    if action not in {ERRNO, TRACE}:
        # The default of a whole profile may name an errno that only its other actions could use.
        if number is not None and key == "action":
            raise ValueError(f"{place}.{errno_key}: {name} returns no errno")
        return action
    if number is None:
        number = errno.EPERM
    highest = _MAX_ERRNO if action == ERRNO else _MAX_TRACE
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= highest:
        raise ValueError(f"{place}.{errno_key}: {number!r} is not an errno")
    return action | number


def _severity(result: int) -> int:
    return _ORDER.index(result & 0xFFFF0000)


def _malformed(place: str, why: str) -> ValueError:
    return ValueError(f"{place}: {why}")


def _strings(value: object, place: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{place}: not a list of strings")
    return value


def _parse_flags(value: object) -> int:
    if value is None:
        return DEFAULT_FLAGS
    flags = 0
    for name in _strings(value, "linux.seccomp.flags"):
        if name not in FLAGS:
            raise ValueError(f"linux.seccomp.flags: unknown flag {name!r}")
        flags |= FLAGS[name]
    return flags


def _parse_architectures(value: object) -> list[str]:
    names = _strings(value, "linux.seccomp.architectures")
    for name in names:
        if name not in ARCHITECTURES:
            raise ValueError(f"linux.seccomp.architectures: unknown architecture {name!r}")
    return names


def _parse_rules(value: object) -> list[tuple[list[str], list[list[_Condition]], int]]:
    """The rules as (names, alternatives of conditions, return value)."""
    if value is not None and not isinstance(value, list):
        raise _malformed("linux.seccomp.syscalls", "not a list")
    rules = []
    for index, rule in enumerate(value or ()):
        place = f"linux.seccomp.syscalls[{index}]"
        if not isinstance(rule, dict):
            raise _malformed(place, "not an object")
        names = _strings(rule.get("names"), f"{place}.names")
        if not names:
            raise ValueError(f"{place}.names: is empty")
        result = _result(rule, "action", "errnoRet", place)
        if result == NOTIFY and "write" in names:
            raise ValueError(f"{place}: write cannot be notified of, the notification is written")
        rules.append((names, _parse_conditions(rule.get("args"), place), result))
    return rules


def _parse_conditions(value: object, place: str) -> list[list[_Condition]]:
    if value is None:
        return [[]]
    if not isinstance(value, list):
        raise _malformed(f"{place}.args", "not a list")
    conditions = [_parse_condition(arg, f"{place}.args[{n}]") for n, arg in enumerate(value)]
    # libseccomp takes an argument once in a rule, so runc makes a rule of each condition as soon
    # as one argument comes twice; profiles are written with that in mind.
    if len({condition.index for condition in conditions}) < len(conditions):
        return [[condition] for condition in conditions]
    return [conditions]


def _parse_condition(arg: object, place: str) -> _Condition:
    if not isinstance(arg, dict):
        raise _malformed(place, "not an object")
    operator = arg.get("op")
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise ValueError(f"{place}.op: unknown operator {operator!r}")
    numbers = []
    for key, highest in (("index", 5), ("value", (1 << 64) - 1), ("valueTwo", (1 << 64) - 1)):
        number = arg.get(key, 0)
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= highest:
            raise ValueError(f"{place}.{key}: {number!r} is out of range")
        numbers.append(number)
    return _Condition(numbers[0], operator, numbers[1], numbers[2])


def _assemble(
    architectures: list[str],
    rules: list[tuple[list[str], list[list[_Condition]], int]],
    default: int,
) -> bytes:
    blocks: dict[int, list[tuple[int, int | _Rules]]] = {}
    for name in architectures:
        # x32 shares its token with x86_64: its numbers follow in the same tree.
        before = blocks.get(_KNOWN[name][0], [])
        blocks[_KNOWN[name][0]] = [*before[:-1], *_intervals(name, rules, default)]
    program = bpf.Program()
    entry = program.returns(KILL_PROCESS)
    # Backwards, so that the native architecture, the first one, is tested first.
    for token in reversed(blocks):
        chains: dict[tuple[object, ...], int] = {}
        mask = 0xFFFFFFFF if token & 0x80000000 else 0
        verdicts = [
            (low, _verdict(program, what, default, mask, chains)) for low, what in blocks[token]
        ]
        start = program.load(_NUMBER, _tree(program, verdicts))
        entry = program.branch(bpf.JMP_JEQ_K, token, start, entry)
    program.load(_ARCHITECTURE, entry)
    if len(program) > _MAX_INSTRUCTIONS:
        raise ValueError(
            f"linux.seccomp: {len(program)} instructions are more than the kernel takes"
        )
    return program.encode()


def _intervals(
    name: str, rules: list[tuple[list[str], list[list[_Condition]], int]], default: int
) -> list[tuple[int, int | _Rules]]:
    """The numbers of one ABI as (first number, what to do from there on), in ascending order."""
    found = _by_number(name, rules)
    first = _X32_BIT if name == "SCMP_ARCH_X32" else 0
    newest = max((number for number in found if number & ~_X32_BIT < _ARM_PRIVATE), default=-1)
    # Trace counts as permissive: a tracer can answer for calls it does not know.
    open_ended = default & 0xFFFF0000 in _PERMISSIVE or newest < 0
    newer = default if open_ended else ERRNO | errno.ENOSYS
    result: list[tuple[int, int | _Rules]] = [(first, default)]
    for number in sorted(found):
        _put(result, number, found[number].constant(default))
        _put(result, number + 1, newer if number >= newest else default)
    if name == "SCMP_ARCH_X86_64":
        _put(result, _X32_BIT, ERRNO | errno.ENOSYS)
    return result


def _put(intervals: list[tuple[int, int | _Rules]], low: int, what: int | _Rules) -> None:
    if intervals[-1][0] == low:
        intervals.pop()
    if not intervals or intervals[-1][1] != what:
        intervals.append((low, what))


def _by_number(
    name: str, rules: list[tuple[list[str], list[list[_Condition]], int]]
) -> dict[int, _Rules]:
    numbers = _KNOWN[name][1]
    found: dict[int, _Rules] = {}
    for names, alternatives, result in rules:
        for call in names:
            number = numbers.get(call)
            if number is not None:
                if number not in found:
                    found[number] = _Rules()
                for conditions in alternatives:
                    found[number].add(conditions, result)
            if name == "SCMP_ARCH_X86" and call in _MULTIPLEXED:
                _add_multiplexed(found, call, alternatives, result)
    return found


def _add_multiplexed(
    found: dict[int, _Rules], call: str, alternatives: list[list[_Condition]], result: int
) -> None:
    """Let a rule for `socket` speak about socketcall(SYS_SOCKET) too, which is the same on i386.

    Arguments are behind a pointer there, which a filter cannot follow: a rule with conditions
    then forbids for all of their values, and permits for none.
    """
    if any(alternatives) and result & 0xFFFF0000 in _PERMISSIVE:
        return
    multiplexer, number = _MULTIPLEXED[call]
    # The kernel takes a version from the upper half of ipc's number.
    condition = _Condition(0, "SCMP_CMP_MASKED_EQ", 0xFFFF, number)
    rules = found.setdefault(table.I386[multiplexer], _Rules())
    rules.add([condition], result)


def _verdict(
    program: bpf.Program,
    what: int | _Rules,
    default: int,
    upper: int,
    chains: dict[tuple[object, ...], int],
) -> int:
    """The label of the code that decides about one call; equal rules share it."""
    if isinstance(what, int):
        return program.returns(what)
    last = default if what.plain is None else what.plain
    key = (last, *((id(conditions), result) for conditions, result in what.conditional))
    if key not in chains:
        label = program.returns(last)
        for conditions, result in reversed(what.conditional):
            label = _match(program, conditions, upper, program.returns(result), label)
        chains[key] = label
    return chains[key]


def _match(
    program: bpf.Program, conditions: list[_Condition], upper: int, match: int, fail: int
) -> int:
    for condition in reversed(conditions):
        match = _compare(program, condition, upper, match, fail)
    return match


def _compare(program: bpf.Program, condition: _Condition, upper: int, match: int, fail: int) -> int:
    """Compare an argument, in its two words.

    A 32 bit call has lower words only (`upper` is 0): what the filter sees above them is left over
    in the registers of a 64 bit program that uses the 32 bit entry, and would be a way around. A
    value that is a small negative number in 64 bits means the same number in 32.
    """
    operator, value, mask = condition.operator, condition.value, (1 << 64) - 1
    if operator == "SCMP_CMP_MASKED_EQ":
        mask, value = value, condition.value_two
    elif operator in {"SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"}:
        match, fail = fail, match
    if not upper:
        mask &= 0xFFFFFFFF
        if value >> 32 == 0xFFFFFFFF:
            value &= 0xFFFFFFFF
    low = _ARGUMENTS + 8 * condition.index
    if operator in {"SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_GE", "SCMP_CMP_LT"}:
        if mask >> 32 == 0 and value >> 32:
            return fail
        code = bpf.JMP_JGT_K if operator in {"SCMP_CMP_GT", "SCMP_CMP_LE"} else bpf.JMP_JGE_K
        label = program.load(low, program.branch(code, value & 0xFFFFFFFF, match, fail))
        if mask >> 32 == 0:
            return label
        same = program.branch(bpf.JMP_JEQ_K, value >> 32, label, fail)
        return program.load(low + 4, program.branch(bpf.JMP_JGT_K, value >> 32, match, same))
    label = _equal(program, low, mask & 0xFFFFFFFF, value & 0xFFFFFFFF, match, fail)
    return _equal(program, low + 4, mask >> 32, value >> 32, label, fail)


def _equal(program: bpf.Program, offset: int, mask: int, value: int, match: int, fail: int) -> int:
    """Compare one word under a mask; without a load where the outcome is known."""
    if value & ~mask:
        return fail
    if not mask:
        return match
    label = program.branch(bpf.JMP_JEQ_K, value, match, fail)
    if mask != 0xFFFFFFFF:
        label = program.before(bpf.ALU_AND_K, mask, label)
    return program.load(offset, label)


def _tree(program: bpf.Program, verdicts: list[tuple[int, int]]) -> int:
    """A binary search for the interval that the accumulator is in."""
    if len(verdicts) == 1:
        return verdicts[0][1]
    middle = len(verdicts) // 2
    above = _tree(program, verdicts[middle:])
    return program.branch(
        bpf.JMP_JGE_K, verdicts[middle][0], above, _tree(program, verdicts[:middle])
    )
