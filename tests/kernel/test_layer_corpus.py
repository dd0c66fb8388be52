"""Hostile and odd layers, unpacked next to a canary that must not change.

Every case is bytes made here. A refused case must raise LayerError and nothing else, an accepted
one must raise nothing; either way the tree around the destination stays as it was, to the inode
and the link count. Run once in this process, where only the code protects the canary, and once
through the workers, where the locked-up child does too.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer_tars import (
    BLOCK,
    END,
    base256,
    directory,
    file,
    gnu_sparse,
    hard_link,
    head,
    long_name,
    octal,
    pad,
    pax,
    symlink,
)
from sampan.layers.apply import LayerError, apply
from sampan.layers.tarstream import TarStream
from sampan.layers.workers import LayerWorkers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking as root needs root")

OUTSIDE = b"@OUTSIDE@"  # replaced, same length or not, by the canary's directory
X = (b"mtime", b"1.5")
# The sum that old systems with signed characters wrote for five bytes of 0xff.
SIGNED = b"%06o\0 " % (sum(file(b"\xff" * 5, checksum=b" " * 8)[:BLOCK]) - 5 * 256)


def long_path(count: int) -> bytes:
    return b"/".join([b"d"] * count)


def sparse_1_0(text: bytes, data: bytes, real: bytes = b"100", name: bytes = b"s") -> bytes:
    body = pad(text) + data
    return pax(
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", real),
    ) + file(b"GNUSparseFile.0/s", body)


REFUSED: dict[str, bytes] = {
    # names
    "dotdot file": file(b"../canary/file", b"pwned"),
    "dotdot deep": file(b"a/b/../../../canary/file", b"pwned"),
    "dotdot only": directory(b".."),
    "dotdot slash": directory(b"../"),
    "dotdot directory": directory(b"../canary", 0o777),
    "dotdot last": directory(b"a/.."),
    "dotdot sibling": file(b"../dest-evil/file", b"pwned"),
    "dotdot absolute": file(b"/../canary/file", b"pwned"),
    "dotdot symlink": symlink(b"../canary/new", b"x"),
    "dotdot hard link name": file(b"a") + hard_link(b"../canary/new", b"a"),
    "dotdot pax path": pax((b"path", b"../canary/file")) + file(b"innocent", b"pwned"),
    "dotdot gnu name": long_name(b"../canary/file") + file(b"innocent", b"pwned"),
    "dotdot prefix": file(b"file", b"pwned", rest=b"../canary"),
    "dotdot whiteout": file(b"../canary/.wh.file", b""),
    "dotdot opaque": file(b"../canary/.wh..wh..opq", b""),
    "empty name": file(b""),
    "nul in pax path": pax((b"path", b"a\0b")) + file(b"x"),
    "nul in gnu name": long_name(b"a\0b") + file(b"x"),
    "nul in pax linkpath": pax((b"linkpath", b"a\0b")) + symlink(b"x", b"y"),
    "empty gnu name": long_name(b"") + file(b"x"),
    "component too long": pax((b"path", b"n" * 256)) + file(b"x"),
    "parent too long": pax((b"path", b"n" * 256 + b"/x")) + file(b"x"),
    "name too long": pax((b"path", b"/".join([b"n" * 200] * 30))) + file(b"x"),
    "too deep": pax((b"path", long_path(514))) + file(b"x"),
    "too deep directory": pax((b"path", long_path(514) + b"/")) + directory(b"x"),
    "file with a slash": file(b"name/"),
    # links
    "link target empty": symlink(b"l", b""),
    "link target too long": pax((b"linkpath", b"t" * 4097)) + symlink(b"l", b"x"),
    "hard link outside": hard_link(b"h", b"../canary/file"),
    "hard link absolute": hard_link(b"h", OUTSIDE + b"/file"),
    "hard link through link": symlink(b"l", OUTSIDE) + hard_link(b"h", b"l/file"),
    "hard link through relative link": symlink(b"l", b"../canary") + hard_link(b"h", b"l/file"),
    "hard link to nothing": hard_link(b"h", b"nothing"),
    "hard link to directory": directory(b"d") + hard_link(b"h", b"d"),
    "hard link to root": hard_link(b"h", b"/"),
    "hard link to dotdot": hard_link(b"h", b".."),
    "hard link empty": hard_link(b"h", b""),
    "hard link over its source": file(b"d/f") + hard_link(b"d", b"d/f"),
    "hard link below a file": file(b"f") + hard_link(b"h", b"f/x"),
    "link loop": symlink(b"a", b"b") + symlink(b"b", b"a") + file(b"a/x"),
    "link to itself": symlink(b"a", b"a") + file(b"a/x"),
    "link chain too long": b"".join(symlink(b"l%d" % i, b"l%d" % (i + 1)) for i in range(60))
    + directory(b"l60")
    + file(b"l0/x"),
    "parent is a file": file(b"f") + file(b"f/x"),
    "parent is a device": head(b"n", kind=b"3", major=1, minor=3) + file(b"n/x"),
    "parent is a fifo": head(b"p", kind=b"6") + file(b"p/x"),
    "parent link to a file": file(b"f") + symlink(b"l", b"f") + file(b"l/x"),
    # the root
    "root as symlink": symlink(b".", OUTSIDE),
    "root as symlink slash": symlink(b"./", OUTSIDE),
    "root as slash link": symlink(b"/", OUTSIDE),
    "root as file": file(b"."),
    "root as hard link": file(b"a") + hard_link(b"./.", b"a"),
    "root as fifo": head(b"/", kind=b"6"),
    # whiteouts
    "whiteout of nothing": file(b".wh.", b""),
    "whiteout of nothing below": file(b"victim/.wh.", b""),
    "whiteout of dot": file(b".wh..", b""),
    "whiteout of dotdot": file(b".wh...", b""),
    "whiteout of dotdot below": file(b"a/.wh...", b""),
    "whiteout as directory": directory(b".wh.x"),
    "whiteout as symlink": symlink(b".wh.x", OUTSIDE),
    "whiteout as parent": file(b".wh.x/y"),
    "opaque as symlink": symlink(b"d/.wh..wh..opq", OUTSIDE),
    "opaque as directory": directory(b"d/.wh..wh..opq"),
    # numbers
    "negative size": file(b"f", b"", size=base256(-512, 12)),
    "negative size octal": file(b"f", b"", size=b"-0000001000\0"),
    "huge size": file(b"f", b"", size=base256(1 << 62, 12)),
    "size beyond 63 bits": file(b"f", b"", size=base256(1 << 80, 12)),
    "size underscore": file(b"f", b"12345678", size=b"00000000_10\0"),
    "size plus": file(b"f", b"12345678", size=b"+0000000010\0"),
    "size prefix": file(b"f", b"12345678", size=b"0o000000010\0"),
    "size split": file(b"f", b"12345678", size=b"00000 00010\0"),
    "size letters": file(b"f", b"", size=b"lots"),
    "size digit 8": file(b"f", b"12345678", size=b"00000000008\0"),
    "negative uid": file(b"f", uid=base256(-1, 8)),
    "uid minus one": file(b"f", uid=base256(0xFFFFFFFF, 8)),
    "uid too large": file(b"f", uid=base256(1 << 40, 8)),
    "gid minus one": file(b"f", gid=base256(0xFFFFFFFF, 8)),
    "mode garbage": file(b"f", mode=b"rwxr-xr-"),
    "device major huge": head(b"n", kind=b"3", major=base256(1 << 40, 8), minor=1),
    "device minor negative": head(b"n", kind=b"4", major=1, minor=base256(-3, 8)),
    "bad checksum": file(b"f", checksum=b"000000\0 "),
    "checksum letters": file(b"f", checksum=b"abcdef\0 "),
    # format
    "unknown magic": file(b"f", magic=b"cpio!!\0\0"),
    "unknown type": head(b"f", kind=b"Z"),
    "volume header": head(b"f", kind=b"V"),
    "multi volume": head(b"f", kind=b"M"),
    "dump directory": head(b"f", kind=b"D"),
    "solaris header": file(b"f", kind=b"X"),
    "type nul dir with data": file(b"d/", b"x" * 512, kind=b"\0"),
    "directory with data": file(b"d/", b"x" * 512, kind=b"5"),
    "symlink with data": file(b"l", b"x" * 512, kind=b"2", link=b"t"),
    "hard link with data": file(b"a") + file(b"l", b"x" * 512, kind=b"1", link=b"a"),
    "fifo with data": file(b"p", b"x" * 512, kind=b"6"),
    "device with data": file(b"p", b"x" * 512, kind=b"3"),
    "device size hides entry": head(b"p", kind=b"3", size=512) + file(b"hidden"),
    "entry after end": file(b"a") + END + file(b"../canary/file", b"pwned"),
    "benign entry after end": file(b"a") + END + file(b"b"),
    "entry after one zero block": file(b"a") + bytes(BLOCK) + file(b"b"),
    "garbage after end": file(b"a") + END + b"garbage",
    "garbage far after end": file(b"a") + END + bytes(1 << 21) + b"\1",
    "random": bytes(range(256)) * 8,
    # pax
    "pax duplicate key": pax((b"path", b"a"), (b"path", b"b")) + file(b"x"),
    "pax duplicate size": pax((b"size", b"5"), (b"size", b"0")) + file(b"x"),
    "pax duplicate xattr": pax((b"SCHILY.xattr.user.a", b"1"), (b"SCHILY.xattr.user.a", b"2"))
    + file(b"x"),
    "pax length zero": pax(b"0 path=a\n") + file(b"x"),
    "pax length short": pax(b"5 path=abc\n") + file(b"x"),
    "pax length long": pax(b"99 path=abc\n") + file(b"x"),
    "pax length leading zero": pax(b"010 path=a\n") + file(b"x"),
    "pax length sign": pax(b"+9 path=a\n") + file(b"x"),
    "pax length huge": pax(b"99999999999999999999 path=a\n") + file(b"x"),
    "pax length not ascii": pax("\u0661\u0660 path=a\n".encode()) + file(b"x"),
    "pax length missing": pax(b" path=a\n") + file(b"x"),
    "pax no newline": pax(b"9 path=abc") + file(b"x"),
    "pax no equals": pax(b"9 pathab\n\n") + file(b"x"),
    "pax no key": pax(b"7 =abc\n\n") + file(b"x"),
    "pax garbage after": pax((b"path", b"a"), b"\0\0\0") + file(b"x"),
    "pax nul in key": pax((b"pa\0th", b"a")) + file(b"x"),
    "pax size negative": pax((b"size", b"-1")) + file(b"x"),
    "pax size underscore": pax((b"size", b"1_0")) + file(b"x", b"0123456789"),
    "pax size hex": pax((b"size", b"0x5")) + file(b"x"),
    "pax size space": pax((b"size", b" 5")) + file(b"x"),
    "pax size huge": pax((b"size", b"9" * 30)) + file(b"x"),
    "pax size too small": pax((b"size", b"0")) + file(b"x", b"hidden or not"),
    "pax size on a directory": pax((b"size", b"512")) + directory(b"x") + bytes(512),
    "pax uid minus one": pax((b"uid", b"4294967295")) + file(b"x"),
    "pax uid negative": pax((b"uid", b"-1")) + file(b"x"),
    "pax gid text": pax((b"gid", b"root")) + file(b"x"),
    "pax time text": pax((b"mtime", b"yesterday")) + file(b"x"),
    "pax time exponent": pax((b"mtime", b"1e9")) + file(b"x"),
    "pax time nan": pax((b"mtime", b"nan")) + file(b"x"),
    "pax time two points": pax((b"atime", b"1.2.3")) + file(b"x"),
    "pax without entry": pax(X),
    "pax before end": pax(X) + END,
    "pax twice": pax(X) + pax(X) + file(b"x"),
    "pax too large": head(b"p", kind=b"x", size=(1 << 20) + 1) + bytes((1 << 20) + BLOCK),
    "pax and gnu name": pax((b"path", b"a")) + long_name(b"b") + file(b"c"),
    "gnu name and pax": long_name(b"b") + pax((b"path", b"a")) + file(b"c"),
    "pax and gnu link": pax((b"linkpath", b"a")) + long_name(b"b", b"K") + symlink(b"c", b"d"),
    "gnu name twice": long_name(b"a") + long_name(b"b") + file(b"c"),
    "gnu link twice": long_name(b"a", b"K") + long_name(b"b", b"K") + symlink(b"c", b"d"),
    "gnu name without entry": long_name(b"a"),
    "gnu name too large": head(b"L", kind=b"L", size=1 << 20) + bytes(1 << 20) + file(b"x"),
    "gnu name cut": head(b"L", kind=b"L", size=600) + b"n" * BLOCK,
    "global path": pax((b"path", b"a"), kind=b"g") + file(b"x"),
    "global size": pax((b"size", b"0"), kind=b"g") + file(b"x"),
    "global uid": pax((b"uid", b"0"), kind=b"g") + file(b"x"),
    "global between": pax(X) + pax((b"comment", b"a"), kind=b"g") + file(b"x"),
    # attributes
    "xattr without namespace": pax((b"SCHILY.xattr.nothing", b"1")) + file(b"x"),
    "xattr empty name": pax((b"SCHILY.xattr.", b"1")) + file(b"x"),
    "xattr name is a dot": pax((b"SCHILY.xattr..", b"1")) + file(b"x"),
    "xattr name ends": pax((b"SCHILY.xattr.user.", b"1")) + file(b"x"),
    "xattr name too long": pax((b"SCHILY.xattr.user." + b"n" * 255, b"1")) + file(b"x"),
    "xattr value too large": pax((b"SCHILY.xattr.user.a", b"v" * 65537)) + file(b"x"),
    "capability garbage": pax((b"SCHILY.xattr.security.capability", b"\xff\xff")) + file(b"x"),
    "acl garbage": pax((b"SCHILY.xattr.system.posix_acl_access", b"\xff\xff")) + file(b"x"),
    # sparse
    "sparse in ustar": head(b"s", kind=b"S"),
    "old sparse overlap": gnu_sparse(b"s", [(0, 512), (256, 512)], b"x" * 1024, 4096),
    "old sparse descending": gnu_sparse(b"s", [(1024, 512), (0, 512)], b"x" * 1024, 4096),
    "old sparse beyond": gnu_sparse(b"s", [(4000, 512)], b"x" * 512, 4096),
    "old sparse sum": gnu_sparse(b"s", [(0, 512)], b"x" * 1024, 4096),
    "old sparse huge": head(
        b"s",
        kind=b"S",
        size=0,
        magic=b"ustar  \0",
        rest=bytes(138) + base256(1 << 60, 12),
    ),
    "old sparse negative": head(
        b"s", kind=b"S", magic=b"ustar  \0", rest=bytes(138) + base256(-1, 12)
    ),
    "old sparse without extension": head(
        b"s",
        kind=b"S",
        size=5,
        magic=b"ustar  \0",
        rest=bytes(41) + (octal(0, 12) + octal(5, 12)).ljust(96, b"\0") + b"\1" + octal(5, 12),
    ),
    "pax sparse odd": pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,5,6")) + file(b"s"),
    "pax sparse no size": pax((b"GNU.sparse.map", b"0,5")) + file(b"s"),
    "pax sparse count": pax(
        (b"GNU.sparse.size", b"9"),
        (b"GNU.sparse.numblocks", b"3"),
        (b"GNU.sparse.map", b"0,5"),
    )
    + file(b"s"),
    "pax sparse pairs cut": pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.offset", b"0"))
    + file(b"s"),
    "pax sparse pairs swapped": pax(
        (b"GNU.sparse.size", b"9"), (b"GNU.sparse.numbytes", b"5"), (b"GNU.sparse.offset", b"0")
    )
    + file(b"s"),
    "pax sparse mixed": pax(
        (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.map", b"0,5")
    )
    + file(b"s"),
    "pax sparse unknown": pax((b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0"))
    + file(b"s"),
    "pax sparse on a link": pax((b"GNU.sparse.size", b"9")) + symlink(b"s", b"t"),
    "pax sparse name escapes": sparse_1_0(b"1\n0\n5\n", b"12345", name=b"../canary/file"),
    "pax sparse map open": sparse_1_0(b"9", b""),
    "pax sparse map text": sparse_1_0(b"one\n0\n5\n", b"12345"),
    "pax sparse map long": sparse_1_0(b"1" * 30 + b"\n", b""),
    "pax sparse map many": sparse_1_0(b"99999999\n", b""),
    "pax sparse map beyond": sparse_1_0(b"1\n99\n5\n", b"12345"),
    # ends
    "cut in a header": file(b"a")[:100],
    "cut in data": file(b"a", b"x" * 2000)[:1000],
    "cut in padding": file(b"a", b"x" * 100)[:700],
    "no end marker": file(b"a"),
}

ACCEPTED: dict[str, bytes] = {
    "nothing": END,
    "one zero block": bytes(BLOCK),
    "absolute name": file(OUTSIDE + b"/file", b"pwned"),
    "many slashes": file(b"///a////b", b"x"),
    "dots in names": file(b"./a/./b") + file(b"..a") + file(b"a..") + file(b"..."),
    "absolute link as parent": symlink(b"l", OUTSIDE) + file(b"l/file", b"pwned"),
    "relative link as parent": symlink(b"l", b"../../canary") + file(b"l/file", b"pwned"),
    "link to the root's parent": symlink(b"l", b"..") + file(b"l/dest-evil/file", b"pwned"),
    "link chain": symlink(b"a", b"b") + symlink(b"b", OUTSIDE) + file(b"a/file", b"pwned"),
    "link then directory": symlink(b"l", OUTSIDE) + directory(b"l", 0o777) + file(b"l/file"),
    "link then file": symlink(b"l", OUTSIDE + b"/file") + file(b"l", b"pwned"),
    "link then link": symlink(b"l", OUTSIDE) + symlink(b"l", b"x"),
    "link then fifo": symlink(b"l", OUTSIDE + b"/file") + head(b"l", kind=b"6"),
    "link then chmod": symlink(b"l", OUTSIDE + b"/file")
    + hard_link(b"h", b"l", mode=0o777)
    + hard_link(b"h", b"l", mode=0o4777),
    "hard link to symlink then write": symlink(b"l", OUTSIDE + b"/file")
    + hard_link(b"h", b"l")
    + file(b"h", b"pwned"),
    "hard link to symlink then chmod": symlink(b"l", OUTSIDE + b"/file")
    + hard_link(b"h", b"l")
    + directory(b"h", 0o777),
    "hard link absolute inside": file(b"a/b") + hard_link(b"c", b"/a/b"),
    "hard link through inner link": directory(b"u")
    + file(b"u/f")
    + symlink(b"l", b"/u")
    + hard_link(b"h", b"l/f"),
    "hard link to itself": file(b"a") + hard_link(b"a", b"a"),
    "hard link over a file": file(b"a") + file(b"b") + hard_link(b"b", b"a"),
    "hard link to a fifo": head(b"p", kind=b"6") + hard_link(b"q", b"p"),
    "directory swapped for a link": directory(b"d")
    + file(b"d/file")
    + symlink(b"d", OUTSIDE)
    + file(b"d/file", b"pwned"),
    "cached parent swapped": directory(b"d/e/f")
    + file(b"d/e/f/x")
    + symlink(b"d", OUTSIDE)
    + file(b"d/e/f/x", b"pwned"),
    "link on the way swapped": directory(b"real")
    + symlink(b"l", b"real")
    + file(b"l/file")
    + symlink(b"l", OUTSIDE)
    + file(b"l/file", b"pwned"),
    "directory times of a link": directory(b"d", mtime=1) + symlink(b"d", OUTSIDE),
    "directory below a link swapped": directory(b"d/sub", 0o777) + symlink(b"d", OUTSIDE),
    "root entry": directory(b"./", 0o700, uid=12, gid=34, mtime=99),
    "usr merge": directory(b"usr/lib") + symlink(b"lib", b"usr/lib") + file(b"lib/x"),
    "link to dot": symlink(b"l", b".") + file(b"l/l/l/x"),
    "dangling parent link": symlink(b"l", b"made/here") + file(b"l/x"),
    "file over a full directory": directory(b"d")
    + b"".join(file(b"d/%d/f" % i) for i in range(20))
    + file(b"d", b"x"),
    "flips": b"".join(
        directory(b"n") + file(b"n/x") + file(b"n", b"f") + symlink(b"n", OUTSIDE)
        for _ in range(20)
    ),
    "deep": pax((b"path", long_path(500))) + file(b"x"),
    "deep then file": pax((b"path", long_path(512))) + file(b"x") + file(b"d", b"gone"),
    "long component": pax((b"path", b"n" * 255)) + file(b"x"),
    "long ustar prefix": file(b"n" * 100, rest=b"p" * 155),
    "full header name": file(b"n" * 100),
    "gnu long name": long_name(b"n" * 200 + b"/" + b"m" * 200) + file(b"x"),
    "gnu long link": long_name(b"t" * 300, b"K") + symlink(b"l", b"x"),
    "gnu long both": long_name(b"t" * 300, b"K") + long_name(b"n" * 200) + symlink(b"l", b"x"),
    "name that is no utf-8": file(b"\xff\xfe\x80") + symlink(b"\xe9", b"\xe8"),
    "name with a newline": file(b"a\nb\x1b[2J"),
    "old format": file(b"f", magic=b""),
    "old format directory": head(b"d/", kind=b"\0", magic=b""),
    "old regular type": file(b"f", kind=b"\0"),
    "contiguous": file(b"f", kind=b"7"),
    "star prefix": file(b"f", rest=b"p".ljust(163, b"\0") + b"tar\0"),
    "signed checksum": file(b"\xff" * 5, checksum=SIGNED),
    "garbage after a name's nul": file(b"f\0../canary/file", b"x"),
    "base 256 size": file(b"f", b"12345", size=base256(5, 12)),
    "base 256 ids": file(b"f", uid=base256(3_000_000, 8), gid=base256(4_000_000, 8)),
    "base 256 negative time": file(b"f", mtime=base256(-5, 12)),
    "base 256 absurd time": file(b"f", mtime=base256(1 << 62, 12)),
    "octal with spaces": file(b"f", b"12345", size=b"          5 "),
    "octal without an end": file(b"f", b"12345", size=b"000000000005"),
    "pax everything": pax(
        (b"path", b"new/name"),
        (b"size", b"5"),
        (b"uid", b"1000"),
        (b"gid", b"1000"),
        (b"mtime", b"1500000000.123456789"),
        (b"atime", b"1400000000.5"),
        (b"uname", b"someone"),
        (b"comment", b"hello"),
    )
    + file(b"x", b"12345", size=0),
    "pax size larger than the header's": pax((b"size", b"600")) + head(b"f") + pad(b"y" * 600),
    "pax empty value": pax((b"path", b"")) + file(b"x"),
    "pax time negative": pax((b"mtime", b"-1.5")) + file(b"x"),
    "pax time absurd": pax((b"mtime", b"9" * 40)) + file(b"x"),
    "pax size before a gnu name": pax((b"size", b"5"))
    + long_name(b"long")
    + file(b"x", b"12345", size=0),
    "global comment": pax((b"comment", b"commit id"), kind=b"g") + file(b"x"),
    "setuid": file(b"f", mode=0o6755, uid=1, gid=2),
    "sticky directory": directory(b"t", 0o1777),
    "set group id directory": directory(b"t", 0o2775, gid=77) + file(b"t/f") + directory(b"t/d"),
    "unreadable directory": directory(b"t", 0) + file(b"t/f"),
    "devices": head(b"null", kind=b"3", major=1, minor=3, mode=0o666)
    + head(b"sda", kind=b"4", major=8, minor=0)
    + head(b"zero", kind=b"3"),
    "fifo": head(b"p", kind=b"6", mode=0o600, uid=5),
    "file over a fifo": head(b"p", kind=b"6") + file(b"p", b"not blocked"),
    "file over a device": head(b"p", kind=b"3", major=1, minor=3) + file(b"p", b"x"),
    "capability": pax(
        (b"SCHILY.xattr.security.capability", bytes.fromhex("0100000200200000") + bytes(12))
    )
    + file(b"ping"),
    "user attribute": pax((b"SCHILY.xattr.user.a", b"\0\1\2")) + file(b"x"),
    "attribute of a directory": pax((b"SCHILY.xattr.user.a", b"v")) + directory(b"x"),
    "attribute of a link": pax((b"SCHILY.xattr.user.a", b"v")) + symlink(b"x", b"y"),
    "overlay attributes": pax(
        (b"SCHILY.xattr.trusted.overlay.redirect", OUTSIDE),
        (b"SCHILY.xattr.user.overlay.redirect", OUTSIDE),
        (b"SCHILY.xattr.trusted.overlay.metacopy", b"\0"),
    )
    + directory(b"x"),
    "selinux label": pax((b"SCHILY.xattr.security.selinux", b"system_u:object_r:x")) + file(b"x"),
    "other attribute dialect": pax((b"LIBARCHIVE.xattr.user.a", b"AA\0A")) + file(b"x"),
    "whiteout": file(b"d/.wh.gone", b""),
    "whiteout with data": file(b"d/.wh.gone", b"x" * 600) + file(b"next"),
    "whiteout then file": file(b".wh.x", b"") + file(b"x"),
    "whiteout then directory": file(b".wh.x", b"") + directory(b"x") + file(b"x/y"),
    "whiteout then parent": file(b".wh.x", b"") + file(b"x/y"),
    "file then whiteout": file(b"x") + file(b".wh.x", b""),
    "directory then whiteout": file(b"x/y") + file(b".wh.x", b""),
    "link then whiteout below": symlink(b"l", OUTSIDE) + file(b"l/.wh.file", b""),
    "whiteout twice": file(b".wh.x", b"") * 2,
    "opaque": directory(b"d") + file(b"d/.wh..wh..opq", b""),
    "opaque often": directory(b"d") + file(b"d/.wh..wh..opq", b"") * 3000,
    "opaque root": file(b".wh..wh..opq", b""),
    "opaque through a link": symlink(b"l", OUTSIDE) + file(b"l/.wh..wh..opq", b""),
    "aufs files": file(b".wh..wh.aufs", b"") + directory(b".wh..wh.plnk") + file(b".wh..wh.plnk/1"),
    "whiteout as a hard link": hard_link(b".wh.x", b".wh..wh.aufs"),
    "old sparse": gnu_sparse(b"s", [(0, 512), (1024, 88)], b"x" * 600, 5000),
    "old sparse empty": gnu_sparse(b"s", [], b"", 1 << 32),
    "old sparse extended": gnu_sparse(
        b"s",
        [(i * 1024, 512) for i in range(4)],
        b"x" * 512 * 6,
        1 << 20,
        more=(b"".join(octal(i * 1024, 12) + octal(512, 12) for i in (4, 5))).ljust(512, b"\0"),
    ),
    "pax sparse 0.0": pax(
        (b"GNU.sparse.size", b"2000"),
        (b"GNU.sparse.numblocks", b"2"),
        (b"GNU.sparse.offset", b"0"),
        (b"GNU.sparse.numbytes", b"5"),
        (b"GNU.sparse.offset", b"1000"),
        (b"GNU.sparse.numbytes", b"5"),
    )
    + file(b"s", b"1234567890"),
    "pax sparse 0.1": pax(
        (b"GNU.sparse.size", b"2000"),
        (b"GNU.sparse.name", b"real"),
        (b"GNU.sparse.map", b"0,5,1000,5"),
    )
    + file(b"GNUSparseFile.0/s", b"1234567890"),
    "pax sparse 1.0": sparse_1_0(b"2\n0\n5\n90\n5\n", b"1234567890"),
    "zeros after the end": file(b"a") + END + bytes(100_000),
    "same file often": file(b"a", b"1") * 50,
}
CASES = [(name, data, True) for name, data in REFUSED.items()]
CASES += [(name, data, False) for name, data in ACCEPTED.items()]


def look(root: Path, *, inodes: bool = True) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that an attack could change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content = b""
        if stat.S_ISREG(kind):
            content = path.read_bytes()
        elif stat.S_ISLNK(kind):
            content = os.readlink(os.fsencode(path))
        found[str(path.relative_to(root))] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_ino if inodes else 0,
            status.st_nlink if not stat.S_ISDIR(kind) or inodes else 0,
            status.st_rdev,
            status.st_mtime_ns,
            tuple(os.listxattr(path, follow_symlinks=False)) if inodes else (),
            content,
        )
    return found


class Scene:
    """A destination and, around it, what must not change."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.canary = base / "canary"
        self.evil = base / "dest-evil"
        self.destination = base / "dest"
        for directory_ in (self.canary, self.evil, self.canary / "d/e/f"):
            directory_.mkdir(parents=True)
        (self.canary / "file").write_text("canary")
        (self.canary / "setuid").write_text("canary")
        (self.canary / "setuid").chmod(0o4755)
        (self.canary / "d/e/f/x").write_text("canary")
        (self.evil / "file").write_text("canary")
        (self.canary / "link").symlink_to("file")
        os.mkfifo(self.canary / "fifo")
        self.destination.mkdir()
        self.before = (look(self.canary), look(self.evil), base.lstat().st_nlink)

    def unpack(self, data: bytes, *, end: bool = True) -> None:
        data = self.fill(data, end=end)
        blob = os.memfd_create("layer")
        os.write(blob, data)
        directory_ = os.open(self.destination, os.O_RDONLY | os.O_DIRECTORY)
        try:
            apply(blob, directory_)
        finally:
            os.close(blob)
            os.close(directory_)

    def fill(self, data: bytes, *, end: bool = True) -> bytes:
        """Put the canary's real path in, and the end marker behind."""
        return outside(data, os.fsencode(self.canary)) + (END if end else b"")

    def check(self) -> None:
        assert (look(self.canary), look(self.evil), self.base.lstat().st_nlink) == self.before
        assert sorted(os.listdir(self.base)) == ["canary", "dest", "dest-evil"]

    def remove(self) -> None:
        subprocess.run(["rm", "-rf", "--", self.base], check=True)


