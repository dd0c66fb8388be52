"""Both clients against a scripted daemon: connections, refusals, upgrades, broken peers."""

from __future__ import annotations

import asyncio

import pytest

from sampan import errors
from sampan.client import calls, flows
from sampan.client.aio import AsyncClient, AsyncDriver
from sampan.client.engine import Driver
from sampan.client.failures import error_for
from sampan.client.options import container_body
from sampan.client.sync import Client
from unit.client.fake_daemon import FakeDaemon, answer, frame, upgraded


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(tmp_path) as fake:
        yield fake


def blocking(daemon, flow):
    client = Client(daemon.path, error_for)
    try:
        return Driver(client).drive(flow)
    finally:
        client.close()


def awaited(daemon, flow):
    async def drive():
        client = AsyncClient(daemon.path, error_for)
        try:
            return await AsyncDriver(client).drive(flow)
        finally:
            client.close()
            await asyncio.sleep(0)

    return asyncio.run(drive())


both = pytest.mark.parametrize("drive", [blocking, awaited])


def once(call):
    return (yield call)


@both
def test_document(daemon, drive):
    daemon.on("GET", "/info", answer({"Name": "box"}))
    assert drive(daemon, once(calls.info())) == {"Name": "box"}


@both
@pytest.mark.parametrize(
    ("call", "status", "kind"),
    [
        (calls.start("c"), "404 Not Found", errors.ContainerNotFound),
        (calls.create({}), "404 Not Found", errors.ImageNotFound),
        (calls.create({}, "n"), "409 Conflict", errors.NameInUse),
        (calls.remove("c"), "409 Conflict", errors.Conflict),
        (calls.image_inspect("i"), "404 Not Found", errors.ImageNotFound),
        (calls.rename("c", "n"), "400 Bad Request", errors.InvalidArgument),
        (calls.info(), "503 Service Unavailable", errors.Unavailable),
        (calls.info(), "500 Internal Server Error", errors.Internal),
    ],
)
def test_refusal_is_an_error_of_ours_with_its_sentence(daemon, drive, call, status, kind):
    daemon.on(call.method, "/", answer({"message": "as the daemon says"}, status))
    with pytest.raises(kind, match=r"^as the daemon says$") as caught:
        drive(daemon, once(call))
    assert type(caught.value) is kind


@both
@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ('exec: "/x": permission denied', 126),
        ("mount /x: invalid argument", 125),
    ],
)
def test_failed_start_has_the_code_of_the_shell(daemon, drive, message, code):
    daemon.on("POST", "/containers/c/start", answer({"message": message}, "400 Bad Request"))
    with pytest.raises(errors.StartFailed) as caught:
        drive(daemon, once(calls.start("c")))
    assert caught.value.exit_code == code


@both
def test_already_started_is_no_error(daemon, drive):
    daemon.on("POST", "/containers/c/start", answer(None, "304 Not Modified"))
    assert drive(daemon, once(calls.start("c"))) is None


@both
def test_peer_that_hangs_up_is_unavailable(daemon, drive):
    daemon.on("GET", "/info", lambda connection: connection.shutdown(2))
    with pytest.raises(errors.Unavailable):
        drive(daemon, once(calls.info()))


def test_connection_is_used_again(daemon):
    daemon.on("GET", "/info", answer({}))
    with Client(daemon.path, error_for) as client:
        for _ in range(3):
            client.call(calls.info())
    assert daemon.connections == 1


def test_connection_closed_while_idle_is_replaced(daemon):
    def close_after(connection):
        connection.sendall(answer({"n": daemon.connections}))
        connection.shutdown(2)

    daemon.on("GET", "/info", close_after)
    with Client(daemon.path, error_for) as client:
        assert client.call(calls.info()) == {"n": 1}
        assert client.call(calls.info()) == {"n": 2}


OUTPUT = frame(1, b"out\n") + frame(2, b"err\n")


def test_answer_closed_after_its_end_leaves_the_connection_alone(daemon):
    daemon.on("GET", "/info", answer({"n": 1}))
    with Client(daemon.path, error_for) as client:
        opened = client.open(calls.info())
        assert opened.document() == {"n": 1}
        opened.close()
        assert client.call(calls.info()) == {"n": 1}
    assert daemon.connections == 1


