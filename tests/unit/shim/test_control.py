"""A connection answers every request, whatever becomes of it."""

from __future__ import annotations

import _socket
import json

import pytest

from sampan.shim.control import Connection
from sampan.shim.loop import Loop


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("odd"), "RuntimeError: odd"),
        (AssertionError(), "AssertionError: "),
        (MemoryError(), "MemoryError: "),
        (KeyError("sig"), "invalid message: KeyError: 'sig'"),
        (OSError(3, "No such process"), "No such process"),
    ],
)
def test_a_failing_operation_is_answered_and_the_connection_goes_on(error, text):
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    loop, gone = Loop(), []

    def serve(_connection, message, _fds):
        if message["op"] == "fail":
            raise error
        return {}

    connection = Connection(loop, theirs, serve, gone.append)
    for number, word in enumerate(("fail", "work")):
        ours.send(json.dumps({"re": number, "op": word}).encode())
        loop.once(5)
    first, second = (json.loads(ours.recv(65536)) for _ in range(2))
    assert (first["re"], first["error"]) == (0, text)
    assert second == {"re": 1, "ok": True}
    assert gone == []
    connection.close()
    ours.close()