def outside(data: bytes, path: bytes) -> bytes:
    """Replace OUTSIDE in headers by `path`, with the checksums made right again."""
    blocks = []
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        if OUTSIDE in block:
            if block[257:262] == b"ustar":
                fixed = bytearray()
                for field in (block[:100], block[100:157], block[157:257], block[257:]):
                    fixed += field.replace(OUTSIDE, path).rstrip(b"\0").ljust(len(field), b"\0")
                assert len(fixed) == BLOCK, "the test's directory has too long a name"
                fixed[148:156] = b" " * 8
                fixed[148:156] = b"%06o\0 " % sum(fixed)
                block = bytes(fixed)
            else:
                block = block.replace(OUTSIDE, b"/" * len(OUTSIDE))
        blocks.append(block)
    return b"".join(blocks)


@pytest.fixture
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("l"))
    yield scene
    scene.remove()


NO_END = {"cut in a header", "cut in data", "cut in padding", "no end marker", "nothing"}
NO_END |= {
    "gnu name cut",
    "one zero block",
    "pax without entry",
    "gnu name without entry",
    "random",
}


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 150


@pytest.mark.parametrize(("name", "data", "refused"), CASES, ids=[name for name, _, _ in CASES])
def test_layer(scene: Scene, name: str, data: bytes, refused: bool) -> None:
    if refused:
        with pytest.raises(LayerError):
            scene.unpack(data, end=name not in NO_END)
    else:
        scene.unpack(data, end=name not in NO_END)
    scene.check()


