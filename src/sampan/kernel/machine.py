"""A program of 173 bytes that carries out a list of system calls, in place of an interpreter.

The first process of a container needs no Python: what it does was planned before it was born, and
is a list. This program walks the list, so that no interpreter, no heap and no import system ever
stands inside of a container, and so that its birth copies no memory.

A `Script` is such a list. Each record is one call with five arguments (the sixth is 0), the place
of its result, the record that follows, and where two results that are named go on instead: errors
that are no failure (or ANY), or a value such as the 0 that clone3 returns in a child. All other
errors end the program. An argument is a number, bytes (put beside the records, with a NUL; the call
gets their address), or a `Value`: what lies at an address as 32 bits when the call is made, such as
the result of an earlier one or a descriptor that came with a message.

The program has the descriptor `REPORT`. Where a record fails, the record's address and the
errno are written to it, 16 bytes, and the exit code is 127. That is all it can say: who
wants to know more asks an interpreter to do the same again.
"""

from __future__ import annotations

import os
import struct

from sampan.kernel import numbers as n

REPORT = 3
OWN_BASE = 0x400000
OWN_SCRIPT = 0x401000
ORDER_BASE = 0x10000000
ROOM = 0x8000
"""Bytes for the records of a script; its data follow."""
ANY = (0,)
"""For `tolerate`: whatever the error is."""

_PAGE = 0x1000
_RECORD = struct.Struct("<II6Q4I")
_RESULT, _NEXT = 48, 56  # offsets in a record
_ANY_ERROR = 0x80  # in the second word of a record
_UNNAMED = (0x80000000, 0x80000000)  # as the low half of a result no descriptor, count or error
_NONE = (0, 0, 0, 0, 0)
_ADDRESS = struct.Struct("<I")
_PADDING = bytes(8)
_REPORT = struct.Struct("<QQ")

# x86-64, assembled by hand; %START% is the address of the first record.
_CODE = {
    "x86_64": (
        b"\x41\xbc%START%"  # mov r12d, START
        b"\x41\x8b\x04\x24"  # step: mov eax, [r12]
        b"\x41\x8b\x5c\x24\x04"  # mov ebx, [r12+4]
        b"\x49\x8b\x7c\x24\x08"  # mov rdi, [r12+8]
        b"\x49\x8b\x74\x24\x10"  # mov rsi, [r12+16]
        b"\x49\x8b\x54\x24\x18"  # mov rdx, [r12+24]
        b"\x4d\x8b\x54\x24\x20"  # mov r10, [r12+32]
        b"\x4d\x8b\x44\x24\x28"  # mov r8, [r12+40]
        b"\xf6\xc3\x01\x74\x03"  # test bl, 1; jz +3
        b"\x48\x63\x3f"  # movsxd rdi, dword [rdi]
        b"\xf6\xc3\x02\x74\x03"  # test bl, 2; jz +3
        b"\x48\x63\x36"  # movsxd rsi, dword [rsi]
        b"\xf6\xc3\x04\x74\x03"  # test bl, 4; jz +3
        b"\x48\x63\x12"  # movsxd rdx, dword [rdx]
        b"\xf6\xc3\x10\x74\x03"  # test bl, 16; jz +3
        b"\x4d\x63\x00"  # movsxd r8, dword [r8]
        b"\x45\x31\xc9"  # xor r9d, r9d
        b"\x0f\x05"  # syscall
        b"\x49\x89\x44\x24\x30"  # mov [r12+48], rax
        b"\x41\x8b\x5c\x24\x3c"  # mov ebx, [r12+60]
        b"\x85\xdb\x74\x0e"  # test ebx, ebx; jz plain
        b"\x41\x3b\x44\x24\x40\x74\x14"  # cmp eax, [r12+64]; je go
        b"\x41\x3b\x44\x24\x44\x74\x0d"  # cmp eax, [r12+68]; je go
        b"\x41\x8b\x5c\x24\x38"  # plain: mov ebx, [r12+56]
        b"\x48\x3d\x00\xf0\xff\xff\x77\x05"  # cmp rax, -4096; ja failed
        b"\x41\x89\xdc\xeb\x8b"  # go: mov r12d, ebx; jmp step
        b"\x41\x8b\x5c\x24\x3c"  # failed: mov ebx, [r12+60]
        b"\x41\xf6\x44\x24\x04\x80\x75\xee"  # test byte [r12+4], 128; jnz go
        b"\xf7\xd8"  # neg eax
        b"\x50\x41\x54\x48\x89\xe6"  # push rax; push r12; mov rsi, rsp
        b"\xba\x10\x00\x00\x00"  # mov edx, 16
        b"\xbf\x03\x00\x00\x00"  # mov edi, REPORT
        b"\xb8\x01\x00\x00\x00"  # mov eax, SYS_write
        b"\x0f\x05"  # syscall
        b"\xbf\x7f\x00\x00\x00"  # mov edi, 127
        b"\xb8\xe7\x00\x00\x00"  # mov eax, SYS_exit_group
        b"\x0f\x05"  # syscall
    )
}
_ELF_MACHINES = {"x86_64": 62}

