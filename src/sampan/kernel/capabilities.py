"""Capabilities: names, and the five sets of this process (capabilities(7))."""

from __future__ import annotations

import struct

from sampan.kernel import numbers as n
from sampan.kernel.libc import buffer, c_char_p, c_int, c_void_p, check, prototype
from sampan.kernel.process import prctl

NAMES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID "
    "CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST "
    "CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO "
    "CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE "
    "CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE "
    "CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM "
    "CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
).split()
BITS = {name: bit for bit, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522
_capset = prototype("capset", c_int, c_char_p, c_char_p)
_capget = prototype("capget", c_int, c_void_p, c_void_p)


def mask(names: list[str]) -> int:
    """The bits of `names`. A name that this kernel side does not know is left out, as runc does."""
    bits = 0
    for name in names:
        if name in BITS:
            bits |= 1 << BITS[name]
    return bits


def get() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of this process."""
    header, data = buffer(struct.pack("<2I", _VERSION_3, 0)), buffer(bytes(24))
    check(_capget(header, data), "capget")
    # effective, permitted, inheritable: the low words, then the high words
    words: tuple[int, ...] = struct.unpack("<6I", data)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def structures(effective: int, permitted: int, inheritable: int) -> tuple[bytes, bytes]:
    """The two arguments of capset(2) that set three of the sets of the caller at once."""
    sets = (effective, permitted, inheritable)
    words = [bits & 0xFFFFFFFF for bits in sets] + [bits >> 32 for bits in sets]
    return struct.pack("<2I", _VERSION_3, 0), struct.pack("<6I", *words)


def set_sets(effective: int, permitted: int, inheritable: int) -> None:
    """Set three of the sets at once."""
    header, data = structures(effective, permitted, inheritable)
    check(_capset(header, data), "capset")


def drop_bounding(keep: int) -> None:
    """Take every capability that is not in `keep` out of the bounding set, for ever."""
    for bit in range(len(NAMES)):
        if not keep >> bit & 1:
            prctl(n.PR_CAPBSET_DROP, bit)


def set_ambient(bits: int) -> None:
    """Make the ambient set exactly `bits`, which must be permitted and inheritable."""
    prctl(n.PR_CAP_AMBIENT, n.PR_CAP_AMBIENT_CLEAR_ALL)
    for bit in range(len(NAMES)):
        if bits >> bit & 1:
            prctl(n.PR_CAP_AMBIENT, n.PR_CAP_AMBIENT_RAISE, bit)
