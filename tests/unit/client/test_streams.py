"""Frames and lines, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.client.streams import MAX_LINE, STDERR, STDOUT, Frames, Lines
from sampan.errors import Unavailable
from unit.client.fake_daemon import frame


@given(
    parts=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8),
    size=st.integers(1, 30),
)
def test_frames_come_together_wherever_they_are_cut(parts, size):
    wire = b"".join(frame(stream, data) for stream, data in parts)
    frames, out = Frames(), {STDOUT: b"", STDERR: b""}
    for at in range(0, len(wire), size):
        for stream, data in frames.feed(wire[at : at + size]):
            out[stream] += data
    for stream, got in out.items():
        assert got == b"".join(data for number, data in parts if number == stream)


@pytest.mark.parametrize("head", [b"\x07\0\0\0\0\0\0\1x", b"HTTP/1.1 500"])
def test_what_is_no_frame_is_refused(head):
    with pytest.raises(Unavailable):
        list(Frames().feed(head))


def test_lines_come_when_they_are_whole():
    lines = Lines()
    assert list(lines.feed(b'{"a":1}\r\n{"b"')) == [{"a": 1}]
    assert list(lines.feed(b":2}\n\n")) == [{"b": 2}]
    assert list(lines.feed(b'{"c":3}')) == []
    assert list(lines.feed(b"")) == [{"c": 3}]


def test_a_line_has_a_bound():
    with pytest.raises(Unavailable):
        list(Lines().feed(b"x" * (MAX_LINE + 1)))
