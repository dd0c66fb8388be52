"""The json-file writer: what a reader gets back, rotation, and what happens on a full disk."""

from __future__ import annotations

import errno
import gzip
import json
import os
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.shim.logs import DROPS, LONGEST, JsonFile


def read(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def texts(path):
    return [record["log"] for record in read(path)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "container.log"


def written(path, *chunks, stream=1, max_size=0, max_file=1):
    log = JsonFile(str(path), max_size, max_file)
    for chunk in chunks:
        log.write(stream, chunk)
    log.close()
    return log


def test_a_line_is_a_record(path):
    written(path, b"hello\nworld\n")
    first, second = read(path)
    assert first["log"] == "hello\n"
    assert first["stream"] == "stdout"
    assert second["log"] == "world\n"


def test_the_time_is_rfc3339_with_nine_digits_and_now(path):
    before = time.time_ns()
    written(path, b"x\n")
    text = read(path)[0]["time"]
    seconds, _, fraction = text.partition(".")
    assert len(fraction) == 10
    assert fraction.endswith("Z")
    parsed = int(time.mktime(time.strptime(seconds, "%Y-%m-%dT%H:%M:%S"))) - time.timezone
    assert before <= parsed * 10**9 + int(fraction[:-1]) <= time.time_ns()


def test_nothing_is_opened_before_the_first_byte(path):
    JsonFile(str(path), 0, 1).close()
    assert not path.exists()


def test_an_open_line_waits_for_its_end(path):
    log = JsonFile(str(path), 0, 1)
    log.write(1, b"hel")
    assert not path.exists()
    log.write(1, b"lo\nrest")
    assert texts(path) == ["hello\n"]
    log.end(1)
    assert texts(path) == ["hello\n", "rest"]


def test_streams_do_not_mix(path):
    log = JsonFile(str(path), 0, 1)
    log.write(1, b"out ")
    log.write(2, b"err\n")
    log.write(1, b"put\n")
    log.close()
    assert [(r["stream"], r["log"]) for r in read(path)] == [
        ("stderr", "err\n"),
        ("stdout", "out put\n"),
    ]


@pytest.mark.parametrize("code", range(0x80))
def test_one_byte_in_a_large_batch_cannot_break_a_record(path, code):
    text = ("a" * 99 + "\n") * (LONGEST // 100 + 1) + "x" + chr(code) + "y\n"
    written(path, text.encode())
    assert "".join(texts(path)) == text


@pytest.mark.parametrize("extra", [0, 1, LONGEST, LONGEST + 7])
def test_a_long_line_is_cut_as_dockerd_cuts_it(path, extra):
    line = b"x" * (LONGEST + extra) + b"\n"
    written(path, b"before\n" + line + b"after\n")
    got = texts(path)
    assert got[0] == "before\n"
    assert got[-1] == "after\n"
    assert "".join(got[1:-1]).encode() == line
    assert [text.endswith("\n") for text in got[1:-1]] == [False] * (len(got) - 3) + [True]
    assert all(len(text.rstrip("\n")) <= LONGEST for text in got)


def test_a_long_open_line_is_logged_while_it_grows(path):
    log = JsonFile(str(path), 0, 1)
    for _ in range(5):
        log.write(1, b"y" * LONGEST)
    assert len(texts(path)) == 4
    log.close()
    assert texts(path) == ["y" * LONGEST] * 5


def test_a_character_is_not_cut_in_two(path):
    text = "x" * (LONGEST - 1) + "é" * 10
    written(path, text.encode() + b"\n")
    assert "".join(texts(path)) == text + "\n"


def test_bytes_that_are_not_utf8_are_replaced(path):
    written(path, b"a\xff\xfeb\n")
    assert texts(path) == ["a\ufffd\ufffdb\n"]


def test_no_byte_forges_a_record(path):
    evil = b'"}\n{"log":"forged","stream":"stdout","time":"x"}\r\x1b]0;t\x07\x00\x7f\\n\\\n'
    written(path, evil)
    assert "".join(texts(path)).encode() == evil
    assert len(read(path)) == 2


@given(chunks=st.lists(st.binary(max_size=200) | st.sampled_from([b"\n", b"\\n", b'"', b"\\\n"])))
@settings(max_examples=150, deadline=None)
def test_whatever_is_written_is_read_back(tmp_path_factory, chunks):
    path = tmp_path_factory.mktemp("log") / "log"
    written(path, *chunks)
    got = texts(path) if path.exists() else []
    # Decoded line by line: a newline ends a broken character too.
    lines = b"".join(chunks).split(b"\n")
    want = [line.decode("utf-8", "replace") + "\n" for line in lines[:-1]]
    want += [lines[-1].decode("utf-8", "replace")] if lines[-1] else []
    assert got == want


def test_rotation_keeps_max_file_files_and_loses_no_line_of_them(path, tmp_path):
    lines = [b"line %05d\n" % number for number in range(500)]
    written(path, b"".join(lines[:250]), b"".join(lines[250:]), max_size=4000, max_file=3)
    assert sorted(os.listdir(tmp_path)) == [
        "container.log",
        "container.log.1",
        "container.log.2",
    ]
    kept = [
        text
        for name in ("container.log.2", "container.log.1", "container.log")
        for text in texts(tmp_path / name)
    ]
    assert kept == [line.decode() for line in lines][-len(kept) :]
    record = len((tmp_path / "container.log").read_bytes().split(b"\n")[0]) + 1
    for name in ("container.log.1", "container.log.2"):
        assert 4000 <= (tmp_path / name).stat().st_size < 4000 + record


def test_one_file_is_emptied_when_it_is_full(path, tmp_path):
    written(path, *[b"number %d\n" % number for number in range(200)], max_size=1000)
    assert os.listdir(tmp_path) == ["container.log"]
    assert path.stat().st_size < 1200
    assert texts(path)[-1] == "number 199\n"


def test_an_existing_log_is_continued_and_counts_for_rotation(path):
    written(path, b"first\n")
    size = path.stat().st_size
    written(path, b"second\n", max_size=size, max_file=2)
    assert texts(path) == ["second\n"]
    assert texts(path.with_name("container.log.1")) == ["first\n"]


def test_reopen_follows_a_log_that_was_moved_away(path):
    log = JsonFile(str(path), 0, 1)
    log.write(1, b"one\n")
    path.rename(path.with_name("moved"))
    log.reopen()
    log.write(1, b"two\n")
    log.close()
    assert texts(path) == ["two\n"]


def test_a_symbolic_link_is_not_followed(path, tmp_path):
    target = tmp_path / "target"
    path.symlink_to(target)
    log = written(path, b"x\n")
    assert log.dropped == 1
    assert not target.exists()


def journal(path):
    lines = path.with_name(path.name + DROPS).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_fifo_does_not_block(path):
    os.mkfifo(path)
    assert written(path, b"x\n").dropped == 1


def test_the_file_is_for_its_owner_and_group(path):
    written(path, b"x\n")
    assert path.stat().st_mode & 0o7777 & ~0o640 == 0


def test_a_full_disk_drops_whole_records_and_counts_them(path, monkeypatch):
    log = JsonFile(str(path), 0, 1)
    log.write(1, b"kept\n")
    room = 40

    def full(fd, parts):
        data = b"".join(parts)
        if len(data) > room:
            return os.write(fd, data[:room])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "writev", full)
    log.write(1, b"lost one\nlost two\n")
    monkeypatch.undo()
    assert log.dropped == 2
    log.write(1, b"again\n")
    assert [record["dropped"] for record in journal(path)] == [2]
    assert "full" in journal(path)[0]["reason"].lower() or "space" in journal(path)[0]["reason"]
    log.write(1, b"more\n")
    assert len(journal(path)) == 1  # each gap once
    log.write(1, b"kept too\n")
    log.close()
    assert texts(path) == ["kept\n", "again\n", "more\n", "kept too\n"]


def test_files_that_are_rotated_faster_than_they_are_compressed_are_compressed(path):
    log = JsonFile(str(path), 20_000, 5, packed=True)
    for number in range(200):
        log.write(1, (f"{number} ".ljust(4000, "x") + "\n").encode())
    log.close()
    with suppress(ChildProcessError):
        while True:
            os.wait()
    older = [path.with_name(f"{path.name}.{number}.gz") for number in range(4, 0, -1)]
    assert {one for one in path.parent.iterdir() if one != path} == set(older)
    whole = b"".join(gzip.decompress(one.read_bytes()) for one in older) + path.read_bytes()
    numbers = [int(json.loads(line)["log"].split()[0]) for line in whole.splitlines()]
    assert numbers == list(range(numbers[0], 200))
