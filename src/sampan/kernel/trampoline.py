"""A program of 180 bytes that executes another one, so that an unsealed interpreter need not.

At execve the kernel resolves `/proc/self/exe` of the calling process, for instance when the
container's program is a script with that interpreter. Called from Python, that would run the host's
interpreter inside the container, where a later process could open it for writing. Called from this
program, it is a sealed memory file that nothing can be done with. A second start of the
interpreter, from a sealed copy, would give the same at ten times the cost.

The program: set close-on-exec on one descriptor, execve(argv[0], argv + 1, environment); if that
returns, write the negative errno as eight bytes to the descriptor and exit with 127. Where the
descriptor is not open, it was started from inside, as `/proc/self/exe`, and only exits.
"""

from __future__ import annotations

import struct

from sampan.kernel import elf, fds
from sampan.kernel import numbers as n

# x86-64, hand-assembled; %FD% marks the two places of the descriptor's number.
_CODE = {
    "x86_64": (
        b"\xbf%FD%"  # mov edi, FD
        b"\xbe\x02\x00\x00\x00"  # mov esi, F_SETFD
        b"\xba\x01\x00\x00\x00"  # mov edx, FD_CLOEXEC
        b"\xb8\x48\x00\x00\x00"  # mov eax, SYS_fcntl
        b"\x0f\x05"  # syscall
        b"\x85\xc0"  # test eax, eax
        b"\x78\x2f"  # js exit
        b"\x48\x8b\x7c\x24\x08"  # mov rdi, [rsp+8]
        b"\x48\x8d\x74\x24\x10"  # lea rsi, [rsp+16]
        b"\x48\x8b\x0c\x24"  # mov rcx, [rsp]
        b"\x48\x8d\x54\xcc\x10"  # lea rdx, [rsp+rcx*8+16]
        b"\xb8\x3b\x00\x00\x00"  # mov eax, SYS_execve
        b"\x0f\x05"  # syscall
        b"\x50"  # push rax
        b"\xbf%FD%"  # mov edi, FD
        b"\x48\x89\xe6"  # mov rsi, rsp
        b"\xba\x08\x00\x00\x00"  # mov edx, 8
        b"\xb8\x01\x00\x00\x00"  # mov eax, SYS_write
        b"\x0f\x05"  # syscall
        b"\xbf\x7f\x00\x00\x00"  # exit: mov edi, 127
        b"\xb8\xe7\x00\x00\x00"  # mov eax, SYS_exit_group
        b"\x0f\x05"  # syscall
    )
}


def is_available() -> bool:
    """Whether there is such a program for this architecture."""
    return n.MACHINE in _CODE


def image(report: int) -> bytes:
    """The ELF program that reports to the descriptor `report`."""
    code = _CODE[n.MACHINE].replace(b"%FD%", struct.pack("<I", report))
    return elf.program(code, n.MACHINE)


def make(report: int) -> int:
    """A sealed memory file of the program, for `os.execve(fd, [path, *argv], environment)`."""
    return fds.sealed_memfd("sampan-exec", image(report))


def failure_of(message: bytes) -> int:
    """The errno in what the program wrote."""
    code: int = struct.unpack("<q", message)[0]
    return -code
