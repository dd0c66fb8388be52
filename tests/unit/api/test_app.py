"""Routes, versions, errors, limits: everything that is the same for every endpoint."""

from __future__ import annotations

import pytest

from sampan.api.docker import app, call, containers, hijack, images, listing
from sampan.api.docker import exec as execs
from sampan.errors import Conflict, InvalidArgument, NotFound, NotModified, StartFailed

USUAL = 50
ID = "a06b45320ac212918ebb757e243dfa9d85f23a0113487c1d8c70731468abef69"


@pytest.mark.parametrize(
    ("method", "path", "handler", "name", "minor"),
    [
        ("GET", "/containers/json", listing.listing, "", USUAL),
        ("GET", "/v1.41/containers/json", listing.listing, "", 41),
        ("GET", "/v1.50/containers/c1/json", containers.inspect, "c1", 50),
        ("GET", "/containers/json/json", containers.inspect, "json", USUAL),
        ("DELETE", "/containers/c1", containers.remove, "c1", USUAL),
        ("POST", "/containers/prune", containers.prune, "", USUAL),
        ("POST", "/containers/prune/start", containers.start, "prune", USUAL),
        ("POST", "/containers/c1/exec", execs.create, "c1", USUAL),
        ("POST", "/exec/abc/start", execs.start, "abc", USUAL),
        (
            "POST",
            "/images/127.0.0.1:5000/t/alpine/push",
            images.push,
            "127.0.0.1:5000/t/alpine",
            USUAL,
        ),
        (
            "DELETE",
            "/images/127.0.0.1:5000/t/alpine:x",
            images.remove,
            "127.0.0.1:5000/t/alpine:x",
            USUAL,
        ),
        ("GET", "/images/a/json", images.inspect, "a", USUAL),
    ],
)
def test_routes(method, path, handler, name, minor):
    assert app.route(method, path) == (handler, name, minor)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/nosuch"),
        ("PUT", "/containers/json"),
        ("DELETE", "/containers/"),
        ("GET", "/containers//json"),
        ("GET", "/v1.50"),
        ("GET", "/version/x"),
    ],
)
def test_unknown_paths(method, path):
    with pytest.raises(NotFound, match="page not found"):
        app.route(method, path)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("1.99", "client version 1.99 is too new. Maximum supported API version is 1.55"),
        ("2.0", "client version 2.0 is too new. Maximum supported API version is 1.55"),
        (
            "1.23",
            (
                "client version 1.23 is too old. Minimum supported API version is 1.24, "
                "please upgrade your client to a newer version"
            ),
        ),
        ("1", "invalid API version '1'"),
        ("1.5x", "invalid API version '1.5x'"),
    ],
)
def test_versions_that_are_refused(version, sentence):
    with pytest.raises(InvalidArgument) as caught:
        app.route("GET", f"/v{version}/info")
    assert str(caught.value) == sentence


def test_ping(scenario):
    async def play(client):
        for method in ("GET", "HEAD"):
            answer = await client.ask(method, "/_ping")
            assert answer.status == 200
            assert answer.headers["api-version"] == "1.50"
            assert answer.headers["ostype"] == "linux"
            assert answer.headers["server"].startswith("sampan/")
            assert answer.headers["cache-control"] == "no-cache, no-store, must-revalidate"
            assert answer.body == (b"OK" if method == "GET" else b"")

    scenario(play)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Conflict("it is paused"), 409),
        (StartFailed('exec: "nosuch": executable file not found in $PATH', 127), 400),
        (StartFailed("mount /x: permission denied"), 500),
    ],
)
def test_errors_have_dockers_shape(scenario, error, status):
    async def play(client):
        client.engine.raises["start"] = error
        answer = await client.ask("POST", "/v1.50/containers/c1/start")
        assert answer.status == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.json == {"message": str(error)}

    scenario(play)


def test_not_modified_has_no_body(scenario):
    async def play(client):
        client.engine.raises["start"] = NotModified("it runs already")
        answer = await client.ask("POST", "/containers/c1/start")
        assert answer.status == 304
        again = await client.ask("GET", "/_ping")  # nothing of a body is left on the connection
        assert again.body == b"OK"

    scenario(play)


