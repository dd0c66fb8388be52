"""Exec, attach and port-forward over SPDY, and port-forward over WebSocket, against a daemon."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
from threading import Thread

import aiohttp
import pytest

import crilab
import spdylab
from dockerlab import BUSYBOX
from sampan.pods.ports import make_socket
from sampan.wire.cri import api_pb2 as pb

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not BUSYBOX, reason="needs root and busybox")

V4 = "v4.channel.k8s.io"


@pytest.fixture(scope="module")
def lab():
    with crilab.cri() as made:
        yield made


@pytest.fixture(scope="module")
def box(lab):
    pod = lab.own_pod()
    yield lab.start(pod, "sleep", "1000")
    lab.remove(pod)


def exec_url(lab, box, *command, **wanted):
    wanted = wanted or {"stdin": True, "stdout": True, "stderr": True}
    return lab.call("Exec", container_id=box, cmd=command, **wanted).url


def spoken(url, *names, protocol=V4):
    """A connection with its streams: (client, name -> number)."""
    client = spdylab.Client(url, protocol)
    assert client.status == 101, client.head
    assert protocol in client.head
    return client, {name: client.open(streamtype=name) for name in ("error", *names)}


def refusal(url, *protocols, **headers):
    with spdylab.Client(url, *protocols, **headers) as client:
        return client.status


def test_exec_with_input_output_and_a_code(lab, box):
    url = exec_url(lab, box, "sh", "-c", "cat; echo err >&2; exit 7")
    client, numbers = spoken(url, "stdin", "stdout", "stderr")
    with client:
        client.send(numbers["stdin"], b"some ")
        client.send(numbers["stdin"], b"input", fin=True)
        said = client.read()
    assert said[numbers["stdout"]] == b"some input"
    assert said[numbers["stderr"]] == b"err\n"
    status = json.loads(said[numbers["error"]])
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert client.connection.ended == set(numbers.values())
    assert client.connection.replied == set(numbers.values())
    assert client.connection.is_left


def test_what_succeeds_says_so(lab, box):
    client, numbers = spoken(exec_url(lab, box, "true", stdout=True), "stdout")
    with client:
        assert json.loads(client.read()[numbers["error"]])["status"] == "Success"


def test_older_protocols_end_without_json(lab, box):
    for protocol in ("v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"):
        url = exec_url(lab, box, "sh", "-c", "exit 4", stdout=True)
        client, numbers = spoken(url, "stdout", protocol=protocol)
        with client:
            assert client.read()[numbers["error"]].endswith(b"exit status 4")


def test_much_goes_through_both_ways(lab, box):
    data = os.urandom(1 << 20) * 8
    client, numbers = spoken(exec_url(lab, box, "cat", stdin=True, stdout=True), "stdin", "stdout")
    with client:
        for start in range(0, len(data), 1 << 16):
            client.send(numbers["stdin"], data[start : start + (1 << 16)])
            client.read(lambda one, start=start: one.length(numbers["stdout"]) >= start)
        client.send(numbers["stdin"], fin=True)
        said = client.read()[numbers["stdout"]]
    assert hashlib.sha256(said).digest() == hashlib.sha256(data).digest()


def test_a_terminal_has_a_size(lab, box):
    # The size may come a moment after the input.
    size = "read x; until stty size 2>/dev/null | grep -v '^0 0'; do sleep 0.05; done"
    url = exec_url(lab, box, "sh", "-c", size, stdin=True, stdout=True, tty=True)
    client, numbers = spoken(url, "stdin", "stdout", "resize")
    with client:
        client.send(numbers["resize"], b'{"Width":70,"Height":30}\n{"Width":77,')
        client.send(numbers["resize"], b'"Height":33}\n')
        client.send(numbers["stdin"], b"\n")
        said = client.read()[numbers["stdout"]]
    assert said.split()[-2:] in ([b"33", b"77"], [b"30", b"70"])


def test_attach_until_the_process_ends(lab):
    pod = lab.run_pod()
    container = lab.start(pod, "cat", stdin=True, stdin_once=True)
    url = lab.call("Attach", container_id=container, stdin=True, stdout=True).url
    client, numbers = spoken(url, "stdin", "stdout")
    with client:
        client.send(numbers["stdin"], b"through\n", fin=True)
        assert client.read()[numbers["stdout"]] == b"through\n"
    assert lab.finish(container).exit_code == 0
    lab.remove(pod)


def test_an_address_is_good_once_and_for_nobody_else(lab, box):
    url = exec_url(lab, box, "true", stdout=True)
    assert refusal(url, V4, Origin="http://evil.example") == 403
    assert refusal(url, "v9.channel.k8s.io") == 403
    client, _ = spoken(url, "stdout")
    with client:
        client.read()
    assert refusal(url, V4) == 404
    assert refusal(url.rpartition("/")[0] + "/" + "x" * 22, V4) == 404


def test_a_ping_is_answered_and_a_strange_stream_refused(lab, box):
    client, numbers = spoken(exec_url(lab, box, "cat", stdin=True, stdout=True), "stdin", "stdout")
    with client:
        client.sock.sendall(spdylab.spdy.ping(77))
        strange = client.open(streamtype="strange")
        client.read(lambda one: one.connection.pings and one.connection.refused)
        assert client.connection.pings == [77]
        assert client.connection.refused == {strange}
        client.send(numbers["stdin"], fin=True)
        client.read()


def test_a_client_that_goes_leaves_nothing(lab, box):
    before = set(os.listdir(f"/proc/{lab.daemon.process.pid}/fd"))
    for _ in range(5):
        client, _ = spoken(exec_url(lab, box, "cat", stdin=True, stdout=True), "stdin", "stdout")
        client.sock.close()
    # The command reads the end of its input, and ends.
    assert lab.shell(box, "while pidof cat; do :; done; echo gone").endswith("gone\n")
    client, _ = spoken(exec_url(lab, box, "true", stdout=True), "stdout")
    with client:
        client.read()
    assert len(set(os.listdir(f"/proc/{lab.daemon.process.pid}/fd")) - before) <= 3


def forward_url(lab, pod):
    return lab.call("PortForward", pod_sandbox_id=pod[0]).url


def pair(client, port, request):
    """(error, data) streams of one connection."""
    return (
        client.open(streamtype="error", port=str(port), requestid=str(request)),
        client.open(streamtype="data", port=str(port), requestid=str(request)),
    )


@pytest.fixture(scope="module")
def echo(lab):
    """(pod, port) of a server in a pod's network that sends back what it reads."""
    pod = lab.own_pod()
    path = f"{lab.base}/state/pods/{pod[0]}/net"
    listener = make_socket(path, socket.AF_INET)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)

    def serve(peer):
        with peer:
            while piece := peer.recv(1 << 16):
                peer.sendall(piece)

    def accept():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            Thread(target=serve, args=(peer,), daemon=True).start()

    thread = Thread(target=accept, daemon=True)
    thread.start()
    yield pod, listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    lab.remove(pod)


