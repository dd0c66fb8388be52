"""The program of 180 bytes: it executes another one, or says why it could not."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from sampan.kernel import trampoline

pytestmark = pytest.mark.skipif(not trampoline.is_available(), reason="not for this machine")
REPORT = 9


def through(program: str, *words: str, report: bool = True) -> tuple[int, bytes, bytes]:
    """(exit status, output, report) of `program`, executed by the trampoline."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write_end, 1)
        os.closerange(3, 9) if report else None
        made = trampoline.make(REPORT if report else 200)
        if report:
            os.dup2(theirs.fileno(), REPORT)
        try:
            os.execve(made, [program, *words], {"COLOUR": "green"})
        finally:
            os._exit(99)
    os.close(write_end)
    theirs.close()
    with ours, os.fdopen(read_end, "rb") as output:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), output.read(), ours.recv(64)


def test_arguments_and_environment_arrive():
    status, output, report = through(
        "/bin/busybox", "sh", "-c", "echo $0 $1 $COLOUR; exit 4", "a", "b c"
    )
    assert (status, output, report) == (4, b"a b c green\n", b"")


def test_a_program_that_cannot_be_executed_is_reported():
    status, output, report = through("/no/such/program", "x")
    assert (status, output) == (127, b"")
    assert trampoline.failure_of(report) == errno.ENOENT


def test_started_without_its_descriptor_it_only_exits():
    assert through("/bin/busybox", "echo", "never", report=False)[:2] == (127, b"")


def test_nobody_can_write_to_it():
    made = trampoline.make(REPORT)
    with pytest.raises(PermissionError):
        os.write(made, b"x")
    os.close(made)