def test_all_through_the_workers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same verdicts from the locked-up children: the filter takes away nothing needed."""

    async def one(workers: LayerWorkers, name: str, data: bytes, refused: bool) -> str | None:
        scene = Scene(tmp_path_factory.mktemp("w"))
        blob = os.memfd_create("layer")
        os.write(blob, scene.fill(data, end=name not in NO_END))
        directory_ = os.open(scene.destination, os.O_RDONLY | os.O_DIRECTORY)
        try:
            await workers.apply(blob, "application/x-tar", directory_, None)
            verdict = False
        except LayerError:
            verdict = True
        finally:
            os.close(blob)
            os.close(directory_)
        scene.check()
        scene.remove()
        return None if verdict == refused else name

    async def every() -> list[str | None]:
        workers = LayerWorkers(1)
        try:
            return [await one(workers, *case) for case in CASES]
        finally:
            await workers.aclose()

    assert [name for name in asyncio.run(every()) if name] == []


FLIPS = {
    "directory": directory(b"n", 0o711) + file(b"n/inner"),
    "file": file(b"n", b"f"),
    "symlink": symlink(b"n", OUTSIDE),
    "relative symlink": symlink(b"n", b"../canary"),
    "fifo": head(b"n", kind=b"6"),
    "device": head(b"n", kind=b"3", major=1, minor=3),
    "whiteout": file(b".wh.n", b""),
}


@pytest.mark.parametrize("second", FLIPS)
@pytest.mark.parametrize("first", FLIPS)
def test_type_flips_between_layers(scene: Scene, first: str, second: str) -> None:
    """Two layers into one directory, then a file below the name: links of an earlier layer are
    resolved inside, too."""
    scene.unpack(FLIPS[first])
    scene.unpack(FLIPS[second])
    try:
        scene.unpack(file(b"n/file", b"pwned") + directory(b"n/d/e", 0o777))
    except LayerError:
        assert second in ("file", "fifo", "device") or first in ("file", "fifo", "device")
    scene.check()


def _tree(root: Path) -> None:
    """A benign tree with something of everything."""
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/file").write_bytes(os.urandom(3000))
    (root / "a/empty").touch()
    (root / "big").write_bytes(b"x" * 3_000_000)
    (root / "a/link").symlink_to("b/c/file")
    (root / "absolute").symlink_to("/etc/passwd")
    os.link(root / "a/b/c/file", root / "a/hard")
    os.link(root / "a/hard", root / "another")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (root / "setuid").write_text("x")
    (root / "setuid").chmod(0o4711)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "group").mkdir()
    (root / "group/file").write_text("y")
    os.chown(root / "group", 10, 20)
    (root / "group").chmod(0o2750)
    os.chown(root / "a/b", 1000, 1001)
    os.chown(root / "a/link", 5, 6, follow_symlinks=False)
    with (root / "sparse").open("wb") as out:
        out.seek(1 << 20)
        out.write(b"end of hole")
        out.truncate(3 << 20)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18, 10**18 + number * 10**9), follow_symlinks=False)


@pytest.mark.parametrize(
    "options",
    [
        ("--format=gnu",),
        ("--format=gnu", "--sparse"),
        ("--format=oldgnu",),
        ("--format=ustar",),
        ("--format=posix",),
        ("--format=posix", "--sparse"),
        ("--format=posix", "--sparse", "--sparse-version=0.0"),
        ("--format=posix", "--sparse", "--sparse-version=0.1"),
        ("--format=posix", "--pax-option=delete=atime,delete=ctime"),
    ],
    ids=" ".join,
)
def test_same_as_gnu_tar(tmp_path: Path, options: tuple[str, ...]) -> None:
    source, theirs, ours = (tmp_path / name for name in ("source", "theirs", "ours"))
    for path in (source, theirs, ours):
        path.mkdir()
    _tree(source)
    if "ustar" not in options[0]:
        (source / ("n" * 120)).write_text("long name")
        (source / "long link").symlink_to("t" * 150)
        os.utime(source / "long link", ns=(10**18, 10**18), follow_symlinks=False)
        os.utime(source / ("n" * 120), ns=(10**18, 10**18))
    os.utime(source, ns=(10**18, 10**18))
    archive = tmp_path / "archive.tar"
    subprocess.run(["tar", "-C", source, *options, "-cf", archive, "."], check=True)
    subprocess.run(["tar", "-C", theirs, "--numeric-owner", "-xpf", archive], check=True)
    with archive.open("rb") as blob:
        directory_ = os.open(ours, os.O_RDONLY | os.O_DIRECTORY)
        apply(blob.fileno(), directory_)
        os.close(directory_)
    assert look(ours, inodes=False) == look(theirs, inodes=False)
    if "--sparse" in options:
        assert (ours / "sparse").stat().st_blocks < 1 << 10


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="needs bsdtar")
@pytest.mark.parametrize("form", ["pax", "ustar", "gnutar"])
def test_what_bsdtar_made_is_the_same_as_gnu_tar_has_it(tmp_path: Path, form: str) -> None:
    (tmp_path / "source").mkdir()
    _tree(tmp_path / "source")
    archive = tmp_path / "archive.tar"
    options = ["--format", form, "--no-fflags", "-C", tmp_path / "source"]
    subprocess.run(["bsdtar", *options, "-cf", archive, "."], check=True)
    compare(tmp_path, archive)


@pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci, whose writer is Go's")
def test_what_go_made_is_the_same_as_gnu_tar_has_it(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    _tree(tmp_path / "source")
    (tmp_path / "source" / ("n" * 120)).write_text("long name")
    (tmp_path / "source/\xff not latin").write_text("x")
    layout = tmp_path / "layout"
    for words in (
        ["init", "--layout", layout],
        ["new", "--image", f"{layout}:1"],
        ["insert", "--image", f"{layout}:1", tmp_path / "source", "/"],
    ):
        subprocess.run(["umoci", *words], check=True, capture_output=True)
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    [layer] = json.loads(blob_of(layout, entry["digest"]))["layers"]
    archive = tmp_path / "archive.tar"
    # umoci leaves the end marker out of what it inserts, which GNU tar does not forgive.
    archive.write_bytes(gzip.decompress(blob_of(layout, layer["digest"])) + END)
    compare(tmp_path, archive)


def blob_of(layout: Path, digest: str) -> bytes:
    return (layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


def compare(base: Path, archive: Path) -> None:
    """The tree that we make of an archive, and GNU tar's."""
    theirs, ours = base / "theirs", base / "ours"
    theirs.mkdir()
    ours.mkdir()
    subprocess.run(["tar", "-C", theirs, "--numeric-owner", "-xpf", archive], check=True)
    with archive.open("rb") as blob:
        directory_ = os.open(ours, os.O_RDONLY | os.O_DIRECTORY)
        apply(blob.fileno(), directory_)
        os.close(directory_)
    found, expected = look(ours, inodes=False), look(theirs, inodes=False)
    assert len(found) > 15
    assert whole_seconds(found) == whole_seconds(expected)


