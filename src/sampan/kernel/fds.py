"""Descriptors: passed over sockets, and memory files that can be sealed."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct

MAX_PASSED = 253  # SCM_MAX_FD of the kernel
_ORDINARY = 1 << 16
_FIONREAD = 0x541B

F_ADD_SEALS = 1033
F_GET_SEALS = 1034
# F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE of linux/fcntl.h
ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8


def send(sock: _socket.socket, data: bytes, fds: tuple[int, ...] | list[int] = ()) -> None:
    """Send one message with `fds`, which stay open here (SCM_RIGHTS, unix(7))."""
    # struct, not array: importing array brings the abstract collections into every start.
    packed = struct.pack(f"{len(fds)}i", *fds)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if fds else []
    sock.sendmsg([data], rights, _socket.MSG_NOSIGNAL)


def receive(sock: _socket.socket, size: int) -> tuple[bytes, list[int]]:
    """One message of at most `size` bytes, and the descriptors that came with it, close-on-exec.

    An empty message means that the peer is gone. Raises OSError (EMSGSIZE) when the message, or its
    descriptors, did not fit; whatever arrived is closed then.
    """
    if size > _ORDINARY:
        # A large buffer is a mapping of its own, and unmapping it waits for the other processors.
        size = min(size, _waiting(sock) or size)
    space = _socket.CMSG_SPACE(MAX_PASSED * 4)
    data, rights, flags, _ = sock.recvmsg(size, space, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, content in rights:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            count = len(content) // 4
            fds += struct.unpack(f"{count}i", content[: count * 4])
    if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        close_all(fds)
        raise OSError(errno.EMSGSIZE, "receive: message or descriptors larger than agreed")
    return data, fds


def _waiting(sock: _socket.socket) -> int:
    """Bytes of all messages that have come."""
    count: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), _FIONREAD, bytes(4)))[0]
    return count


def close_all(fds: list[int]) -> None:
    """Close each of `fds`."""
    for fd in fds:
        os.close(fd)


def memfd(name: str, content: bytes) -> int:
    """A memory file with `content`, close-on-exec; for those who trust each other."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, content)
    return fd


def sealed_memfd(name: str, content: bytes) -> int:
    """A memory file with `content` that nobody can change any more, offset 0, close-on-exec."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(fd, content, 0)
    fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
    return fd


def sealed_copy(path: str, name: str) -> int:
    """A sealed memory file with the content of the file `path`."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while os.sendfile(fd, source, None, 1 << 30):
            pass
    finally:
        os.close(source)
    fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
    return fd


def read_all(fd: int, limit: int) -> bytes:
    """The whole of a memory file, from its start, `limit` bytes at most (EFBIG beyond)."""
    size = os.fstat(fd).st_size
    if size > limit:
        raise OSError(errno.EFBIG, f"read descriptor: {size} bytes, larger than {limit}")
    return os.pread(fd, size, 0)
