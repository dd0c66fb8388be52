"""SPDY frames: every cut of the bytes gives the same, and what is too large is refused."""

from __future__ import annotations

import struct
import zlib

import pytest

import spdylab
from sampan.errors import InvalidArgument
from sampan.wire import spdy


def conversation():
    """What a client sends, as bytes, and what it means."""
    client = spdylab.Connection()
    _, one = client.open({"streamtype": "error"})
    _, two = client.open({"streamtype": "stdin", "X": "ä"})
    data = one + two + spdy.data(3, b"some") + spdy.data(3, b"", fin=True) + spdy.ping(7)
    data += spdy.control(4, 0, b"\0" * 8) + spdy.reset(1, spdy.CANCEL) + spdy.goaway(3)
    return data, [
        spdy.Opened(1, {"streamtype": "error"}, is_ended=False),
        spdy.Opened(3, {"streamtype": "stdin", "x": "ä"}, is_ended=False),
        spdy.Data(3, b"some", is_ended=False),
        spdy.Data(3, b"", is_ended=True),
        spdy.Ping(7),
        spdy.Reset(1),
        spdy.Goaway(),
    ]


def test_frames_are_read():
    data, meant = conversation()
    assert list(spdy.Decoder().feed(data)) == meant


def test_frames_arrive_byte_by_byte():
    data, meant = conversation()
    decoder = spdy.Decoder()
    found = [frame for at in range(len(data)) for frame in decoder.feed(data[at : at + 1])]
    text = b"".join(one.payload for one in found if isinstance(one, spdy.Data))
    assert text == b"some"
    assert [one for one in found if not isinstance(one, spdy.Data)] == [
        one for one in meant if not isinstance(one, spdy.Data)
    ]


def test_the_end_comes_with_the_last_piece():
    decoder = spdy.Decoder()
    frame = spdy.data(5, b"abcdef", fin=True)
    assert list(decoder.feed(frame[:10])) == [spdy.Data(5, b"ab", is_ended=False)]
    assert list(decoder.feed(frame[10:])) == [spdy.Data(5, b"cdef", is_ended=True)]


def test_replies_share_one_compression():
    encoder = spdy.Encoder()
    inflater = zlib.decompressobj(zdict=spdy.DICTIONARY)
    for number in (1, 3):
        frame = encoder.reply(number)
        assert struct.unpack_from(">HHII", frame)[:2] == (0x8003, spdy.SYN_REPLY)
        assert struct.unpack_from(">I", frame, 8) == (number,)
        assert inflater.decompress(frame[12:]) == b"\0\0\0\0"


def bomb():
    """A header block of 8 KiB that is 8 MiB."""
    deflater = zlib.compressobj(zdict=spdy.DICTIONARY)
    block = deflater.compress(b"\0" * (8 << 20)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return spdy.control(spdy.SYN_STREAM, 0, b"\0" * 10 + block)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        struct.pack(">II", 0x80020001, 10) + b"\0" * 10,
        struct.pack(">II", 0x80030001, spdy.MAX_CONTROL + 1),
        spdy.control(spdy.SYN_STREAM, 0, b"\0" * 9),
        spdy.control(spdy.SYN_STREAM, 0, b"\0" * 30),
        spdy.control(spdy.PING, 0, b""),
        bomb(),
    ],
)
def test_what_is_no_spdy(data):
    if data.startswith(b"GET"):
        frames = list(spdy.Decoder().feed(data))
        assert not any(isinstance(one, spdy.Opened) for one in frames)
        return
    with pytest.raises(InvalidArgument):
        list(spdy.Decoder().feed(data))


def test_headers_that_lie_about_their_lengths():
    deflater = zlib.compressobj(zdict=spdy.DICTIONARY)
    text = struct.pack(">II", 1, 1 << 30) + b"name"
    block = deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(InvalidArgument):
        list(spdy.Decoder().feed(spdy.control(spdy.SYN_STREAM, 0, b"\0" * 10 + block)))
