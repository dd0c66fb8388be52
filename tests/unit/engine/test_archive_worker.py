"""The worker of `cp`: it is ended and collected however far it has come."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess

import pytest

from sampan.engine.archive import _Worker


def ended(pidfd):
    """Wait for a process without collecting it."""
    assert select.select([pidfd], [], [], 30)[0]


def test_a_worker_that_ends_while_it_is_closed(monkeypatch):
    """It looked alive at the first look, and was collected by the second."""
    before = os.listdir("/proc/self/fd")
    worker = _Worker()
    other = os.pidfd_open(worker._process.pid)
    worker._socket.send(b"no job")
    ended(other)
    os.close(other)
    real, looks = subprocess.Popen.poll, []

    def poll(self):
        looks.append(1)
        return None if len(looks) == 1 else real(self)

    monkeypatch.setattr(subprocess.Popen, "poll", poll)
    asyncio.run(worker.aclose())
    assert worker._process.returncode is not None
    assert os.listdir("/proc/self/fd") == before


def test_a_worker_that_was_never_asked():
    worker = _Worker()
    pid = worker._process.pid
    asyncio.run(worker.aclose())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