def test_tens_of_forwarded_connections(lab, echo):
    pod, port = echo
    with spdylab.Client(forward_url(lab, pod), "portforward.k8s.io") as client:
        assert client.status == 101
        pairs = [pair(client, port, number) for number in range(40)]
        for number, (_, data) in enumerate(pairs):
            client.send(data, f"text {number}".encode() * 1000, fin=True)
        wanted = {stream for one in pairs for stream in one}
        said = client.read(lambda one: one.connection.ended >= wanted)
        for number, (error, data) in enumerate(pairs):
            assert said[data] == f"text {number}".encode() * 1000
            assert said.get(error, b"") == b""


def test_a_port_where_nobody_listens(lab, echo):
    pod, port = echo
    with spdylab.Client(forward_url(lab, pod), "portforward.k8s.io") as client:
        error, data = pair(client, 1, 1)
        said = client.read(lambda one: error in one.connection.ended)
        assert b"forward port 1" in said[error]
        error, data = pair(client, "70000", 2)
        said = client.read(lambda one: error in one.connection.ended)
        assert b"70000" in said[error]
        _, data = pair(client, port, 3)
        client.send(data, b"still", fin=True)
        said = client.read(lambda one: data in one.connection.ended)
        assert said[data] == b"still"


def test_a_port_over_a_websocket(lab, echo):
    pod, port = echo
    client = spdylab.Connection()

    async def run():
        protocol = "SPDY/3.1+portforward.k8s.io"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(forward_url(lab, pod), protocols=(protocol,)) as peer,
        ):
            assert peer.protocol == protocol
            for kind in ("error", "data"):
                headers = {"streamtype": kind, "port": str(port), "requestid": "0"}
                number, frame = client.open(headers)
                await peer.send_bytes(frame)
            text = spdylab.spdy.data(number, b"tunnelled", fin=True)
            await peer.send_bytes(text[:3])
            await peer.send_bytes(text[3:])
            while number not in client.ended:
                client.take((await peer.receive(30)).data)
            return client.said[number]

    assert asyncio.run(run()) == b"tunnelled"


def test_a_pod_that_is_gone_forwards_nothing(lab):
    pod = lab.own_pod()
    lab.call("StopPodSandbox", pod_sandbox_id=pod[0])
    assert lab.code("PortForward", pod_sandbox_id=pod[0]) == "FAILED_PRECONDITION"
    lab.remove(pod)
    assert lab.code("PortForward", pod_sandbox_id=pod[0]) == "NOT_FOUND"
    assert lab.code("PortForward") == "INVALID_ARGUMENT"


def test_a_host_network_is_forwarded_too(lab):
    listener = socket.create_server(("127.0.0.1", 0))
    pod = lab.run_pod()
    assert pod[1].linux.security_context.namespace_options.network == pb.NODE
    with listener, spdylab.Client(forward_url(lab, pod), "portforward.k8s.io") as client:
        _, data = pair(client, listener.getsockname()[1], 1)
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"from the node")
        assert client.read(lambda one: data in one.connection.ended)[data] == b"from the node"
    lab.remove(pod)