def run_script(daemon, *, code=0, output=OUTPUT):
    daemon.on("POST", "/containers/create", answer({"Id": "c" * 64}, "201 Created"))
    daemon.on("POST", f"/containers/{'c' * 64}/wait", answer({"StatusCode": code}))
    daemon.on("POST", f"/containers/{'c' * 64}/attach", upgraded(output))
    daemon.on("POST", f"/containers/{'c' * 64}/start", answer(None, "204 No Content"))
    daemon.on("DELETE", f"/containers/{'c' * 64}", answer(None, "204 No Content"))


def run_flow(data=None, timeout=None, **options):
    options.setdefault("remove", True)
    return flows.run(container_body("i", None, ["x"], options), options, data, timeout)


@both
def test_run_gives_code_and_output(daemon, drive):
    run_script(daemon, code=3)
    result = drive(daemon, run_flow())
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    verbs = [call.rpartition("/")[2].partition("?")[0] for call in daemon.calls]
    assert verbs == ["create", "wait", "attach", "start"]  # no exit can be missed in this order


@both
def test_run_sends_input_and_ends_it(daemon, drive):
    run_script(daemon)

    def echo(connection):
        connection.sendall(upgraded(b""))
        received = b""
        while data := connection.recv(65536):
            received += data
        connection.sendall(frame(1, received[::-1]))
        connection.shutdown(2)

    daemon.script.insert(0, ("POST", f"/containers/{'c' * 64}/attach", echo))
    data = bytes(range(256)) * 4000
    assert drive(daemon, run_flow(data)).stdout == data[::-1]
    assert daemon.body_of("POST", "/containers/create")["StdinOnce"] is True


@both
def test_run_pulls_what_is_missing(daemon, drive):
    missing = [answer({"message": "No such image: i:latest"}, "404 Not Found")]

    def create(connection):
        reply = missing.pop() if missing else answer({"Id": "c" * 64}, "201 Created")
        connection.sendall(reply)
        return True

    daemon.on("POST", "/containers/create", create)
    daemon.on("POST", "/images/create", answer('{"status":"Pull complete","id":"l"}\r\n'))
    run_script(daemon)
    assert drive(daemon, run_flow()).exit_code == 0
    assert "POST /images/create?fromImage=i&tag=latest" in daemon.calls


@both
def test_failed_pull_says_why(daemon, drive):
    line = '{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}\r\n'
    daemon.on("POST", "/images/create", answer(line))
    with pytest.raises(errors.Unavailable, match="unexpected EOF"):
        drive(daemon, flows.pull(calls.pull("i"), "i", None))


@both
def test_run_that_cannot_start_is_undone(daemon, drive):
    run_script(daemon)
    failure = answer({"message": 'exec: "x": executable file not found'}, "400 Bad Request")
    daemon.script.insert(0, ("POST", f"/containers/{'c' * 64}/start", failure))
    with pytest.raises(errors.StartFailed):
        drive(daemon, run_flow())
    assert daemon.calls[-1] == f"DELETE /containers/{'c' * 64}?force=1"


@both
def test_run_that_takes_too_long_is_killed(daemon, drive):
    run_script(daemon)

    def silent(connection):
        connection.sendall(upgraded(b""))
        return connection.recv(1) != b""

    daemon.script.insert(0, ("POST", f"/containers/{'c' * 64}/attach", silent))
    with pytest.raises(errors.DeadlineExceeded):
        drive(daemon, run_flow(timeout=0.05))
    assert daemon.calls[-1] == f"DELETE /containers/{'c' * 64}?force=1"


@both
def test_exec_gives_code_and_output(daemon, drive):
    from sampan.client.options import exec_body

    daemon.on("POST", "/containers/c/exec", answer({"Id": "e1"}, "201 Created"))
    daemon.on("POST", "/exec/e1/start", upgraded(frame(1, b"hi\n")))
    daemon.on("GET", "/exec/e1/json", answer({"ExitCode": 7, "Running": False}))
    result = drive(daemon, flows.execute("c", exec_body(["x"], stdin=False), None, None))
    assert (result.exit_code, result.text) == (7, "hi\n")


@both
def test_import_sends_the_tar_in_pieces(daemon, drive):
    daemon.on("POST", "/images/create", answer({"status": "sha256:1"}))
    daemon.on("GET", "/images/n:1/json", answer({"Id": "sha256:1", "RepoTags": ["n:1"]}))
    call = calls.import_image([b"tar", b"", b"ball"], "n:1")
    assert drive(daemon, flows.import_image(call, "n:1")).names == ("n:1",)
    assert daemon.requests[0][2] == b"tarball"
