"""A peer that must settle: nothing reaches a client that has not read what came before."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from sampan.shim import peers
from sampan.shim.loop import Loop
from sampan.shim.peers import Peer

WISH = {"stdout": True, "framing": "raw", "settle": True}
HEAD, OUTPUT = b"head\r\n\r\n", b"output"


class Client:
    """A peer's other end, to which a head was written already."""

    def __init__(self, **more):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(5)
        theirs.send(HEAD)
        self.loop = Loop()
        self.left = []
        session = SimpleNamespace(
            terminal=False, stdin=None, takes_input=False, left=self.left.append
        )
        self.peer = Peer(self.loop, session, theirs.detach(), {**WISH, **more})

    def turn(self):
        self.loop.once(0.01)

    def unread(self):
        """What lies ready, without taking it."""
        return self.socket.recv(1 << 16, socket.MSG_PEEK)


@pytest.fixture
def client():
    made = Client()
    yield made
    made.socket.close()
    made.peer.close()


def test_output_waits_until_the_head_is_read(client):
    client.peer.deliver(1, OUTPUT)
    client.turn()
    client.peer.deliver(1, OUTPUT)
    client.turn()
    assert client.unread() == HEAD
    assert client.socket.recv(len(HEAD)) == HEAD
    while not client.left:
        client.turn()
        client.peer.finish()
    assert client.socket.recv(100) == OUTPUT + OUTPUT
    assert client.socket.recv(100) == b""


def test_a_client_that_has_read_gets_all_at_once(client):
    client.socket.recv(len(HEAD))
    client.peer.deliver(1, OUTPUT)
    assert client.unread() == OUTPUT
    client.peer.deliver(1, OUTPUT)
    assert client.unread() == OUTPUT + OUTPUT


def test_a_client_that_reads_nothing_is_not_waited_for_without_end(client, monkeypatch):
    monkeypatch.setattr(peers, "monotonic", lambda: float("inf"))
    client.peer.deliver(1, OUTPUT)
    assert client.unread() == HEAD + OUTPUT


def test_an_end_without_output_waits_for_nobody(client):
    client.peer.finish()
    assert client.left == [client.peer]
    assert client.socket.recv(100) == HEAD
    assert client.socket.recv(100) == b""
