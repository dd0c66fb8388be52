"""Answers that go on: wait, logs, events, stats, pull: heads that come first, clean ends."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import pytest

from sampan.api.docker import logs
from sampan.engine import model
from sampan.errors import ContainerNotFound, ImageNotFound
from sampan.images.progress import Progress
from sampan.registry.credentials import Credentials

SECOND = 1_000_000_000


async def until(condition):
    """Let the loop run until something is so."""
    while not condition():  # noqa: ASYNC110 - conditions are of many kinds
        await asyncio.sleep(0)


def test_wait_sends_its_head_before_anything_ends(scenario):
    async def play(client):
        await client.send("POST", "/containers/c1/wait?condition=next-exit")
        head = await client.head()
        assert (head.status, head.headers["transfer-encoding"]) == (200, "chunked")
        waiting = client.engine.waits[0]
        assert client.engine.calls == [("arm_wait", ("c1", model.WaitCondition.NEXT_EXIT), {})]
        waiting.future.set_result(model.WaitResult(exit_code=7))
        assert json.loads(await client.chunk()) == {"StatusCode": 7}
        assert await client.chunk() == b""
        assert waiting.cancelled  # forgotten, not leaked

    scenario(play)


def test_wait_leaves_the_reason_of_a_failed_start_to_start(scenario):
    async def play(client):
        await client.send("POST", "/containers/c1/wait")
        await client.head()
        client.engine.waits[0].future.set_result(model.WaitResult(exit_code=127, error="no such"))
        assert json.loads(await client.chunk()) == {"StatusCode": 127}

    scenario(play)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/containers/nosuch/wait", 404), ("/containers/c1/wait?condition=tomorrow", 400)],
)
def test_wait_fails_at_once(scenario, path, status):
    async def play(client):
        assert (await client.ask("POST", path)).status == status

    scenario(play)


def test_a_wait_whose_client_goes_is_forgotten(scenario):
    async def play(client):
        other = await client.another()
        await other.send("POST", "/containers/c1/wait")
        await other.head()
        other.writer.close()
        await until(lambda: client.engine.waits[0].cancelled)
        assert (await client.ask("GET", "/_ping")).body == b"OK"

    scenario(play)


LOG = [
    model.LogRecord("stdout", 1_795_404_802_000_000_000, b"out\n"),
    model.LogRecord("stderr", 1_795_404_802_500_000_000, b"err\n"),
]


def test_logs_come_in_frames(scenario):
    async def play(client):
        client.engine.log = LOG
        answer = await client.ask("GET", "/containers/c1/logs?stdout=1&stderr=true&tail=5&since=3")
        assert answer.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
        assert answer.body == b"\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\4err\n"
        assert client.engine.calls[0][1][1] == model.LogQuery(
            stdout=True, stderr=True, tail=5, since=3 * SECOND
        )

    scenario(play)


def test_dockers_own_command_gets_frames_of_many_lines(scenario):
    async def play(client):
        client.engine.log = [LOG[0], LOG[0], LOG[1], LOG[1], LOG[0]]
        path = "/containers/c1/logs?stdout=1&stderr=1"
        answer = await client.ask("GET", path, User_Agent="Docker-Client/28.2.2 (linux)")
        assert answer.body == (
            b"\1\0\0\0\0\0\0\10out\nout\n\2\0\0\0\0\0\0\10err\nerr\n\1\0\0\0\0\0\0\4out\n"
        )
        answer = await client.ask("GET", path, User_Agent="aiodocker")
        assert answer.body.count(b"\0\4out\n") == 3  # programs take a frame for a line

    scenario(play)


def test_logs_of_a_terminal_are_raw_and_may_have_times(scenario, make_container):
    async def play(client):
        config = model.ContainerConfig(image="a", tty=True)
        client.engine.containers = {"x": make_container(config=config)}
        client.engine.log = LOG
        answer = await client.ask("GET", "/containers/c1/logs?stdout=1&timestamps=1&tail=all")
        assert answer.headers["content-type"] == "application/vnd.docker.raw-stream"
        assert answer.body == (
            b"2026-11-23T03:33:22.000000000Z out\n2026-11-23T03:33:22.500000000Z err\n"
        )

    scenario(play)


def test_logs_need_a_stream(scenario):
    async def play(client):
        answer = await client.ask("GET", "/containers/c1/logs")
        assert answer.status == 400
        assert answer.json["message"] == "Bad parameters: you must choose at least one stream"

    scenario(play)


def test_following_ends_when_the_client_goes(scenario):
    async def play(client):
        other = await client.another()
        await other.send("GET", "/containers/c1/logs?stdout=1&follow=1")
        await other.head()
        await client.engine.feed.put(LOG[0])
        assert await other.chunk() == b"\1\0\0\0\0\0\0\4out\n"
        other.writer.close()
        await until(lambda: client.engine.closed_streams == ["logs"])

    scenario(play)


def test_events_are_lines(scenario):
    async def play(client):
        other = await client.another()
        filters = '{"type":{"container":true},"event":["die"]}'.replace('"', "%22")
        await other.send("GET", f"/v1.51/events?since=1.5&filters={filters}")
        await other.head()
        assert client.engine.calls == [
            ("events", (1_500_000_000, None, {"type": ["container"], "event": ["die"]}), {})
        ]
        await client.engine.feed.put(
            model.Event(
                id=1,
                time_ns=1_795_404_885_747_547_589,
                type="container",
                action="start",
                actor_id="db33",
                attributes={"image": "alpine:3.10", "name": "c-it"},
            )
        )
        line = await other.chunk()
        assert line.endswith(b"}\n")
        assert json.loads(line) == {
            "status": "start",
            "id": "db33",
            "from": "alpine:3.10",
            "Type": "container",
            "Action": "start",
            "Actor": {"ID": "db33", "Attributes": {"image": "alpine:3.10", "name": "c-it"}},
            "scope": "local",
            "time": 1795404885,
            "timeNano": 1795404885747547589,
        }
        other.writer.close()
        await until(lambda: client.engine.closed_streams == ["events"])

    scenario(play)


def reading(second, cpu):
    return model.Stats(
        id="i",
        name="c1",
        time_ns=second * SECOND,
        cpu_total_ns=cpu,
        host_cpu_ns=10 * cpu,
        online_cpus=2,
        memory_usage=5,
        memory_limit=100,
        memory_stats={"rss": 4},
        pids_current=2,
    )


def test_one_sample_has_two_readings(scenario, monkeypatch):
    monkeypatch.setattr("sampan.api.docker.containers.STATS_SECONDS", 0)

    async def play(client):
        client.engine.readings = [reading(1, 10), reading(2, 30)]
        sample = (await client.ask("GET", "/containers/c1/stats?stream=0")).json
        assert sample["precpu_stats"]["cpu_usage"]["total_usage"] == 10
        assert sample["cpu_stats"]["cpu_usage"]["total_usage"] == 30
        assert sample["cpu_stats"]["system_cpu_usage"] == 300
        assert (sample["preread"], sample["read"]) == (
            "1970-01-01T00:00:01Z",
            "1970-01-01T00:00:02Z",
        )
        assert sample["memory_stats"] == {"usage": 5, "stats": {"rss": 4}, "limit": 100}
        assert sample["name"] == "/c1"

    scenario(play)


def test_a_stream_of_samples_goes_on(scenario, monkeypatch):
    monkeypatch.setattr("sampan.api.docker.containers.STATS_SECONDS", 0)

    async def play(client):
        client.engine.readings = [reading(n, n) for n in range(1, 4)]
        await client.send("GET", "/containers/c1/stats")
        await client.head()
        samples = [json.loads(await client.chunk()) for _ in range(3)]
        assert [s["cpu_stats"]["cpu_usage"]["total_usage"] for s in samples] == [1, 2, 3]
        assert [s["precpu_stats"]["cpu_usage"]["total_usage"] for s in samples] == [0, 1, 2]

    scenario(play)


DOWNLOADING = (
    b'{"status":"Downloading","progressDetail":{"current":36445,"total":1069832},'
    b'"progress":"[=>                                                 ]  36.45kB/1.07MB",'
    b'"id":"1699aa69a98a"}'
)


def test_a_pull_streams_its_steps(scenario):
    async def play(client):
        client.engine.pull_steps = [
            Progress("latest", "Pulling from library/busybox"),
            Progress("1699aa69a98a", "Pulling fs layer"),
            Progress("1699aa69a98a", "Downloading", 36445, 1069832),
            Progress("", "Status: Downloaded newer image for busybox:latest"),
        ]
        header = base64.urlsafe_b64encode(b'{"username":"u","password":"p"}').decode()
        answer = await client.ask(
            "POST",
            "/images/create?fromImage=docker.io%2Flibrary%2Fbusybox&tag=latest",
            X_Registry_Auth=header,
        )
        assert answer.body.split(b"\r\n") == [
            b'{"status":"Pulling from library/busybox","id":"latest"}',
            b'{"status":"Pulling fs layer","progressDetail":{},"id":"1699aa69a98a"}',
            DOWNLOADING,
            b'{"status":"Status: Downloaded newer image for busybox:latest"}',
            b"",
        ]
        assert client.engine.calls[0][1] == ("docker.io/library/busybox:latest",)
        assert client.engine.calls[0][2]["auth"] == Credentials(username="u", password="p")

    scenario(play)


def test_a_pull_by_digest(scenario):
    async def play(client):
        await client.ask("POST", "/images/create?fromImage=busybox&tag=sha256:abc")
        assert client.engine.calls[0][1] == ("busybox@sha256:abc",)

    scenario(play)


def test_a_pull_that_fails_at_once_is_an_error(scenario):
    async def play(client):
        client.engine.pull_error = ImageNotFound("pull nosuch: not found")
        answer = await client.ask("POST", "/images/create?fromImage=nosuch&tag=latest")
        assert (answer.status, answer.json) == (404, {"message": "pull nosuch: not found"})

    scenario(play)


def test_a_pull_that_fails_later_ends_the_stream_with_it(scenario):
    async def play(client):
        client.engine.pull_steps = [Progress("x", "Pulling from y")]
        client.engine.pull_error = ImageNotFound("layer is gone")
        answer = await client.ask("POST", "/images/create?fromImage=a&tag=b")
        assert answer.status == 200
        assert json.loads(answer.body.split(b"\r\n")[-2]) == {
            "errorDetail": {"message": "layer is gone"},
            "error": "layer is gone",
        }

    scenario(play)


def test_a_pull_is_cancelled_when_the_client_goes(scenario):
    async def play(client):
        client.engine.pull_steps = [Progress("x", "Pulling from y")]
        client.engine.follow = True
        other = await client.another()
        await other.send("POST", "/images/create?fromImage=a&tag=b")
        await other.head()
        other.writer.close()
        await until(lambda: client.engine.closed_streams == ["pull"])

    scenario(play)


def test_an_import_reads_the_body(scenario):
    async def play(client):
        content = b"x" * 300_000
        answer = await client.ask(
            "POST",
            "/images/create?fromSrc=-&repo=imp&tag=1&message=hello&changes=CMD+%5B%22sh%22%5D",
            content,
        )
        assert answer.status == 200
        assert answer.body == b'{"status":"sha256:8b"}\r\n'
        assert client.engine.imported == (content, "imp:1", ['CMD ["sh"]'], "hello")

    scenario(play)


def test_an_import_that_breaks_off_makes_nothing(scenario):
    async def play(client):
        other = await client.another()
        other.writer.write(
            b"POST /images/create?fromSrc=-&repo=a HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 1000\r\n\r\nhalf"
        )
        await other.writer.drain()
        other.writer.close()
        assert (await client.ask("GET", "/_ping")).body == b"OK"
        assert client.engine.imported is None

    scenario(play)


def test_a_wait_on_a_container_that_goes_away(scenario):
    async def play(client):
        await client.send("POST", "/containers/c1/wait?condition=removed")
        await client.head()
        client.engine.waits[0].future.set_exception(ContainerNotFound("No such container: c1"))
        assert json.loads(await client.chunk()) == {
            "Error": {"Message": "No such container: c1"},
            "StatusCode": -1,
        }

    scenario(play)


def test_a_log_behind_a_start_waits_for_the_first_words(scenario, make_container, monkeypatch):
    """Clients ask for it at once; dockerd's start takes longer than many a command."""
    monkeypatch.setattr(logs, "SETTLE_SECONDS", 60)

    async def play(client):
        began = model.State(status=model.Status.RUNNING, pid=1, started_at=time.time_ns())
        client.engine.containers = {"x": make_container(state=began)}
        client.engine.log = [model.LogRecord("stdout", 1, b"words\n")]
        await client.send("GET", "/containers/c1/logs?stdout=1")
        await until(lambda: client.engine.waits)
        assert not [call for call in client.engine.calls if call[0] == "logs"]
        client.engine.waits[0].future.set_result(model.WaitResult(exit_code=0))
        assert (await client.answer()).body.endswith(b"words\n")
        assert client.engine.waits[0].cancelled

    scenario(play)


def test_an_older_container_is_not_waited_for(scenario):
    async def play(client):
        await client.ask("GET", "/containers/c1/logs?stdout=1")
        assert client.engine.waits == []

    scenario(play)
