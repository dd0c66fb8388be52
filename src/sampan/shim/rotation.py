"""Rotation of a log's files, and the compression of the older ones.

    name -> name.1 -> name.2 ...         and with compression    name -> name.1.gz -> name.2.gz ...

A file is compressed by a child of the shim, which nobody waits for: the container writes on
meanwhile. The compressed file takes the place of the one that it was made of wherever that one has
been moved to by then, under a lock that a rotation takes as well. Its header has the number of the
inode that it was made of, so that a reader in the middle of that one knows where it is. A child
that is killed leaves the plain file, and a leftover that the next one writes over.
"""

from __future__ import annotations

import fcntl
import os
import zlib

PACKED = ".gz"
LEFTOVER = ".packing"
_HEADER = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff"  # deflate, with a name; RFC 1952
_CHUNK = 256 * 1024
_LEVEL = 4
_NICE = 10


def rotate(directory: int, name: str, max_file: int, *, packed: bool) -> None:
    """Give every file of the log the next number; `name` is not there afterwards.

    Raises:
        OSError: something could not be renamed.
    """
    fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        if packed:
            _unlink(directory, f"{name}.{max_file - 1}{PACKED}")
        for number in range(max_file - 1, 0, -1):
            older = name if number == 1 else f"{name}.{number - 1}"
            _rename(directory, older, f"{name}.{number}")
            if packed and number > 1:
                _rename(directory, older + PACKED, f"{name}.{number}{PACKED}")
    finally:
        fcntl.flock(directory, fcntl.LOCK_UN)


def pack(directory: int, name: str, max_file: int) -> None:
    """Compress `name`.1 in a child; returns at once. The child is for whoever reaps."""
    try:
        source = os.open(f"{name}.1", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return
    try:
        if os.fork() == 0:
            _pack_and_leave(directory, source, name, max_file)
    except OSError:
        pass  # no more processes: it stays as it is
    finally:
        os.close(source)


def _pack_and_leave(directory: int, source: int, name: str, max_file: int) -> None:
    try:
        # The ends of clients' streams are not for us to hold open.
        first, last = sorted((directory, source))
        os.closerange(0, first)
        os.closerange(first + 1, last)
        os.closerange(last + 1, 1 << 20)
        os.nice(_NICE)
        inode = os.fstat(source).st_ino
        # Opened anew: a lock belongs to an open file, and ours is the shim's too.
        directory = os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY)
        leftover = f"{name}{LEFTOVER}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(leftover, flags, 0o640, dir_fd=directory)
        fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)  # else another one is at work
        if os.fstat(target).st_ino != _inode(directory, leftover):
            return  # and has put it in its place meanwhile
        os.ftruncate(target, 0)
        deflate(source, target, f"{name}.{inode}".encode())
        fcntl.flock(directory, fcntl.LOCK_EX)
        for number in range(1, max_file):
            if _inode(directory, f"{name}.{number}") == inode:
                packed = f"{name}.{number}{PACKED}"
                os.rename(leftover, packed, src_dir_fd=directory, dst_dir_fd=directory)
                os.unlink(f"{name}.{number}", dir_fd=directory)
                break
        else:
            os.unlink(leftover, dir_fd=directory)  # it was rotated away meanwhile
    finally:
        os._exit(0)


def deflate(source: int, target: int, name: bytes) -> None:
    """Write what is behind `source` to `target` as a gzip file with this name in its header."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = checksum = position = 0
    _write(target, _HEADER + name + b"\0")
    while data := os.pread(source, _CHUNK, position):
        position += len(data)
        size = (size + len(data)) & 0xFFFFFFFF
        checksum = zlib.crc32(data, checksum)
        _write(target, packer.compress(data))
    trailer = checksum.to_bytes(4, "little") + size.to_bytes(4, "little")
    _write(target, packer.flush() + trailer)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _unlink(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def _inode(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0


def _rename(directory: int, old: str, new: str) -> None:
    try:
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)
    except FileNotFoundError:
        pass
