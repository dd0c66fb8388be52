"""The name server over sockets of loopback: what it knows, and whom it asks."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from tests.unit.network.test_dns import ask, code

from sampan.network import dns, resolver
from sampan.network.resolver import Resolver


class Known:
    """Names of one container."""

    def __init__(self):
        self.names = {"web": ["10.0.0.5", "fd00::5"]}
        self.upstream = ["127.0.0.1"]
        self.told = []

    def find(self, owner, name):
        assert owner == "me"
        return self.names.get(name)

    def name_of(self, owner, address):
        return "web.back" if address == "10.0.0.5" else ""

    def servers(self, owner):
        return self.upstream

    def permits(self, owner, name):
        return name != "forbidden.org"

    async def learned(self, owner, name, message):
        self.told.append((name, dns.addresses(message)))


class Upstream(asyncio.DatagramProtocol):
    """A name server elsewhere: `answers` of a function from query to messages."""

    def __init__(self, reply):
        self.reply = reply
        self.asked = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        query = dns.parse(data)
        self.asked.append(query)
        for message in self.reply(query):
            self.transport.sendto(message, peer)


def bound(kind):
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    sock.bind(("127.0.0.1", 0))
    return sock


@asynccontextmanager
async def served(known, reply=lambda query: [dns.answer(query, ["192.0.2.7"])]):
    """(where the container asks by datagram, and by stream, the server elsewhere)."""
    loop = asyncio.get_running_loop()
    elsewhere = bound(socket.SOCK_DGRAM)
    transport, upstream = await loop.create_datagram_endpoint(
        lambda: Upstream(reply), sock=elsewhere
    )
    made = Resolver(known, port=elsewhere.getsockname()[1])
    doors = bound(socket.SOCK_DGRAM), bound(socket.SOCK_STREAM)
    doors[1].listen()
    places = [door.getsockname() for door in doors]
    made.open("me", doors)
    try:
        yield *places, upstream
    finally:
        await made.aclose()
        transport.close()


async def question(place, data):
    """One datagram there and one back."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(place)
        await loop.sock_sendall(sock, data)
        async with asyncio.timeout(20):
            return await loop.sock_recv(sock, 65535)


def scenario(work):
    asyncio.run(work())


def test_own_names_are_answered_and_nobody_else_is_asked():
    async def play():
        known = Known()
        async with served(known) as (place, _, upstream):
            message = await question(place, ask("WEB"))
            assert dns.addresses(message) == [("10.0.0.5", dns.TTL)]
            message = await question(place, ask("web", dns.AAAA))
            assert dns.addresses(message) == [("fd00::5", dns.TTL)]
            message = await question(place, ask("5.0.0.10.in-addr.arpa", dns.PTR))
            assert b"\3web\4back\0" in message
            assert upstream.asked == []

    scenario(play)


def test_other_names_are_asked_elsewhere_with_another_id():
    async def play():
        known = Known()
        async with served(known) as (place, _, upstream):
            for number in (1, 2, 3):
                message = await question(place, ask("example.org", number=number))
                assert message[:2] == number.to_bytes(2, "big")
                assert dns.addresses(message) == [("192.0.2.7", dns.TTL)]
            assert {query.name for query in upstream.asked} == {"example.org"}
            assert [query.id for query in upstream.asked] != [1, 2, 3]
            assert known.told[0] == ("example.org", [("192.0.2.7", dns.TTL)])

    scenario(play)


def test_who_is_closed_in_asks_nobody():
    async def play():
        known = Known()
        async with served(known) as (place, _, upstream):
            known.upstream = []
            assert code(await question(place, ask("example.org"))) == dns.NO_SUCH_NAME
            assert code(await question(place, ask("1.2.3.4.in-addr.arpa", dns.PTR))) == 3
            assert dns.addresses(await question(place, ask("web")))
            known.upstream = ["127.0.0.1"]
            assert code(await question(place, ask("forbidden.org"))) == dns.NO_SUCH_NAME
            assert upstream.asked == []

    scenario(play)


def test_a_forged_answer_is_not_taken():
    async def play():
        def reply(query):
            yield dns.with_id(dns.answer(query, ["198.51.100.66"]), query.id ^ 1)
            other = dns.parse(ask("other.org", number=query.id))
            yield dns.answer(other, ["198.51.100.66"])
            yield dns.answer(query, ["192.0.2.7"])

        async with served(Known(), reply) as (place, _, _):
            message = await question(place, ask("example.org"))
            assert dns.addresses(message) == [("192.0.2.7", dns.TTL)]

    scenario(play)


def test_servers_that_fail_or_do_not_answer(monkeypatch):
    monkeypatch.setattr(resolver, "PATIENCE", 0.1)

    async def play():
        known = Known()
        async with served(known, lambda query: [dns.failure(query, 2)]) as (place, _, upstream):
            known.upstream = ["127.0.0.1", "127.0.0.1"]
            assert code(await question(place, ask("example.org"))) == dns.SERVER_FAILURE
            assert len(upstream.asked) == 2
        async with served(known, lambda _: []) as (place, _, upstream):
            assert code(await question(place, ask("example.org"))) == dns.SERVER_FAILURE
            assert len(upstream.asked) == 2

    scenario(play)


def test_streams_take_many_questions():
    async def play():
        known = Known()
        known.names["big"] = [f"10.0.{number}.1" for number in range(100)]
        async with served(known) as (datagrams, streams, _):
            short = await question(datagrams, ask("big"))
            assert short[2] & 2  # cut off: ask by a stream
            reader, writer = await asyncio.open_connection(*streams)
            for name, count in (("big", 100), ("web", 1)):
                data = ask(name)
                writer.write(len(data).to_bytes(2, "big") + data)
                size = int.from_bytes(await reader.readexactly(2), "big")
                assert len(dns.addresses(await reader.readexactly(size))) == count
            writer.close()

    scenario(play)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"\0" * 12, dns.FORMAT_ERROR),
        (ask("web", flags=0x2900), dns.NOT_IMPLEMENTED),
        (ask("web", tail=b"\0\3"), dns.NOT_IMPLEMENTED),
    ],
)
def test_what_is_not_asked_properly(data, wanted):
    async def play():
        async with served(Known()) as (place, _, upstream):
            assert code(await question(place, data)) == wanted
            assert upstream.asked == []

    scenario(play)


def test_questions_under_way_are_bounded(monkeypatch):
    monkeypatch.setattr(resolver, "MAX_ASKED", 3)

    async def play():
        enough = asyncio.Event()

        def reply(_):
            if len(upstream.asked) == 3:
                enough.set()
            return []

        async with served(Known(), reply) as (place, _, upstream):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(place)
                for number in range(20):
                    sock.send(ask("example.org", number=number))
                async with asyncio.timeout(20):
                    await enough.wait()
            assert len(upstream.asked) == 3

    scenario(play)
