"""Frames: the golden one, any cut, and what is no frame."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.wire import multiplex


def test_the_golden_frame():
    assert multiplex.frame(multiplex.STDOUT, b"hello\n") == b"\1\0\0\0\0\0\0\6hello\n"
    assert multiplex.number_of("stderr") == multiplex.STDERR


@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=30)), max_size=6),
    st.lists(st.integers(0, 300), max_size=8),
)
def test_any_cut_gives_the_same_bytes(frames, cuts):
    data = b"".join(multiplex.frame(stream, payload) for stream, payload in frames)
    reader = multiplex.Demultiplexer()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = []
    for start, end in itertools.pairwise(places):
        pieces += reader.feed(data[start:end])
    assert reader.is_between_frames
    for stream in range(4):
        expected = b"".join(payload for number, payload in frames if number == stream)
        assert b"".join(piece for number, piece in pieces if number == stream) == expected


def test_a_frame_that_breaks_off_is_noticed():
    reader = multiplex.Demultiplexer()
    assert reader.feed(b"\1\0\0\0\0\0\0\6hel") == [(1, b"hel")]
    assert not reader.is_between_frames


@pytest.mark.parametrize("header", [b"\4\0\0\0\0\0\0\1", b"\1\1\0\0\0\0\0\1", b"HTTP/1.1"])
def test_what_is_no_frame(header):
    with pytest.raises(InvalidArgument, match="is not a header"):
        multiplex.Demultiplexer().feed(header)
