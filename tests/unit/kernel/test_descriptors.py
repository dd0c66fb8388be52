"""Messages with descriptors, whatever room they are offered."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from sampan.kernel import fds

ROOMS = [1 << 12, 4 << 20]


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(10)
        yield ours, theirs


@pytest.mark.parametrize("room", ROOMS)
def test_messages_stay_apart(ends, room):
    ours, theirs = ends
    null = os.open("/dev/null", os.O_RDONLY)
    fds.send(theirs, b"one", [null])
    fds.send(theirs, b"x" * 3000)
    os.close(null)
    text, [passed] = fds.receive(ours, room)
    assert (text, os.fstat(passed).st_rdev) == (b"one", os.makedev(1, 3))
    os.close(passed)
    assert fds.receive(ours, room) == (b"x" * 3000, [])
    theirs.close()
    assert fds.receive(ours, room) == (b"", [])


@pytest.mark.parametrize("room", ROOMS)
def test_a_message_without_text_brings_its_descriptors(ends, room):
    ours, theirs = ends
    fds.send(theirs, b"", [theirs.fileno()])
    text, passed = fds.receive(ours, room)
    fds.close_all(passed)
    assert (text, len(passed)) == (b"", 1)


@pytest.mark.parametrize("room", [1 << 12, 1 << 17])
def test_what_is_larger_than_agreed_is_refused(ends, room):
    ours, theirs = ends
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    fds.send(theirs, bytes(room + 1), [theirs.fileno()])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="larger than agreed") as caught:
        fds.receive(ours, room)
    assert caught.value.errno == errno.EMSGSIZE
    assert len(os.listdir("/proc/self/fd")) == before
