"""The process that keeps a pod's pid namespace: 60 bytes of machine code that sleep.

Containers of a pod that share their processes need a first process that outlives each of them, and
that reaps what they orphan. An image for it would be one more thing to pull and to trust. This one
ignores SIGCHLD, which makes the kernel reap every child of it by itself (sigaction(2)), and pauses.
SIGKILL from outside ends it; from inside it cannot be signalled, as any first process.
"""

from __future__ import annotations

import os
import struct

from sampan.errors import NotImplementedHere

_BASE = 0x400000
_HEADERS = 64 + 56
_CODE = {
    "x86_64": (
        b"\x48\x83\xec\x20"  # sub rsp, 32: a struct sigaction of the kernel
        b"\x31\xc0"  # xor eax, eax
        b"\x48\x89\x44\x24\x08"  # mov [rsp+8], rax: no flags
        b"\x48\x89\x44\x24\x10"  # mov [rsp+16], rax: no restorer
        b"\x48\x89\x44\x24\x18"  # mov [rsp+24], rax: no mask
        b"\xff\xc0"  # inc eax
        b"\x48\x89\x04\x24"  # mov [rsp], rax: SIG_IGN
        b"\xbf\x11\x00\x00\x00"  # mov edi, SIGCHLD
        b"\x48\x89\xe6"  # mov rsi, rsp
        b"\x31\xd2"  # xor edx, edx
        b"\x41\xba\x08\x00\x00\x00"  # mov r10d, 8: bytes of a signal set
        b"\xb8\x0d\x00\x00\x00"  # mov eax, SYS_rt_sigaction
        b"\x0f\x05"  # syscall
        b"\xb8\x22\x00\x00\x00"  # again: mov eax, SYS_pause
        b"\x0f\x05"  # syscall
        b"\xeb\xf7"  # jmp again
    )
}
PROGRAM = "/keeper"


def image(machine: str) -> bytes:
    """The ELF program. Raises NotImplementedHere for a machine that it is not written for."""
    if machine not in _CODE:
        raise NotImplementedHere(f"a shared pid namespace of a pod is not supported on {machine}")
    code = _CODE[machine]
    size = _HEADERS + len(code)
    ident = b"\x7fELF\x02\x01\x01"  # 64 bits, little endian, version 1
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    # PT_LOAD, readable and executable, the whole file
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def make_root(path: str) -> str:
    """A root file system of nothing but the program, made once; its path. Blocks."""
    program = path + PROGRAM
    if os.path.exists(program):
        return path
    for name in ("", "/dev", "/proc"):
        os.makedirs(path + name, exist_ok=True)
        os.chmod(path + name, 0o755)  # for nobody, whatever our umask is
    fresh = program + ".new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o755)
    try:
        os.write(fd, image(os.uname().machine))
        os.fchmod(fd, 0o755)
    finally:
        os.close(fd)
    os.rename(fresh, program)
    return path
