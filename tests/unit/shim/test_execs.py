"""Taking the status of a child, also when it is not there to be taken."""

from __future__ import annotations

import os

from sampan.shim.execs import LOST, take_status


def child(code):
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    return pid, os.pidfd_open(pid)


def test_a_running_child_has_no_status():
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    assert take_status(pidfd) is None
    for fd in (reading, writing):
        os.close(fd)
    os.waitpid(pid, 0)
    os.close(pidfd)


def test_an_ended_child_has_its_code():
    pid, pidfd = child(7)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert take_status(pidfd) == (7, 0)
    os.close(pidfd)


def test_a_code_that_was_taken_by_another_is_lost_not_waited_for(capfd):
    pid, pidfd = child(255)
    os.waitpid(pid, 0)
    assert take_status(pidfd) is LOST
    assert "taken by somebody else" in capfd.readouterr().err
    os.close(pidfd)
