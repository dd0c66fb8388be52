"""HTTP/1.1 taken apart: whatever the cuts, the same answer; and everything has a bound."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.client.http import MAX_HEAD, ProtocolError, Reader, chunk, request

BODY = b"hello, world: " + bytes(range(256))
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Y: z\r\n\r\n" % len(BODY) + BODY
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(BODY[:100])
    + chunk(BODY[100:])
    + chunk(b"")
)
CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY


def read(pieces: list[bytes], method: str = "GET") -> tuple[Reader, bytes]:
    reader, body = Reader(), b""
    reader.begin(method)
    left = [*pieces, b""]
    while not reader.head():
        reader.feed(left.pop(0))
    while (piece := reader.piece()) != b"":
        if piece is None:
            reader.feed(left.pop(0))
        else:
            body += piece
    return reader, body


@pytest.mark.parametrize("wire", [LENGTH, CHUNKED, CLOSE], ids=["length", "chunked", "close"])
@given(cuts=st.lists(st.integers(0, 400), max_size=6))
def test_body_is_whole_wherever_it_is_cut(wire, cuts):
    at = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    pieces = [wire[a:b] for a, b in itertools.pairwise(at)]
    reader, body = read(pieces)
    assert (reader.status, body) == (200, BODY)


def test_one_connection_carries_many_answers():
    reader = Reader()
    for _ in range(3):
        reader.begin("GET")
        reader.feed(LENGTH)
        assert reader.head()
        assert reader.piece() == BODY
        assert reader.piece() == b""
        assert reader.reusable


def test_closed_connection_is_not_used_again():
    reader, _ = read([CLOSE])
    assert not reader.reusable


def test_upgrade_leaves_the_bytes_behind_the_head():
    reader = Reader()
    reader.begin("POST")
    reader.feed(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nfirst bytes")
    assert reader.head()
    assert reader.rest() == b"first bytes"
    assert not reader.reusable


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_some_answers_have_no_body(status):
    reader, body = read([f"HTTP/1.1 {status}\r\n\r\n".encode()], "POST")
    assert body == b""
    assert reader.reusable


def test_continue_is_passed_over():
    reader, body = read([b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH])
    assert (reader.status, body) == (200, BODY)


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 2000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"x" * (MAX_HEAD + 1),
        b"",
    ],
)
def test_what_is_no_answer_is_refused(wire):
    with pytest.raises(ProtocolError):
        read([wire])


def test_request_announces_its_body():
    sent = request("POST", "/x", {"A": "b"}, b"{}")
    assert sent == b"POST /x HTTP/1.1\r\nHost: localhost\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"
    assert b"Content-Length" not in request("GET", "/x", {}, None)
    assert b"chunked" in request("POST", "/x", {}, None, chunked=True)
