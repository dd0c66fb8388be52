"""Rotation of a log's files, and the compression of the older ones.

    name -> name.1 -> name.2 ...         and with compression    name -> name.1.gz -> name.2.gz ...

Files are compressed by a child of the shim, which nobody waits for: the container writes on
meanwhile. One child at a time does all that is there to do. The compressed file takes the place of
the one that it was made of wherever that one has been moved to by then, under a lock that a
rotation takes as well. Its header has the number of the inode that it was made of, so that a reader
in the middle of that one knows where it is. A child that is killed leaves plain files, and a
leftover that the next one writes over.
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
        if packed:  # the oldest, in whichever form, or one form of it would stay beside the next
            _unlink(directory, f"{name}.{max_file - 1}")
            _unlink(directory, f"{name}.{max_file - 1}{PACKED}")
        for number in range(max_file - 1, 0, -1):
            older = name if number == 1 else f"{name}.{number - 1}"
            _rename(directory, older, f"{name}.{number}")
            if packed and number > 1:
                _rename(directory, older + PACKED, f"{name}.{number}{PACKED}")
    finally:
        fcntl.flock(directory, fcntl.LOCK_UN)


def pack(directory: int, name: str, max_file: int) -> None:
    """Compress the older files in a child; returns at once. The child is for whoever reaps."""
    try:
        if os.fork() == 0:
            _pack_and_leave(directory, name, max_file)
    except OSError:
        pass  # no more processes: they stay as they are


def _pack_and_leave(directory: int, name: str, max_file: int) -> None:
    try:
        # The ends of clients' streams are not for us to hold open.
        os.closerange(0, directory)
        os.closerange(directory + 1, 1 << 20)
        os.nice(_NICE)
        # Opened anew: a lock belongs to an open file, and ours is the shim's too.
        directory = os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY)
        # Whoever finds another one at work leaves its file to that one, which looks once more
        # after it has let go of the lock.
        while (source := _plain(directory, name, max_file)) >= 0:
            _pack(directory, source, name, max_file)
            os.close(source)
    finally:
        os._exit(0)


def _plain(directory: int, name: str, max_file: int) -> int:
    """The newest of the older files that is not compressed, open; -1 without one."""
    for number in range(1, max_file):
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(f"{name}.{number}", flags, dir_fd=directory)
        except FileNotFoundError:
            pass
    return -1


def _pack(directory: int, source: int, name: str, max_file: int) -> None:
    """Compress one file. Raises BlockingIOError when another child is at work."""
    inode = os.fstat(source).st_ino
    leftover = f"{name}{LEFTOVER}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    target = os.open(leftover, flags, 0o640, dir_fd=directory)
    try:
        fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(target).st_ino != _inode(directory, leftover):
            return  # another one has put it in its place meanwhile
        os.ftruncate(target, 0)
        deflate(source, target, f"{name}.{inode}".encode())
        fcntl.flock(directory, fcntl.LOCK_EX)
        _put(directory, leftover, inode, name, max_file)
    finally:
        fcntl.flock(directory, fcntl.LOCK_UN)
        os.close(target)


def _put(directory: int, leftover: str, inode: int, name: str, max_file: int) -> None:
    """Let the compressed file take the place of the one with this inode, wherever that is now."""
    for number in range(1, max_file):
        if _inode(directory, f"{name}.{number}") == inode:
            packed = f"{name}.{number}{PACKED}"
            os.rename(leftover, packed, src_dir_fd=directory, dst_dir_fd=directory)
            os.unlink(f"{name}.{number}", dir_fd=directory)
            return
    os.unlink(leftover, dir_fd=directory)  # it was rotated away meanwhile


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
