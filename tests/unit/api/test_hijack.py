"""Connections that become raw streams: no byte lost, none touched, none left open."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace

import pytest

from sampan.api.docker import hijack
from sampan.engine import model
from sampan.errors import Conflict, StartFailed

MULTIPLEXED = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
RAW = MULTIPLEXED.replace(b"multiplexed-stream", b"raw-stream")
ATTACH = "/v1.50/containers/c1/attach?stream=1&stdin=1&stdout=1&stderr=1"


def upgrade(path, body=b"", more=b"", headers=b"Connection: Upgrade\r\nUpgrade: tcp\r\n"):
    return (
        b"POST "
        + path.encode()
        + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        + headers
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
        + more
    )


async def attached(client, count=1):
    """The attachments, once the engine has them."""
    while len(client.engine.attached) < count:  # noqa: ASYNC110 - the fake has no event for it
        await asyncio.sleep(0)
    return client.engine.attached[-1]


async def exchange(client, attachment):
    """Say something in both directions over an attachment's descriptor, then close it."""
    with socket.socket(fileno=attachment.fd) as theirs:
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(theirs, b"output")
        assert await client.reader.readexactly(6) == b"output"
        client.writer.write(b"input")
        client.writer.write_eof()
        received = b""
        while part := await loop.sock_recv(theirs, 100):
            received += part
        await loop.sock_sendall(theirs, b"after eof")
        assert await client.reader.readexactly(9) == b"after eof"
    assert await client.reader.read() == b""
    return received


def test_attach_answers_exactly_and_hands_the_socket_over(scenario, make_container):
    async def play(client):
        client.engine.containers = {
            "x": make_container(config=model.ContainerConfig(image="a", open_stdin=True))
        }
        client.writer.write(upgrade(ATTACH))
        attachment = await attached(client)
        assert await client.reader.readexactly(len(MULTIPLEXED)) == MULTIPLEXED
        assert attachment == model.Attachment(
            fd=attachment.fd, stdin=True, stdout=True, stderr=True, settle=True
        )
        assert not os.get_inheritable(attachment.fd)
        assert await exchange(client, attachment) == b"input"

    scenario(play)


@pytest.mark.parametrize("size", [1, 5000, 200_000])
def test_stdin_behind_the_head_is_not_lost(scenario, make_container, size):
    async def play(client):
        client.engine.containers = {
            "x": make_container(config=model.ContainerConfig(image="a", open_stdin=True))
        }
        client.writer.write(upgrade(ATTACH, more=b"y" * size))
        attachment = await attached(client)
        await client.reader.readexactly(len(MULTIPLEXED))
        received = await exchange(client, attachment)
        assert received == b"y" * size + b"input"

    scenario(play)


def test_attach_with_detach_keys_logs_and_a_terminal(scenario, make_container):
    async def play(client):
        config = model.ContainerConfig(image="a", open_stdin=True, tty=True)
        client.engine.containers = {"x": make_container(config=config)}
        path = "/containers/c1/attach?stream=1&logs=1&stdin=1&stdout=1&detachKeys=ctrl-a,x"
        client.writer.write(upgrade(path))
        attachment = await attached(client)
        assert await client.reader.readexactly(len(RAW)) == RAW
        assert attachment.framing is model.Framing.RAW
        assert attachment.detach_keys == b"\x01x"
        assert (attachment.logs, attachment.stdout, attachment.stderr) == (True, True, False)
        os.close(attachment.fd)

    scenario(play)


def test_stdin_that_the_container_does_not_take_is_not_attached(scenario):
    async def play(client):
        client.writer.write(upgrade(ATTACH))
        attachment = await attached(client)
        assert not attachment.stdin
        os.close(attachment.fd)

    scenario(play)