SYS = {
    "x86_64": {
        "capset": 126,
        "clock_gettime": 228,
        "close": 3,
        "dup2": 33,
        "dup3": 292,
        "epoll_wait": 232,
        "execve": 59,
        "execveat": 322,
        "exit_group": 231,
        "faccessat": 269,
        "fchdir": 81,
        "fchownat": 260,
        "fcntl": 72,
        "fsync": 74,
        "ioctl": 16,
        "keyctl": 250,
        "lseek": 8,
        "mkdirat": 258,
        "mknodat": 259,
        "mmap": 9,
        "mount": 165,
        "openat": 257,
        "pipe2": 293,
        "pivot_root": 155,
        "poll": 7,
        "prctl": 157,
        "pread64": 17,
        "prlimit64": 302,
        "read": 0,
        "recvmsg": 47,
        "renameat": 264,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "signalfd4": 289,
        "seccomp": 317,
        "sendmsg": 46,
        "setdomainname": 171,
        "setgroups": 116,
        "sethostname": 170,
        "setns": 308,
        "setresgid": 119,
        "setresuid": 117,
        "setsid": 112,
        "socket": 41,
        "socketpair": 53,
        "symlinkat": 266,
        "tee": 276,
        "umask": 95,
        "umount2": 166,
        "unlinkat": 263,
        "unshare": 272,
        "waitid": 247,
        "write": 1,
        "writev": 20,
    }
}.get(n.MACHINE, {})
"""Numbers of the older calls; those from 424 on are in `numbers`."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, TypeAlias

    Argument: TypeAlias = int | bytes | "Value"


def is_available() -> bool:
    """Whether there is such a program for this architecture."""
    return n.MACHINE in _CODE


class Value:
    """The 32 bits that lie at `address` when the call is made, with their sign."""

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address


class Label:
    """A place in a script that records go to; placed once, before `Script.pack`."""

    __slots__ = ("address",)

    def __init__(self) -> None:
        self.address = 0


class Script:
    """A list of calls that is being written, for the address `base`."""

    __slots__ = ("_data", "_known", "_labels", "_records", "base", "room")

    def __init__(self, base: int, room: int = ROOM) -> None:
        self.base, self.room = base, room
        self._records = bytearray()
        self._data = bytearray()
        self._known: dict[bytes, int] = {}
        self._labels: list[tuple[int, Label]] = []

    def call(
        self,
        number: int,
        *arguments: Argument,
        tolerate: tuple[int, ...] = (),
        equals: int | None = None,
        at: Label | None = None,
        then: Label | None = None,
    ) -> Value:
        """Add a call; its result.

        `then` is what follows it, the next record if None. `at` is what follows the result
        `equals`, or an error that is one of `tolerate` (both together are two at most, or ANY and
        one); the next record if None.
        """
        words: list[int] = []
        mask = 0
        for place, argument in enumerate(arguments):
            kind = type(argument)
            if kind is int:
                words.append(argument & 0xFFFFFFFFFFFFFFFF)  # type: ignore[operator]
            elif kind is bytes:
                words.append(self.text(argument))  # type: ignore[arg-type]
            else:
                words.append(argument.address)  # type: ignore[union-attr]
                mask |= 1 << place
        words += _NONE[len(words) :]
        start = len(self._records)
        following = self.base + start + _RECORD.size
        if then is not None:
            self._labels.append((start + _NEXT, then))
        if not tolerate and equals is None:  # most
            self._records += _RECORD.pack(number, mask, *words, 0, following, 0, *_UNNAMED)
            return Value(self.base + start + _RESULT)
        if at is not None:
            self._labels.append((start + _NEXT + 4, at))
        if tolerate == ANY:
            mask |= _ANY_ERROR
            named = []
        else:
            named = [-error & 0xFFFFFFFF for error in tolerate]
        if equals is not None:
            named.append(equals)
        first, second = (named[0], named[-1]) if named else _UNNAMED
        self._records += _RECORD.pack(number, mask, *words, 0, following, following, first, second)
        return Value(self.base + start + _RESULT)

    def text(self, content: bytes) -> int:
        """The address of `content` and a NUL; the same for the same content, so never written."""
        found = self._known.get(content)
        if found is None:
            found = self._known[content] = self.data(content + b"\0")
        return found

    def data(self, content: bytes) -> int:
        """Keep `content` beside the records, at an address that is a multiple of 8; the address."""
        address = self.base + self.room + len(self._data)
        self._data += content
        self._data += _PADDING[: -len(content) % 8]
        return address

    def here(self) -> int:
        """The address of the record that is added next, which a report of its failure names."""
        return self.base + len(self._records)

    def place(self, label: Label) -> None:
        """Let `label` mean the record that is added next."""
        label.address = self.base + len(self._records)

    def pack(self) -> bytes:
        """The script as it must lie at `base`. Raises ValueError when it has too many records."""
        if len(self._records) > self.room:
            count = len(self._records) // _RECORD.size
            raise ValueError(f"a script of {count} calls, more than fit")
        packed = self._records.ljust(self.room, b"\0")
        for offset, label in self._labels:
            _ADDRESS.pack_into(packed, offset, label.address)
        return bytes(packed + self._data)


def image(script: Script) -> bytes:
    """The ELF program of `script`, which is for `OWN_SCRIPT`: a page of code, records, data."""
    code = _CODE[n.MACHINE].replace(b"%START%", struct.pack("<I", script.base))
    content = script.pack()
    headers = 64 + 2 * 56
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little endian, version 1
        2,  # ET_EXEC
        _ELF_MACHINES[n.MACHINE],
        1,
        OWN_BASE + headers,  # entry
        64,  # program headers follow
        0,
        0,
        64,
        56,
        2,
        0,
        0,
        0,
    )
    size = headers + len(code)
    # PT_LOAD twice: readable and executable, readable and writable
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, OWN_BASE, OWN_BASE, size, size, _PAGE)
    segments += struct.pack(
        "<IIQQQQQQ", 1, 6, _PAGE, script.base, script.base, len(content), len(content), _PAGE
    )
    return (header + segments + code).ljust(_PAGE, b"\0") + content


def become(program: int, report: int) -> NoReturn:
    """In a fork: go on as `program`, with `report` for its reports. Does not return."""
    try:
        if report == REPORT:
            os.set_inheritable(report, True)
        else:
            os.dup2(report, REPORT, inheritable=True)
        os.execve(program, ["sampan-init"], {})
    finally:
        os._exit(127)


def failure_of(message: bytes) -> tuple[int, int]:
    """(address of the record, errno) of what the program wrote."""
    address, code = _REPORT.unpack(message)
    return address, code
