"""CRIU's messages by hand: protobuf's own library reads them, and writes what is read."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2

from sampan.runtime import criu_words


def test_strings_numbers_and_lists_are_read_by_others():
    # A message of the library's own, with fields of the kinds that are used: name, lists, numbers.
    text = "long" * 100
    data = criu_words.message({1: text, 3: ["a", b"b"], 10: [7, 1 << 30]})
    found = descriptor_pb2.FileDescriptorProto.FromString(data)
    assert (found.name, list(found.dependency)) == (text, ["a", "b"])
    assert list(found.public_dependency) == [7, 1 << 30]


def test_what_others_wrote_is_read():
    wrote = descriptor_pb2.FieldDescriptorProto(name="x", number=1 << 20, proto3_optional=True)
    assert criu_words.decode(wrote.SerializeToString()) == {1: b"x", 3: 1 << 20, 17: 1}


def test_a_notice_has_its_word_and_its_pid():
    notice = criu_words.message({1: "post-restore", 2: 77})
    answer = criu_words.Answer(criu_words.message({1: criu_words.NOTIFY, 2: True, 5: notice}))
    assert (answer.kind, answer.is_success) == (criu_words.NOTIFY, True)
    assert (answer.notice, answer.pid, answer.said) == ("post-restore", 77, "")


def test_an_answer_has_the_pid_or_the_reason():
    done = criu_words.message({1: criu_words.RESTORE, 2: True, 4: criu_words.message({1: 5})})
    assert criu_words.Answer(done).pid == 5
    failed = criu_words.Answer(criu_words.message({1: criu_words.DUMP, 2: False, 9: "no"}))
    assert (failed.is_success, failed.said) == (False, "no")


def test_a_request_names_its_options_by_number():
    asked = {"pid": 9, "leave_running": True, "external": ["mnt[/a]:/b"], "config_file": "/c"}
    fields = criu_words.decode(criu_words.request(criu_words.DUMP, asked))
    assert fields[1] == criu_words.DUMP
    options = criu_words.decode(bytes(fields[2]))
    assert options == {2: 9, 3: 1, 37: b"mnt[/a]:/b", 51: b"/c"}


@pytest.mark.parametrize(
    "data",
    [b"\x08", b"\x0a\x05ab", b"\x0b", b"\x80" * 11, b"\x08" + b"\xff" * 11, b"\x09\x00"],
)
def test_what_is_no_message_is_refused(data: bytes):
    with pytest.raises(ValueError):
        criu_words.decode(data)