def test_a_defect_tells_nothing(scenario, caplog):
    async def play(client):
        client.engine.raises["start"] = RuntimeError("secret /path")
        answer = await client.ask("POST", "/containers/c1/start")
        assert answer.status == 500
        assert answer.json == {"message": "internal error: RuntimeError"}

    scenario(play)
    assert "secret /path" in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost"},  # of a program only where it opens a WebSocket
        {"Origin": "http://localhost:8080", "Upgrade": "websocket"},
        {"Origin": "https://localhost.evil.example", "Upgrade": "websocket"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.com:2375"},
    ],
)
def test_web_pages_are_refused(scenario, headers):
    async def play(client):
        answer = await client.ask("POST", f"/containers/{ID}/start", **headers)
        assert answer.status == 403
        assert "refused" in answer.json["message"]
        assert client.engine.calls == []

    scenario(play)


def test_bodies_need_the_json_content_type(scenario):
    async def play(client):
        answer = await client.ask(
            "POST", "/containers/create", b'{"Image":"a"}', Content_Type="text/plain"
        )
        assert answer.status == 400
        assert "must be 'application/json'" in answer.json["message"]
        assert client.engine.calls == []

    scenario(play)


@pytest.mark.parametrize(
    "body",
    [b'{"Image": 5}', b'{"Cmd": [1]}', b"{", b"[]", b"", b'{"HostConfig":{"Memory":"1g"}}'],
)
def test_wrong_bodies_are_the_callers_fault(scenario, body):
    async def play(client):
        answer = await client.ask(
            "POST", "/containers/create", body, Content_Type="application/json"
        )
        assert answer.status == 400
        assert answer.json["message"].startswith("invalid JSON")
        assert client.engine.calls == []

    scenario(play)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (
            "/volumes/create",
            b"{volume",
            "invalid character 'v' looking for beginning of object key",
        ),
        ("/volumes/create", b"", "got EOF while reading request body"),
        ("/exec/none/start", b"", "got EOF while reading request body"),
        ("/containers/none/exec", b"", "got EOF while reading request body"),
        ("/networks/bridge/connect", b"", "got EOF while reading request body"),
        ("/networks/bridge/disconnect", b"", "got EOF while reading request body"),
    ],
)
def test_broken_bodies_are_told_in_gos_words(scenario, path, body, words):
    async def play(client):
        answer = await client.ask("POST", path, body, Content_Type="application/json")
        assert (answer.status, words in answer.json["message"]) == (400, True)

    scenario(play)


def test_a_body_over_the_limit_is_refused_unread(scenario):
    async def play(client):
        client.writer.write(
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999\r\n\r\n"
        )
        answer = await client.answer()
        assert answer.status == 400
        assert answer.headers["connection"] == "close"

    scenario(play)


