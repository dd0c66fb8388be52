"""The messages of DNS, held against the standard's own examples and against noise."""

from __future__ import annotations

import random
import struct

import pytest

from sampan.errors import InvalidArgument
from sampan.network import dns


def ask(name, kind=dns.A, number=7, flags=0x0100, tail=b"\0\1"):
    """A query as a stub resolver sends it."""
    head = struct.pack(">HHHHHH", number, flags, 1, 0, 0, 0)
    return head + dns.write_name(name) + struct.pack(">H", kind) + tail


def code(message):
    return message[3] & 0xF


def test_a_query_and_its_answer():
    query = dns.parse(ask("Web.Example"))
    assert (query.id, query.name, query.kind, query.is_plain) == (7, "web.example", dns.A, True)
    message = dns.answer(query, ["10.0.0.5", "fd00::5", "10.0.0.6"])
    assert dns.answers(message, query)
    assert dns.addresses(message) == [("10.0.0.5", dns.TTL), ("10.0.0.6", dns.TTL)]
    assert message[:2] == b"\0\7"
    assert code(message) == dns.NO_ERROR


def test_a_name_without_an_address_of_the_kind_is_a_name_all_the_same():
    message = dns.answer(dns.parse(ask("web", dns.AAAA)), ["10.0.0.5"])
    assert code(message) == dns.NO_ERROR
    assert dns.addresses(message) == []
    both = dns.answer(dns.parse(ask("web", dns.ANY)), ["10.0.0.5", "fd00::5"])
    assert [address for address, _ in dns.addresses(both)] == ["10.0.0.5", "fd00::5"]


def test_names_of_addresses():
    assert dns.reverse_address("5.0.0.10.in-addr.arpa") == "10.0.0.5"
    nibbles = ".".join("fd000000000000000000000000000005"[::-1])
    assert dns.reverse_address(nibbles + ".ip6.arpa") == "fd00::5"
    for name in ("5.0.0.in-addr.arpa", "x.0.0.10.in-addr.arpa", "web", "1.2.ip6.arpa"):
        assert dns.reverse_address(name) == ""
    message = dns.pointer(dns.parse(ask("5.0.0.10.in-addr.arpa", dns.PTR)), "web.back")
    assert message.endswith(b"\3web\4back\0")


def test_what_does_not_fit_is_cut():
    query = dns.parse(ask("web"))
    message = dns.answer(query, [f"10.0.0.{number}" for number in range(100)])
    short = dns.shorten(query, message, 512)
    assert len(short) <= 512
    assert short[2] & 2
    assert dns.answers(short, query)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        ask("web")[:-1],
        ask("web", flags=0x8100),
        struct.pack(">HHHHHH", 1, 0, 2, 0, 0, 0) + b"\0\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x7fab\0\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x3f" * 300,
    ],
)
def test_what_is_no_query(data):
    with pytest.raises(InvalidArgument):
        dns.parse(data)
    answer = dns.malformed(data)
    assert answer == b"" or code(answer) == dns.FORMAT_ERROR


def test_noise_is_refused_and_never_breaks_anything():
    chance = random.Random(1035)
    good = [ask("a.b.c"), dns.answer(dns.parse(ask("web")), ["10.0.0.5"])]
    for _ in range(3000):
        data = bytearray(chance.choice(good))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        for read in (dns.parse, dns.addresses):
            try:
                read(bytes(data[: chance.randrange(len(data) + 1)]))
            except InvalidArgument:
                continue


def test_an_answer_must_be_to_the_question():
    query = dns.parse(ask("web"))
    assert not dns.answers(dns.answer(dns.parse(ask("other")), ["10.0.0.5"]), query)
    assert not dns.answers(ask("web"), query)
    assert not dns.answers(b"", query)
