"""Commands print what docker's client printed for the same answers of a daemon."""

from __future__ import annotations

import json
import time

import pytest

from sampan.cli import units
from sampan.cli.__main__ import main
from unit.client.fake_daemon import FakeDaemon, answer, frame, upgraded

NOW = 1795416000.0


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    time.tzset()
    monkeypatch.setattr(units.time, "time", lambda: NOW)
    with FakeDaemon(tmp_path) as fake:
        yield fake


@pytest.fixture
def sampan(daemon, capfd):
    def run(*words):
        code = main(["-H", f"unix://{daemon.path}", *words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def lines(text):
    return [line.rstrip() for line in text.strip("\n").split("\n")]


def test_ps(daemon, sampan):
    daemon.replay("ps")
    code, out, err = sampan("ps")
    ports = "0.0.0.0:32768->99/tcp, [::]:32768->99/tcp"
    more = "0.0.0.0:18080->80/tcp, [::]:18080->80/tcp, 127.0.0.1:18081->81/udp"
    head = "CONTAINER ID   IMAGE         COMMAND                  CREATED       "
    assert (code, err) == (0, "")
    assert lines(out) == [
        f"{head}STATUS                    {'PORTS':<69}NAMES",
        (
            f'5836dc92872c   alpine:3.10   "sleep 1000"             3 hours ago   '
            f"Up 12 seconds (healthy)   {'':<69}c-h"
        ),
        (
            f'9fbc707cfc2f   alpine:3.10   "sleep 1000"             3 hours ago   '
            f"Up 15 seconds             {ports:<69}c-PP"
        ),
        (
            f'd5609af399f2   alpine:3.10   "httpd -f -p 80 -h /"    3 hours ago   '
            f"Up 15 seconds             {more:<69}c-p"
        ),
        (
            f'a06b45320ac2   alpine:3.10   "sh -c \'i=0; while t…"   3 hours ago   '
            f"Up 3 seconds              {'':<69}c1"
        ),
    ]


def test_ps_quiet_and_formats(daemon, sampan):
    daemon.replay("ps")
    assert lines(sampan("ps", "-q")[1])[0] == "5836dc92872c"
    assert lines(sampan("ps", "--format", "{{.ID}} {{.Names | upper}}")[1])[3] == "a06b45320ac2 C1"
    table = lines(sampan("ps", "--format", r"table {{.ID}}\t{{.State}}")[1])
    assert table[:2] == ["CONTAINER ID   STATE", "5836dc92872c   running"]
    row = json.loads(lines(sampan("ps", "--format", "json")[1])[3])
    assert (row["Labels"], row["CreatedAt"]) == ("k=v", "2026-11-23 03:33:22 +0000 UTC")
    code, _, err = sampan("ps", "--format", "{{.Nope}}")
    assert code == 1
    assert err.startswith("failed to execute template: ")


def test_images(daemon, sampan):
    daemon.replay("images-a")
    assert lines(sampan("images")[1]) == [
        "REPOSITORY   TAG       IMAGE ID       CREATED       SIZE",
        "alpine       3.10      645cf33e0c0a   3 hours ago   1.98MB",
        "busybox      latest    8b5697f77959   3 hours ago   1.98MB",
    ]
    assert "sha256:e326abad1b82" in sampan("images", "--digests")[1]


def test_stats(daemon, sampan):
    daemon.replay("stats")
    code, out, _ = sampan("stats", "--no-stream", "c1")
    assert code == 0
    assert lines(out) == [
        (
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O       "
            "BLOCK I/O   PIDS"
        ),
        (
            "a06b45320ac2   c1        0.12%     792KiB / 100MiB     0.77%     964B / 126B   "
            "0B / 0B     2"
        ),
    ]


def test_history(daemon, sampan):
    daemon.replay("image-history")
    assert lines(sampan("history", "alpine:3.10")[1]) == [
        "IMAGE          CREATED       CREATED BY   SIZE      COMMENT",
        "645cf33e0c0a   3 hours ago                1.98MB    Imported from -",
    ]


def test_events(daemon, sampan):
    daemon.replay("events")
    first = lines(sampan("events", "--since", "1795404839", "--until", "1795404899")[1])[0]
    assert first.startswith(
        "2026-11-23T03:33:59.096046416Z container exec_create: /bin/sh -c test -e /tmp 5836dc92872c"
    )
    assert first.endswith("image=alpine:3.10, name=c-h)")


def test_events_by_a_template_that_asks_for_too_much(daemon, sampan):
    daemon.replay("events")
    layout = "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}"
    words = ("--since", "1795404839", "--until", "1795404899", "--format", layout)
    first = lines(sampan("events", *words)[1])[0]
    assert first == "exec_create: /bin/sh -c test -e /tmp c-h <no value>"


def test_top(daemon, sampan):
    daemon.replay("top")
    rows = lines(sampan("top", "c1")[1])
    assert rows[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert rows[1].startswith("root                13776               27845               1")


def test_pull_off_a_terminal(daemon, sampan):
    daemon.replay("pull")
    code, out, _ = sampan("pull", "busybox")
    assert code == 0
    assert lines(out) == [
        "Using default tag: latest",
        "latest: Pulling from library/busybox",
        "1699aa69a98a: Pulling fs layer",
        "1699aa69a98a: Verifying Checksum",
        "1699aa69a98a: Download complete",
        "1699aa69a98a: Pull complete",
        "Digest: sha256:dc22052a01ee3629d973aff5c0e6374698978aea9047e88aabd1fdc4f18d2fec",
        "Status: Downloaded newer image for busybox:latest",
        "docker.io/library/busybox:latest",
    ]
    assert sampan("pull", "-q", "busybox")[1] == "docker.io/library/busybox:latest\n"


def test_pull_that_fails_in_the_middle(daemon, sampan):
    text = (
        '{"status":"Pulling"}\r\n{"errorDetail":{"message":"bad digest"},"error":"bad digest"}\r\n'
    )
    daemon.on("POST", "/images/create", answer(text))
    code, _, err = sampan("pull", "x:1")
    assert (code, err) == (1, "bad digest\n")


def test_pull_of_a_name_no_registry_has(sampan):
    code, _, err = sampan("pull", "UPPER")
    assert code == 1
    assert err == ("invalid reference format: repository name (library/UPPER) must be lowercase\n")


def test_rmi(daemon, sampan):
    daemon.replay("image-rm")
    code, out, _ = sampan("rmi", "127.0.0.1:5000/t/alpine:x")
    assert code == 0
    assert lines(out)[0] == "Untagged: 127.0.0.1:5000/t/alpine:x"


def test_import_reads_a_file_or_standard_input(daemon, sampan, tmp_path):
    daemon.on("POST", "/images/create", answer({"status": "sha256:1"}))
    (tmp_path / "root.tar").write_bytes(b"tarball")
    assert sampan("import", str(tmp_path / "root.tar"), "n:1") == (0, "sha256:1\n", "")
    assert daemon.requests[0][1:] == ("/images/create?fromSrc=-&repo=n%3A1", b"tarball")
    code, _, err = sampan("import", "/nope", "n")
    assert (code, err) == (1, "open /nope: no such file or directory\n")


def test_prune(daemon, sampan):
    daemon.replay("container-prune")
    out = sampan("container", "prune", "-f")[1]
    assert lines(out)[0] == "Deleted Containers:"
    assert lines(out)[-2:] == ["", "Total reclaimed space: 3B"]


def test_version_of_the_client_needs_no_daemon(capfd):
    assert main(["-H", "unix:///nope", "version", "--format", "{{.Client.Version}}"]) == 0
    assert capfd.readouterr().out == "0.1.0\n"


def test_version_shows_both_sides(daemon, sampan):
    daemon.replay("version")
    out = sampan("version")[1]
    assert " API version:       1.50" in out
    assert "  API version:      1.50 (minimum version 1.24)" in out
    assert json.loads(sampan("version", "--format", "json")[1])["Server"]["Version"] == "28.2.2"


def test_logs_keep_their_streams(daemon, sampan):
    daemon.on("GET", "/containers/c/json", answer({"Id": "cc", "Config": {"Tty": False}}))
    log = (frame(1, b"out\n") + frame(2, b"err\n")).decode("latin-1")
    daemon.on("GET", "/containers/cc/logs", answer(log, kind="application/octet-stream"))
    assert sampan("logs", "--tail", "5", "-t", "c") == (0, "out\n", "err\n")
    assert daemon.calls[-1] == ("GET /containers/cc/logs?stderr=1&stdout=1&tail=5&timestamps=1")


def test_run_is_dockers_order(daemon, sampan):
    daemon.replay("run-rm")
    words = ("--rm", "alpine:3.10", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert sampan("run", *words) == (3, "out\n", "err\n")
    verbs = [call.rpartition("/")[2] for call in daemon.calls]
    assert verbs == [
        "create",
        "wait?condition=removed",
        "attach?stderr=1&stdout=1&stream=1",
        "start",
    ]


def test_run_sends_what_docker_sends(daemon, sampan):
    """Every field that we send, docker sends too, with the same value."""
    daemon.replay("run-rm")
    sampan("run", "--rm", "alpine:3.10", "sh", "-c", "echo out; echo err >&2; exit 3")
    ours = daemon.body_of("POST", "/containers/create")
    path = daemon_recording("run-rm")
    theirs = path[0]["request"]["body"]
    assert {key: theirs[key] for key in ours if key != "HostConfig"} == {
        key: value for key, value in ours.items() if key != "HostConfig"
    }
    assert ours["HostConfig"].items() <= theirs["HostConfig"].items()


def daemon_recording(name):
    from unit.client.fake_daemon import RECORDINGS

    return json.loads((RECORDINGS / f"{name}.json").read_text())


def test_run_of_a_command_that_is_not_there(daemon, sampan):
    daemon.replay("run-notfound")
    code, out, err = sampan("run", "--rm", "alpine:3.10", "nosuchcmd")
    assert (code, out) == (127, "")
    assert err.startswith("sampan: Error response from daemon: ")
    assert err.endswith("\n\nRun 'sampan run --help' for more information\n")


def test_run_pulls_what_is_missing(daemon, sampan):
    refusals = [answer({"message": "No such image: hello-world:latest"}, "404 Not Found")]
    created = answer({"Id": "c" * 64, "Warnings": ["careful"]}, "201 Created")

    def create(connection):
        connection.sendall(refusals.pop() if refusals else created)
        return True

    daemon.on("POST", "/containers/create", create)
    daemon.replay("pull")
    daemon.on("POST", f"/containers/{'c' * 64}/wait", answer({"StatusCode": 0}))
    daemon.on("POST", f"/containers/{'c' * 64}/attach", upgraded(b""))
    daemon.on("POST", f"/containers/{'c' * 64}/start", answer(None, "204 No Content"))
    code, out, err = sampan("run", "hello-world")
    assert (code, out) == (0, "")
    assert lines(err)[0] == "Unable to find image 'hello-world:latest' locally"
    assert lines(err)[-1] == "WARNING: careful"


def test_run_detached_prints_the_id(daemon, sampan, tmp_path):
    daemon.on("POST", "/containers/create", answer({"Id": "c" * 64}, "201 Created"))
    daemon.on("POST", f"/containers/{'c' * 64}/start", answer(None, "204 No Content"))
    cidfile = str(tmp_path / "cid")
    assert sampan("run", "-d", "--cidfile", cidfile, "i") == (0, "c" * 64 + "\n", "")
    with open(cidfile, encoding="ascii") as file:
        assert file.read() == "c" * 64
    code, _, err = sampan("run", "-d", "--cidfile", cidfile, "i")
    assert code == 125
    assert "container ID file found" in err


def test_wait_that_fails_is_ours(daemon, sampan):
    daemon.on("POST", "/containers/create", answer({"Id": "c"}, "201 Created"))
    failure = {"StatusCode": -1, "Error": {"Message": "shim is gone"}}
    daemon.on("POST", "/containers/c/wait", answer(failure))
    daemon.on("POST", "/containers/c/attach", upgraded(b""))
    daemon.on("POST", "/containers/c/start", answer(None, "204 No Content"))
    code, _, err = sampan("run", "i")
    assert code == 125
    assert "error waiting for container: shim is gone" in err


def test_exec_ends_with_the_code_of_the_process(daemon, sampan):
    daemon.replay("exec-rc")
    code, _, err = sampan("exec", "c1", "sh", "-c", "exit 5")
    assert (code, err) == (5, "")


def test_start_attached(daemon, sampan):
    daemon.replay("start-a")
    assert sampan("start", "-a", "c-att") == (0, "hello\n", "")


@pytest.mark.parametrize("verb", ["stop", "kill", "restart", "pause", "unpause", "start"])
def test_verbs_name_what_they_did(daemon, sampan, verb):
    daemon.on("POST", f"/containers/a/{verb}", answer(None, "204 No Content"))
    missing = answer({"message": "No such container: b"}, "404 Not Found")
    daemon.on("POST", f"/containers/b/{verb}", missing)
    code, out, err = sampan(verb, "a", "b")
    assert (code, out) == (1, "a\n")
    assert lines(err)[0] == "Error response from daemon: No such container: b"


def test_stop_of_a_stopped_container_is_no_error(daemon, sampan):
    daemon.on("POST", "/containers/a/stop", answer(None, "304 Not Modified"))
    assert sampan("stop", "-t", "0", "a") == (0, "a\n", "")
    assert daemon.calls == ["POST /containers/a/stop?t=0"]


def test_rm(daemon, sampan):
    daemon.replay("rm-running")
    code, out, err = sampan("rm", "c1")
    assert (code, out) == (1, "")
    assert err.startswith('Error response from daemon: cannot remove container "c1": container is')
    daemon.on("DELETE", "/containers/n", answer({"message": "No such"}, "404 Not Found"))
    assert sampan("rm", "-f", "n")[0] == 0


def test_inspect(daemon, sampan):
    daemon.on("GET", "/containers/c/json", answer({"Id": "1", "State": {"Status": "up"}, "L": []}))
    daemon.on("GET", "/images/i/json", answer({"Id": "2"}))
    assert json.loads(sampan("inspect", "c", "i")[1])[1] == {"Id": "2"}
    assert sampan("inspect", "-f", "{{.State.Status}}", "c") == (0, "up\n", "")
    assert sampan("inspect", "--type", "image", "c") == (
        1, "[]\n", "Error response from daemon: page not found: /images/c/json\n",
    )  # fmt: skip
    assert sampan("inspect", "nope") == (1, "[]\n", "Error: No such object: nope\n")
    code, _, err = sampan("inspect", "-f", "{{.Nope}}", "c")
    assert code == 1
    assert 'map has no entry for key "Nope"' in err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (
            ["run", "--x"],
            125,
            (
                "unknown flag: --x\n\nUsage:  sampan run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n"
                "Run 'sampan run --help' for more information\n"
            ),
        ),
        (
            ["run"],
            1,
            (
                "sampan: 'sampan run' requires at least 1 argument\n\n"
                "Usage:  sampan run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n"
                "See 'sampan run --help' for more information\n"
            ),
        ),
        (
            ["ps", "extra"],
            1,
            (
                "sampan: 'sampan ps' accepts no arguments\n\nUsage:  sampan ps [OPTIONS]\n\n"
                "Run 'sampan ps --help' for more information\n"
            ),
        ),
        (
            ["rename", "a"],
            1,
            (
                "sampan: 'sampan rename' requires 2 arguments\n\n"
                "Usage:  sampan rename CONTAINER NEW_NAME\n\n"
                "Run 'sampan rename --help' for more information\n"
            ),
        ),
        (
            ["nosuch"],
            1,
            "sampan: unknown command: sampan nosuch\n\nRun 'sampan --help' for more information\n",
        ),
        (
            ["container", "nosuch"],
            1,
            (
                "sampan: unknown command: sampan container nosuch\n\n"
                "Usage:  sampan container\n\nRun 'sampan container --help' for more information\n"
            ),
        ),
        (
            ["run", "--pull", "foo", "img"],
            125,
            (
                'sampan: invalid pull option: \'foo\': must be one of "always", "missing" or '
                "\"never\"\n\nRun 'sampan run --help' for more information\n"
            ),
        ),
        (
            ["run", "-a", "stdin", "-d", "img"],
            1,
            "conflicting options: cannot specify both --attach and --detach\n",
        ),
        (
            ["ps"],
            1,
            "Cannot connect to the Sampan daemon at unix:///nope. Is the sampan daemon running?\n",
        ),
        (
            ["run", "img"],
            125,
            (
                "sampan: Cannot connect to the Sampan daemon at unix:///nope. "
                "Is the sampan daemon running?\n\nRun 'sampan run --help' for more information\n"
            ),
        ),
    ],
)
def test_errors_are_dockers_sentences(capfd, words, code, text):
    assert main(["-H", "unix:///nope", *words]) == code
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", text)


@pytest.mark.parametrize("words", [[], ["--help"], ["help"], ["container"], ["system", "--help"]])
def test_help_lists_commands(capfd, words):
    assert main(words) == 0
    assert "Usage:  sampan" in capfd.readouterr().out


def test_every_command_has_help(capfd):
    from sampan.cli.catalog import COMMANDS, GROUPS

    for name in COMMANDS:
        if name in ("df", "daemon"):
            continue
        assert main([name, "--help"]) == 0, name
        assert capfd.readouterr().out.startswith(f"Usage:  sampan {name}")
    for group, names in GROUPS.items():
        for name in names:
            assert main([group, name, "--help"]) == 0
            assert capfd.readouterr().out.startswith(f"Usage:  sampan {group} {name}")


def test_answer_that_is_no_json_shows_no_traceback(daemon, sampan):
    daemon.on("GET", "/containers/json", answer("<html>"))
    code, _, err = sampan("ps")
    assert code == 1
    assert err.count("\n") == 1
