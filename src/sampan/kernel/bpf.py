"""A small assembler for BPF in both its forms, and the bpf(2) calls that cgroups need.

Classic BPF (`Program`) is what seccomp filters are made of: eight bytes each, an
accumulator, jumps forward by at most 255. Extended BPF (`load_context` and its like) is what a
version 2 cgroup's device program is made of: ten registers, jumps by 16 bits.

Nothing here decides: the words are the kernel's, see linux/filter.h and linux/bpf.h.
"""

from __future__ import annotations

import os
from struct import Struct

from sampan.kernel.libc import address, buffer, c_int, c_uint, c_void_p, check, syscall

# Classic BPF: struct sock_filter {u16 code; u8 jt, jf; u32 k}
LD_W_ABS = 0x20
ALU_AND_K = 0x54
JMP_JA = 0x05
JMP_JEQ_K = 0x15
JMP_JGE_K = 0x35
JMP_JGT_K = 0x25
JMP_JSET_K = 0x45
RET_K = 0x06

INSTRUCTION = Struct("=HBBI")
MAX_JUMP = 255

_EXTENDED = Struct("=BBhi")

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_PROG_QUERY = 16
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2
_MAX_PROGRAMS = 64  # BPF_CGROUP_MAX_PROGS
_REPLACE = 4
_NUMBER = {"x86_64": 321, "aarch64": 280, "armv7l": 386, "i686": 357, "riscv64": 280}
_LICENSE = b"Apache-2.0\0"

_bpf = syscall(_NUMBER.get(os.uname().machine, -1), c_int, c_void_p, c_uint)


class Program:
    """A classic program, assembled from its end to its beginning.

    Jumps only lead forward, so backwards every target is already there and its distance known. A
    *label* is the position of an instruction counted from the end of the program. A label that is
    further than a conditional jump reaches gets an unconditional jump on the way.
    """

    __slots__ = ("_code", "_returns")

    # Room for the trampolines that one jump may need in front of its targets.
    _REACH = MAX_JUMP - 4

    def __init__(self) -> None:
        self._code: list[bytes] = []
        self._returns: dict[int, int] = {}

    def returns(self, value: int) -> int:
        """The label of an instruction in reach that returns `value`."""
        label = self._returns.get(value)
        if label is None or not self._reaches(label):
            label = self._returns[value] = self.add(RET_K, value)
        return label

    def add(self, code: int, k: int) -> int:
        """Put an instruction that does not jump before all the others; its label."""
        self._code.append(INSTRUCTION.pack(code, 0, 0, k))
        return len(self._code) - 1

    def load(self, offset: int, then: int) -> int:
        """Put a load of the word at `offset` before the code at label `then`; its label."""
        return self.before(LD_W_ABS, offset, then)

    def before(self, code: int, k: int, then: int) -> int:
        """Put an instruction that does not jump and goes on at label `then`; its label."""
        if then != len(self._code) - 1:
            self.add(JMP_JA, len(self._code) - then - 1)
        return self.add(code, k)

    def branch(self, code: int, k: int, when_true: int, when_false: int) -> int:
        """Put a conditional jump to two labels before all the others; its label."""
        if when_true == when_false:
            return when_true
        when_true, when_false = self._near(when_true), self._near(when_false)
        here = len(self._code) - 1
        self._code.append(INSTRUCTION.pack(code, here - when_true, here - when_false, k))
        return here + 1

    def _near(self, label: int) -> int:
        if self._reaches(label):
            return label
        return self.add(JMP_JA, len(self._code) - label - 1)

    def _reaches(self, label: int) -> bool:
        return len(self._code) - label <= self._REACH

    def __len__(self) -> int:
        return len(self._code)

    def encode(self) -> bytes:
        """The program, beginning with what was added last."""
        return b"".join(reversed(self._code))


def load_context(register: int, offset: int) -> bytes:
    """register = *(u32 *)(context + offset), while r1 still holds the context."""
    return _EXTENDED.pack(0x61, 1 << 4 | register, offset, 0)


def and_immediate(register: int, value: int) -> bytes:
    """register &= value, in 32 bits."""
    return _EXTENDED.pack(0x54, register, 0, value)


def shift_right(register: int, count: int) -> bytes:
    """register >>= count, in 32 bits."""
    return _EXTENDED.pack(0x74, register, 0, count)


def move_register(register: int, source: int) -> bytes:
    """register = source, in 32 bits."""
    return _EXTENDED.pack(0xBC, source << 4 | register, 0, 0)


def move_immediate(register: int, value: int) -> bytes:
    """register = value."""
    return _EXTENDED.pack(0xB7, register, 0, value)


def jump_not_equal(register: int, value: int) -> bytes:
    """Jump when the low 32 bits differ from value (Linux 5.1); the way comes from jump_by."""
    return _EXTENDED.pack(0x56, register, 0, _signed(value))


def jump_equal(register: int, value: int) -> bytes:
    """Jump when the low 32 bits are value (Linux 5.1); the way comes from jump_by."""
    return _EXTENDED.pack(0x16, register, 0, _signed(value))


def jump_by(instruction: bytes, count: int) -> bytes:
    """`instruction`, jumping over `count` instructions."""
    code, registers, _, value = _EXTENDED.unpack(instruction)
    return _EXTENDED.pack(code, registers, count, value)


def leave() -> bytes:
    """Return r0."""
    return _EXTENDED.pack(0x95, 0, 0, 0)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _call(command: int, layout: str, *values: int) -> tuple[int, tuple[int, ...]]:
    """One bpf(2) call: its result, and the attributes as the kernel left them."""
    packer = Struct(layout)
    attributes = buffer(packer.pack(*values).ljust(72, b"\0"))
    result = _bpf(command, attributes, len(attributes))
    return check(result, f"bpf command {command}"), packer.unpack_from(attributes)


def load_device_program(code: bytes) -> int:
    """Load a device program for a cgroup; returns its descriptor, close-on-exec."""
    instructions, license_text = buffer(code), buffer(_LICENSE)
    addresses = (address(instructions), address(license_text))
    count = len(code) // _EXTENDED.size
    return _call(_PROG_LOAD, "=IIQQ", _PROG_TYPE_CGROUP_DEVICE, count, *addresses)[0]


def attached_device_programs(cgroup: int) -> list[int]:
    """The ids of the device programs attached to the cgroup itself."""
    ids = buffer(bytes(4 * _MAX_PROGRAMS))
    values = (cgroup, _ATTACH_CGROUP_DEVICE, 0, 0, address(ids), _MAX_PROGRAMS)
    _, after = _call(_PROG_QUERY, "=IIIIQI", *values)
    return [number for (number,) in Struct("=I").iter_unpack(ids)][: after[5]]


def set_device_program(cgroup: int, program: int) -> None:
    """Make `program` the only device program of the cgroup, with no moment without one."""
    old = [_by_id(number) for number in attached_device_programs(cgroup)]
    try:
        flags, replaced = (_ALLOW_MULTI | _REPLACE, old[0]) if len(old) == 1 else (_ALLOW_MULTI, 0)
        values = (cgroup, program, _ATTACH_CGROUP_DEVICE, flags, replaced)
        _call(_PROG_ATTACH, "=IIIII", *values)
        for other in old if len(old) > 1 else ():
            _call(_PROG_DETACH, "=III", cgroup, other, _ATTACH_CGROUP_DEVICE)
    finally:
        for other in old:
            os.close(other)


def _by_id(number: int) -> int:
    return _call(_PROG_GET_FD_BY_ID, "=II", number, 0)[0]
