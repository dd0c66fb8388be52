"""Interpreters for the two forms of BPF, written from the kernel's documentation for the tests.

They share no code with sampan.kernel.bpf: what is assembled there is judged here.
"""

from __future__ import annotations

import struct


def run_classic(program: bytes, data: bytes) -> tuple[int, int]:
    """Run a seccomp filter on a struct seccomp_data: the value returned and the steps taken."""
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, at, steps = 0, 0, 0
    while True:
        op, when_true, when_false, k = code[at]
        at += 1
        steps += 1
        if op == 0x20:  # ld [k]
            assert k % 4 == 0
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif op == 0x54:  # and #k
            accumulator &= k
        elif op == 0x05:  # ja
            at += k
        elif op in (0x15, 0x25, 0x35, 0x45):
            taken = {
                0x15: accumulator == k,
                0x25: accumulator > k,
                0x35: accumulator >= k,
                0x45: bool(accumulator & k),
            }[op]
            at += when_true if taken else when_false
        elif op == 0x06:  # ret #k
            return k, steps
        else:
            raise AssertionError(f"unknown instruction {op:#x}")


def seccomp_data(number: int, arch: int, *args: int) -> bytes:
    """A struct seccomp_data; the missing arguments are zero."""
    padded = (*args, 0, 0, 0, 0, 0, 0)[:6]
    return struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)


def run_device(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Run a cgroup device program: what it returns, 1 is allowed."""
    code = list(struct.iter_unpack("=BBhi", program))
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers: dict[int, int | str] = {1: "context"}
    at = 0
    while True:
        op, both, offset, value = code[at]
        target, source = both & 15, both >> 4
        at += 1
        if op == 0x95:  # exit
            result = registers[0]
            assert isinstance(result, int)
            return result
        if op == 0x61:  # target = *(u32 *)(source + offset)
            assert registers[source] == "context"
            registers[target] = struct.unpack_from("=I", context, offset)[0]
            continue
        if op in (0xB7, 0xBC):
            registers[target] = value if op == 0xB7 else registers[source]
            continue
        old = registers[target]
        assert isinstance(old, int)
        if op == 0x54:
            registers[target] = old & value & 0xFFFFFFFF
        elif op == 0x74:
            registers[target] = (old & 0xFFFFFFFF) >> value
        elif op in (0x16, 0x56):
            equal = old & 0xFFFFFFFF == value & 0xFFFFFFFF
            assert offset >= 0
            at += offset if equal == (op == 0x16) else 0
        else:
            raise AssertionError(f"unknown instruction {op:#x}")
