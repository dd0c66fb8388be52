"""Records on disk, messages, and the descriptors that a shim keeps."""

from __future__ import annotations

import errno
import json
import os

import pytest

from sampan.shim.control import failure, parse
from sampan.shim.exits import write_record
from sampan.shim.nursery import keep_only


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("sync", [False, True])
def test_a_record_is_replaced_whole(tmp_path, directory, sync):
    write_record(directory, "exit.json", {"code": 1, "text": "x" * 10000}, sync=sync)
    write_record(directory, "exit.json", {"code": 2}, sync=sync)
    assert json.loads((tmp_path / "exit.json").read_text()) == {"code": 2}
    assert os.listdir(tmp_path) == ["exit.json"]


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path, directory):
    write_record(directory, "exit.json", {"code": 1}, sync=True)
    (tmp_path / ".exit.json.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        write_record(directory, "exit.json", {"code": 2}, sync=True)
    assert json.loads((tmp_path / "exit.json").read_text()) == {"code": 1}
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000])
def test_a_message_that_is_no_object_is_refused(data):
    with pytest.raises(ValueError):
        parse(data)


def test_an_error_of_the_kernel_keeps_its_number_and_path():
    with pytest.raises(OSError) as caught:
        os.open("/nonexistent/x", os.O_RDONLY)
    told = failure(caught.value)
    assert told["errno"] == errno.ENOENT
    assert "/nonexistent/x" in told["error"]


def test_an_error_of_the_runtime_names_its_operation():
    from sampan.runtime.failure import RuntimeFailure

    told = failure(RuntimeFailure(13, "permission denied", "mount /proc"))
    assert told == {
        "error": "mount /proc: permission denied",
        "errno": 13,
        "operation": "mount /proc",
    }


@pytest.mark.parametrize("lowest", [0, 1, 3])
def test_only_the_wanted_descriptors_stay_open(lowest):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fds = [os.dup(2) for _ in range(20)]
            wanted = {lowest, fds[3], fds[4], fds[19]}
            os.dup2(2, lowest)
            keep_only(wanted)
            still = set()
            for fd in range(256):
                try:
                    os.fstat(fd)
                    still.add(fd)
                except OSError:
                    pass
            status = 0 if still == wanted else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