@pytest.mark.parametrize(
    ("path", "headers", "head"),
    [
        ("/v1.41/containers/c1/attach?stream=1", b"Connection: Upgrade\r\nUpgrade: tcp\r\n", RAW),
        (
            "/v1.50/containers/c1/attach?stream=1",
            b"",
            (b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"),
        ),
    ],
)
def test_older_clients(scenario, path, headers, head):
    async def play(client):
        client.writer.write(upgrade(path, headers=headers))
        attachment = await attached(client)
        assert await client.reader.readexactly(len(head)) == head
        os.close(attachment.fd)
        assert await client.reader.read() == b""

    scenario(play)


def test_an_attach_that_fails_before_its_head_is_an_ordinary_error(scenario):
    async def play(client):
        client.writer.write(upgrade("/containers/nosuch/attach?stream=1"))
        answer = await client.answer()
        assert (answer.status, answer.json["message"]) == (404, "No such container: nosuch")
        again = await client.ask("GET", "/_ping")  # and the connection goes on
        assert again.body == b"OK"

    scenario(play)


def test_requests_behind_a_refused_attach_are_answered(scenario):
    async def play(client):
        more = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
        client.writer.write(upgrade("/containers/nosuch/attach?stream=1", more=more))
        assert (await client.answer()).status == 404
        assert (await client.answer()).body == b"OK"

    scenario(play)


def test_an_attach_to_a_paused_container_conflicts(scenario, make_container):
    async def play(client):
        state = model.State(status=model.Status.PAUSED)
        client.engine.containers = {"x": make_container(state=state)}
        client.writer.write(upgrade(ATTACH))
        assert (await client.answer()).status == 409

    scenario(play)


def test_an_attach_that_fails_after_its_head_says_so_in_the_stream(scenario):
    async def play(client):
        client.engine.raises["attach"] = Conflict("the shim is gone")
        client.writer.write(upgrade(ATTACH))
        rest = await client.reader.read()
        assert rest.startswith(MULTIPLEXED)
        text = b"attach: the shim is gone\r\n"
        assert rest[len(MULTIPLEXED) :] == b"\x02\0\0\0" + len(text).to_bytes(4, "big") + text

    scenario(play)


async def made(client, **changes):
    """An exec session."""
    body = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    answer = await client.ask("POST", "/containers/c1/exec", {**body, **changes})
    assert answer.status == 201
    return answer.json["Id"]


@pytest.mark.parametrize("pieces", [1, 2])
def test_exec_start_takes_over_after_its_body(scenario, pieces):
    async def play(client):
        session = await made(client)
        body = b'{"Detach":false,"Tty":false}\n'
        request = upgrade(f"/v1.50/exec/{session}/start", body, b"early ")
        cut = request.index(body) + 5 if pieces == 2 else len(request)
        client.writer.write(request[:cut])
        await client.writer.drain()
        await client.another()
        client.writer.write(request[cut:])
        attachment = await attached(client)
        assert await client.reader.readexactly(len(MULTIPLEXED)) == MULTIPLEXED
        assert attachment.stdin
        assert await exchange(client, attachment) == b"early input"

    scenario(play)


def test_a_detached_exec_keeps_the_connection(scenario):
    async def play(client):
        session = await made(client)
        answer = await client.ask("POST", f"/exec/{session}/start", {"Detach": True, "Tty": False})
        assert (answer.status, answer.body) == (200, b"")
        assert ("exec_start", (session,), {"detached": True}) in client.engine.calls
        assert (await client.ask("GET", "/_ping")).body == b"OK"

    scenario(play)


def test_an_exec_that_cannot_start_says_so_in_the_stream(scenario):
    async def play(client):
        session = await made(client)
        sentence = 'exec: "nosuch": executable file not found in $PATH'
        client.engine.raises["exec_start"] = StartFailed(sentence, 127)
        client.writer.write(upgrade(f"/exec/{session}/start", b'{"Detach":false}'))
        rest = await client.reader.read()
        assert rest.startswith(MULTIPLEXED)
        assert rest.endswith(sentence.encode() + b"\r\n")

    scenario(play)


def test_an_exec_runs_once(scenario):
    async def play(client):
        session = await made(client)
        client.engine.execs[session] = replace(client.engine.execs[session], started=True)
        client.writer.write(upgrade(f"/exec/{session}/start", b'{"Detach":false}'))
        assert (await client.answer()).status == 409

    scenario(play)


def test_a_pipelined_attach_is_refused(scenario):
    async def play(client):
        client.writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n" + upgrade(ATTACH))
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 400
        assert client.engine.attached == []

    scenario(play)


def test_a_chunked_attach_is_refused(scenario):
    async def play(client):
        headers = b"Connection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.writer.write(
            b"POST /containers/c1/attach?stream=1 HTTP/1.1\r\nHost: x\r\n" + headers + b"0\r\n\r\n"
        )
        assert (await client.head()).status == 400
        assert client.engine.attached == []

    scenario(play)


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 0),
        (b"POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n", 12),
        (b"POST / HTTP/1.1\r\ncontent-length:7\r\n\r\n", 7),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    ],
)
def test_the_length_that_a_head_announces(head, length):
    assert hijack.content_length(head) == length


@pytest.mark.parametrize(
    ("line", "may"),
    [
        (b"POST /v1.50/containers/x/attach?stream=1 HTTP/1.1", True),
        (b"POST /exec/x/start HTTP/1.1", True),
        (b"POST /exec/x/resize?h=1 HTTP/1.1", False),
        (b"GET /containers/attach/json HTTP/1.1", False),
        (b"POST /containers/x/start HTTP/1.1", False),
    ],
)
def test_requests_that_may_take_over(line, may):
    data = line + b"\r\nHost: x\r\n\r\n/attach"
    assert hijack.may_take_over(data, data.index(b"\r\n\r\n")) is may


def test_exec_inspect_has_dockers_words(scenario):
    async def play(client):
        session = await made(client, Cmd=["echo", "hi"])
        client.engine.execs[session] = replace(client.engine.execs[session], exit_code=5)
        answer = (await client.ask("GET", f"/exec/{session}/json")).json
        assert (answer["ID"], answer["ExitCode"], answer["Running"]) == (session, 5, False)
        assert (await client.ask("GET", "/exec/nosuch/json")).json == {
            "message": "No such exec instance: nosuch"
        }

    scenario(play)


@pytest.mark.parametrize("query", ["", "h=1", "h=x&w=1", "h=-1&w=1", "h=70000&w=1"])
def test_wrong_sizes(scenario, query):
    async def play(client):
        assert (await client.ask("POST", f"/containers/c1/resize?{query}")).status == 400
        assert client.engine.calls == []

    scenario(play)


def test_resize(scenario):
    async def play(client):
        assert (await client.ask("POST", "/containers/c1/resize?h=24&w=80")).status == 200
        assert client.engine.calls == [("resize", ("c1", 24, 80), {})]

    scenario(play)


@pytest.mark.parametrize(
    ("agent", "waits"), [("Docker-Client/28.2.2 (linux)", False), ("python/3", True)]
)
def test_who_loses_what_comes_with_the_head_is_waited_for(scenario, agent, waits):
    async def play(client):
        await client.ask("POST", "/containers/c1/exec", {"Cmd": ["true"], "AttachStdout": True})
        (name,) = client.engine.execs
        headers = f"User-Agent: {agent}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n".encode()
        client.writer.write(upgrade(f"/exec/{name}/start", b"{}", headers=headers))
        attachment = await attached(client)
        assert attachment.settle == waits
        await client.reader.readexactly(len(MULTIPLEXED))
        os.close(attachment.fd)

    scenario(play)
