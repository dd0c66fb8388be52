"""Frames of a port: what is cut anywhere comes out whole, and what is too large is refused."""

from __future__ import annotations

import pytest

from sampan.vm.frames import HEADER, LARGEST, Splitter, document, pack, read_document


def test_frames_that_are_cut_anywhere():
    data = pack("O", b"hello") + document("Q", code=3) + pack("E")
    for cut in range(len(data)):
        splitter = Splitter()
        found = [*splitter.feed(data[:cut]), *splitter.feed(data[cut:])]
        assert [letter for letter, _ in found] == ["O", "Q", "E"]
        assert found[0][1] == b"hello"
        assert read_document(found[1][1]) == {"code": 3}


def test_a_frame_that_is_too_large():
    with pytest.raises(ValueError, match="a frame of"):
        list(Splitter().feed(HEADER.pack(ord("O"), LARGEST + 1)))


def test_a_document_that_is_none():
    with pytest.raises(ValueError, match="without an object"):
        read_document(b"[1]")