def test_a_chunked_body_over_the_limit_is_refused(scenario):
    async def play(client):
        client.writer.write(
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(5):
            client.writer.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        answer = await client.answer()
        assert answer.status == 400
        assert "larger than" in answer.json["message"]

    scenario(play)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Bad Header\r\n",
        b"X: " + b"y" * 70000 + b"\r\n",
        b"".join(b"X-%d: y\r\n" % n for n in range(200)),
    ],
)
@pytest.mark.parametrize("path", [b"/containers/c1/start", b"/containers/c1/attach?stream=1"])
def test_ambiguous_and_huge_heads_are_refused(scenario, head, path):
    async def play(client):
        client.writer.write(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n{}")
        answer = await client.head()
        assert 400 <= answer.status < 500
        assert client.engine.calls == []

    scenario(play)


def test_a_head_in_pieces_is_put_together(scenario):
    async def play(client):
        for piece in (b"GET /_pi", b"ng HTTP/1.1\r\nHo", b"st: x\r\n\r", b"\n"):
            client.writer.write(piece)
            await client.writer.drain()
            await client.another()  # a round trip, so that the pieces arrive apart
        answer = await client.answer()
        assert answer.body == b"OK"

    scenario(play)


def test_pipelined_requests_are_answered_in_order(scenario):
    async def play(client):
        await client.send("GET", "/_ping")
        await client.send("GET", "/nosuch")
        await client.send("GET", "/_ping")
        assert [(await client.answer()).status for _ in range(3)] == [200, 404, 200]

    scenario(play)


def test_a_head_that_does_not_end_is_given_up(scenario, monkeypatch):
    monkeypatch.setattr(hijack, "HEAD_SECONDS", 0.01)

    async def play(client):
        client.writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n")
        assert (await client.reader.read()).startswith(b"HTTP/1.1 431 ")

    scenario(play)


def test_a_held_body_that_does_not_end_is_given_up(scenario, monkeypatch):
    monkeypatch.setattr(hijack, "HEAD_SECONDS", 0.01)

    async def play(client):
        client.writer.write(
            b"POST /exec/x/start HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"
        )
        assert (await client.reader.read()).startswith(b"HTTP/1.1 431 ")

    scenario(play)


def test_a_stop_ends_streams_and_idle_connections(scenario):
    async def play(client):
        following = await client.another()
        await following.send("GET", "/events")
        await following.head()
        waiting = await client.another()
        await waiting.send("POST", "/containers/c1/wait")
        await waiting.head()
        idle = await client.another()
        await idle.ask("GET", "/_ping")
        await client.server.aclose(15)  # longer than the test may take
        for connection in (following, waiting, idle):
            assert await connection.reader.read() == b""
        assert client.engine.closed_streams == ["events"]
        assert client.engine.waits[0].cancelled

    scenario(play)


def test_requests_are_logged_at_debug_only(scenario, caplog):
    async def play(client):
        await client.ask("GET", "/_ping")
        caplog.set_level("DEBUG", "sampan.api")
        await client.ask("GET", "/nosuch?secret=1")

    scenario(play)
    lines = [r.getMessage() for r in caplog.records if r.name == "sampan.api"]
    assert len(lines) == 1
    assert lines[0].startswith("GET /nosuch 404 ")


def test_what_a_single_node_says(scenario):
    async def play(client):
        assert (await client.ask("GET", "/nodes")).status == 503
        assert (await client.ask("GET", "/plugins")).json == []
        assert (await client.ask("POST", "/auth", {"username": "u"})).status == 401

    scenario(play)


def test_ten_thousand_headers_are_refused(scenario):
    async def play(client):
        head = b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + b"".join(
            b"X-%d: y\r\n" % n for n in range(10_000)
        )
        client.writer.write(head + b"\r\n")
        assert 400 <= (await client.head()).status < 500
        other = await client.another()
        assert (await other.ask("GET", "/_ping")).body == b"OK"

    scenario(play)


def test_a_body_that_does_not_come_is_given_up(scenario, monkeypatch):
    monkeypatch.setattr(call, "BODY_SECONDS", 0.01)

    async def play(client):
        client.writer.write(
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        answer = await client.answer()
        assert answer.status == 500
        assert answer.json["message"] == "read the body: it did not come in time"
        assert answer.headers["connection"] == "close"

    scenario(play)


def test_an_archive_that_stops_coming_is_given_up(scenario, monkeypatch):
    monkeypatch.setattr(call, "BODY_SECONDS", 0.01)

    async def play(client):
        client.writer.write(
            b"POST /images/create?fromSrc=-&repo=a HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n"
        )
        answer = await client.answer()
        assert answer.status == 500
        assert "did not come in time" in answer.json["message"]

    scenario(play)


def test_many_slow_clients_keep_nobody_waiting(scenario, monkeypatch):
    monkeypatch.setattr(hijack, "HEAD_SECONDS", 0.3)

    async def play(client):
        slow = [await client.another() for _ in range(200)]
        for one in slow:
            one.writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\nX-")
        assert (await client.ask("GET", "/_ping")).body == b"OK"
        for one in slow:
            assert (await one.reader.read()).startswith(b"HTTP/1.1 431 ")

    scenario(play)