def whole_seconds(tree: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Not every format has parts of seconds. GNU tar gives a directory its time too early where its
    entries do not follow it, as bsdtar has them."""
    return {
        path: (*facts[:6], 0 if is_directory(facts) else int(str(facts[6])) // 10**9, *facts[7:])
        for path, facts in tree.items()
    }


def is_directory(facts: tuple[object, ...]) -> bool:
    return stat.S_ISDIR(int(str(facts[0])))


SEED = b"".join(
    [
        directory(b"d"),
        file(b"d/f", b"hello"),
        pax((b"path", b"d/long"), (b"size", b"5"), (b"SCHILY.xattr.user.a", b"b")),
        file(b"x", b"12345"),
        long_name(b"n" * 150),
        file(b"x"),
        symlink(b"l", b"../canary"),
        file(b"l/f", b"pwned"),
        hard_link(b"h", b"d/f"),
        file(b".wh.gone", b""),
        gnu_sparse(b"s", [(0, 512), (1024, 88)], b"x" * 600, 5000),
        END,
    ]
)


def repaired(data: bytearray, blocks: set[int]) -> bytes:
    """Right checksums for the blocks that were changed, so that the parser looks further."""
    for block in blocks:
        start = block * BLOCK
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + BLOCK])
    return bytes(data)


@settings(
    max_examples=250,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, len(SEED) - 3),
            st.sampled_from([b"\0", b"/", b".", b"..", b"7", b"9", b"\x80", b"\xff", b" ", b"L"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_damaged_layers(tmp_path_factory: pytest.TempPathFactory, changes: list) -> None:
    data = bytearray(SEED)
    touched = set()
    for position, value in changes:
        data[position : position + len(value)] = value
        touched.add(position // BLOCK)
    scene = Scene(tmp_path_factory.mktemp("f"))
    try:
        scene.unpack(repaired(data, touched), end=False)
    except LayerError:
        pass
    scene.check()
    scene.remove()


# What others see in the same bytes


def names_of(data: bytes) -> list[bytes]:
    """The entries as our parser has them, in their order, spelled in one way."""
    view = [memoryview(data), memoryview(b"")]
    stream = TarStream(lambda: view.pop(0) if view else memoryview(b""))
    found = []
    while (entry := stream.next()) is not None:
        found.append(plain(entry.name))
    return found


def plain(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


LISTERS = {
    "tar": ["tar", "--quoting-style=literal", "-tPf", "-"],
    "bsdtar": ["bsdtar", "-tPf", "-"],
}


# POSIX and Go: an empty value takes the header's own back; GNU tar takes it as the name.
KNOWN = {"tar": {"pax empty value"}, "bsdtar": set()}


@pytest.mark.parametrize("program", LISTERS)
def test_other_readers_list_the_same_entries(program: str) -> None:
    """What we accept is the same list for everybody; a reader may refuse more than we do."""
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    compared, differing = 0, {}
    for name, data in ACCEPTED.items():
        ours = names_of(data)
        if not ours or any(not text.isascii() or b"\n" in text for text in ours):
            continue
        done = subprocess.run(
            LISTERS[program],
            input=data + END,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        )
        if done.returncode:
            continue
        compared += 1
        theirs = [plain(line) for line in done.stdout.split(b"\n")[:-1]]
        if theirs != ours:
            differing[name] = (ours, theirs)
    assert differing.keys() == KNOWN[program]
    assert compared > 60


@pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci, whose reader is Go's")
def test_go_unpacks_the_same_names(tmp_path: Path) -> None:
    compared, differing = 0, {}
    plain_cases = {
        name: data
        for name, data in ACCEPTED.items()
        if b".wh." not in data and OUTSIDE not in data and b"canary" not in data
    }
    assert len(plain_cases) > 50
    for number, (name, data) in enumerate(list(plain_cases.items())[::2]):
        place = tmp_path / str(number)
        place.mkdir()
        layout = make_layout(place / "layout", data + END)
        bundle = place / "bundle"
        done = subprocess.run(
            ["umoci", "unpack", "--image", f"{layout}:1", bundle], capture_output=True, check=False
        )
        if done.returncode:
            continue
        (place / "ours").mkdir()
        fd = os.open(place / "ours", os.O_RDONLY | os.O_DIRECTORY)
        blob = os.memfd_create("layer")
        os.write(blob, data + END)
        apply(blob, fd)
        os.close(fd)
        os.close(blob)
        compared += 1
        if listing(place / "ours") != listing(bundle / "rootfs"):
            differing[name] = listing(place / "ours") ^ listing(bundle / "rootfs")
    assert differing == {}
    assert compared > 15


def listing(root: Path) -> set[tuple[bytes, str]]:
    found = set()
    for place, folders, files in os.walk(os.fsencode(root)):
        for name in [*folders, *files]:
            path = os.path.join(place, name)
            kind = stat.filemode(os.lstat(path).st_mode)[0]
            found.add((os.path.relpath(path, os.fsencode(root)), kind))
    return found


def make_layout(path: Path, layer: bytes) -> Path:
    """An OCI layout of one image with one layer."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    oci = "application/vnd.oci.image."
    described = put(layer, oci + "layer.v1.tar")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [described["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci + "manifest.v1+json",
        "config": put(json.dumps(config).encode(), oci + "config.v1+json"),
        "layers": [described],
    }
    entry = put(json.dumps(manifest).encode(), oci + "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return path
