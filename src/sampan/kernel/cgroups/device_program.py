"""A policy for devices as a program for version 2 (BPF_PROG_TYPE_CGROUP_DEVICE)."""

from __future__ import annotations

from sampan.kernel import bpf
from sampan.kernel.cgroups.devices import ANY, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.cgroups.devices import Meta

_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*


def program(rules: Policy) -> bytes:
    """The policy as eBPF: r0 is 1 for an access that is allowed.

    The context is {u32 access << 16 | type, u32 major, u32 minor}. An allowing exception must
    cover every access that is asked for; a denying one matches if it covers any.
    """
    code = [
        bpf.load_context(2, 0),
        bpf.and_immediate(2, 0xFFFF),
        bpf.load_context(3, 0),
        bpf.shift_right(3, 16),
        bpf.load_context(4, 4),
        bpf.load_context(5, 8),
    ]
    for meta, access in rules.exceptions.items():
        code.extend(_exception(meta, access, rules.allow))
    code.extend((bpf.move_immediate(0, int(rules.allow)), bpf.leave()))
    return b"".join(code)


def _exception(meta: Meta, access: set[str], default: bool) -> list[bytes]:
    kind, major, minor = meta
    bits = sum(_ACCESS[letter] for letter in access)
    tests: list[list[bytes]] = []  # each ends in a jump, filled with the way to the next exception
    tests.append([bpf.jump_not_equal(2, _TYPES[kind])])
    if bits != 7:
        covered = bits if default else ~bits & 7
        jump = bpf.jump_equal(1, 0) if default else bpf.jump_not_equal(1, 0)
        tests.append([bpf.move_register(1, 3), bpf.and_immediate(1, covered), jump])
    for register, number in ((4, major), (5, minor)):
        if number != ANY:
            tests.append([bpf.jump_not_equal(register, number)])
    verdict = [bpf.move_immediate(0, int(not default)), bpf.leave()]
    code: list[bytes] = []
    length = sum(map(len, tests)) + len(verdict)
    for test in tests:
        code.extend(test[:-1])
        code.append(bpf.jump_by(test[-1], length - len(code) - 1))
    return code + verdict
