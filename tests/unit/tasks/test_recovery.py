from __future__ import annotations

import json
import os
import struct
import threading

import pytest

from sampan.shim import exits
from sampan.tasks import recovery

RECORD = {
    "v": 1,
    "code": 3,
    "signal": 0,
    "oom": False,
    "time": 7,
    "pid": 9,
    "lost": False,
}


def test_a_directory_is_made_clean_and_goes_whole(tmp_path):
    directory = tmp_path / "a"
    recovery.make(str(directory))
    for name in ("exit.json", "state.json", "shim.sock", ".exit.json.new"):
        (directory / name).write_text("x")
    recovery.make(str(directory))
    assert list(directory.iterdir()) == []
    recovery.clear(str(directory))
    recovery.clear(str(directory))
    assert not directory.exists()


def test_a_last_record_does_not_outlive_its_directory(tmp_path):
    """A shim that is about to end writes while its directory is cleared."""

    over = threading.Event()

    def write(fd):
        try:
            while not over.is_set():
                for name in ("exit.json", "more"):
                    exits.write_record(fd, name, RECORD, sync=False)
        except FileNotFoundError:
            pass  # the directory is gone
        os.close(fd)

    for number in range(50):
        directory = tmp_path / str(number)
        directory.mkdir()
        writer = threading.Thread(target=write, args=[os.open(directory, os.O_RDONLY)])
        writer.start()
        try:
            recovery.clear(str(directory))
            assert not directory.exists()
        finally:
            over.set()
            writer.join()
        over.clear()


def test_exit_records(tmp_path):
    assert recovery.read_exit(str(tmp_path)) is None
    (tmp_path / "exit.json").write_text(json.dumps(RECORD))
    record = recovery.read_exit(str(tmp_path))
    assert record == recovery.ExitRecord(3, 0, False, 7, 9, False)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"code":"x"}'])
def test_a_record_that_is_none(tmp_path, content):
    (tmp_path / "exit.json").write_text(content)
    assert recovery.read_exit(str(tmp_path)) is None


def kept(how: int, status: int, text: bytes) -> bytes:
    information = struct.pack("<iiiiiii", 17, 0, how, 0, 9, 0, status).ljust(128, b"\0")
    return information + struct.pack("<qq", 5, 6) + text.ljust(256, b"\0")


def test_the_record_of_a_keeper(tmp_path):
    text = b"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"
    (tmp_path / "exit").write_bytes(kept(os.CLD_KILLED, 9, text))
    record = recovery.read_exit(str(tmp_path))
    assert record == recovery.ExitRecord(137, 9, True, 5_000_000_006, 9, False)
    (tmp_path / "exit").write_bytes(kept(os.CLD_EXITED, 3, b"oom_kill 0\n"))
    assert recovery.read_exit(str(tmp_path)).code == 3
    (tmp_path / "exit.json").write_text(json.dumps({**RECORD, "code": 4}))
    assert recovery.read_exit(str(tmp_path)).code == 4  # a monitor's says more


@pytest.mark.parametrize("content", [b"", b"x" * 399, b"x" * 401])
def test_a_record_of_a_keeper_that_is_none(tmp_path, content):
    (tmp_path / "exit").write_bytes(content)
    assert recovery.read_exit(str(tmp_path)) is None


def test_found_and_state(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    assert recovery.found(str(tmp_path)) == ["a", "b"]
    assert not recovery.has_state(str(tmp_path / "a"))
    (tmp_path / "a/state.json").write_text("{}")
    assert recovery.has_state(str(tmp_path / "a"))


def test_a_licence_is_taken_back_only_while_it_is_not_used(tmp_path):
    directory = tmp_path / "a"
    directory.mkdir()
    (directory / "shim.sock").write_text("")
    assert not recovery.revoke(str(directory))
    (directory / "shim.sock").unlink()
    assert recovery.revoke(str(directory))
    assert recovery.revoke(str(directory))
