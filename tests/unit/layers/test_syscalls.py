"""The filter of the unpacking process, run in a small BPF machine."""

from __future__ import annotations

import struct

import pytest

from sampan.layers import syscalls

ALLOW, KILL, EPERM = 0x7FFF0000, 0x80000000, 0x00050001
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run(program: bytes, arch: int, number: int) -> int:
    """The verdict for one system call."""
    data = struct.pack("=II", number, arch)
    code = list(struct.iter_unpack("=HBBI", program))
    position = accumulator = 0
    while True:
        operation, yes, no, value = code[position]
        position += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                position += yes if accumulator == value else no
            case 0x35:
                position += yes if accumulator >= value else no
            case 0x06:
                return value
            case _:
                raise AssertionError(operation)


@pytest.mark.parametrize("machine", AUDIT)
def test_exactly_the_listed_calls(machine: str) -> None:
    program = syscalls.program(machine)
    column = list(AUDIT).index(machine)
    listed = {numbers[column] for numbers in syscalls._CALLS.values()}
    allowed = {n for n in range(600) if run(program, AUDIT[machine], n) == ALLOW}
    assert allowed == listed
    assert run(program, AUDIT[machine], 0x40000001) == EPERM
    assert run(program, 0x40000003, 1) == KILL


@pytest.mark.parametrize(
    "number", [59, 322, 41, 101, 165, 166, 155, 161, 272, 308, 304, 321, 428, 429, 430, 442]
)
def test_dangerous_calls_are_refused(number: int) -> None:
    """execve, execveat, socket, ptrace, mount, umount2, pivot_root, chroot, unshare, setns,
    open_by_handle_at, bpf, open_tree, move_mount, fsopen, mount_setattr."""
    assert run(syscalls.program("x86_64"), AUDIT["x86_64"], number) == EPERM


def test_no_filter_for_an_unknown_machine() -> None:
    assert syscalls.program("s390x") == b""
