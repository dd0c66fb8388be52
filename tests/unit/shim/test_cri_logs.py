"""The log format of the Kubernetes runtime interface."""

from __future__ import annotations

import re

from sampan.shim.logs import LONGEST, CriFile, open_log

STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
RECORD = re.compile(STAMP + rb" (stdout|stderr) ([FP]) (.*)", re.DOTALL)


def records(path):
    """(stream, tag, text) of each line."""
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    return [RECORD.fullmatch(line).groups() for line in lines]


def test_lines_of_both_streams(tmp_path):
    log = open_log("cri", str(tmp_path / "log"), 10, 3)
    log.write(1, b"one\n\ntwo\nth")
    log.write(2, b"err\n")
    log.write(1, b"ree\n")
    log.close()
    assert records(tmp_path / "log") == [
        (b"stdout", b"F", b"one"),
        (b"stdout", b"F", b""),
        (b"stdout", b"F", b"two"),
        (b"stderr", b"F", b"err"),
        (b"stdout", b"F", b"three"),
    ]


def test_what_is_left_open_is_a_part(tmp_path):
    log = CriFile(str(tmp_path / "log"))
    log.write(1, b"whole\nopen")
    log.end(1)
    log.close()
    assert records(tmp_path / "log") == [(b"stdout", b"F", b"whole"), (b"stdout", b"P", b"open")]


def test_a_long_line_becomes_parts_that_join_again(tmp_path):
    log = CriFile(str(tmp_path / "log"))
    text = bytes(range(32, 127)) * 700
    log.write(1, b"before\n" + text + b"\nafter\n")
    log.close()
    found = records(tmp_path / "log")
    assert [tag for _, tag, _ in found] == [b"F", b"P", b"P", b"P", b"P", b"F", b"F"]
    assert max(len(text) for _, _, text in found) == LONGEST
    assert b"".join(text for _, _, text in found[1:-1]) == text


def test_no_byte_but_a_newline_makes_a_record(tmp_path):
    log = CriFile(str(tmp_path / "log"))
    forged = b"\r2026-01-01T00:00:00.000000000Z stdout F forged\x1b]0;x\x07\0\xff\x85"
    log.write(1, forged + b"\n")
    log.close()
    assert records(tmp_path / "log") == [(b"stdout", b"F", forged)]


def test_a_moved_file_is_made_anew_at_once(tmp_path):
    log = CriFile(str(tmp_path / "log"))
    log.write(1, b"old\n")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.renew()
    assert (tmp_path / "log").read_bytes() == b""
    log.write(1, b"new\n")
    log.close()
    assert [text for _, _, text in records(tmp_path / "log.1")] == [b"old"]
    assert [text for _, _, text in records(tmp_path / "log")] == [b"new"]


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "log").symlink_to("target")
    log = CriFile(str(tmp_path / "log"))
    log.write(1, b"one\n")
    log.close()
    assert (tmp_path / "target").read_bytes() == b""
    assert log.dropped == 1
