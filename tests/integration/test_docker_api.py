"""The Docker Engine API from outside: a real daemon, the real CLI, real containers."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import pytest

import dockerlab
from sampan.wire.multiplex import frame

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
needs_docker = pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI")


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        yield made


@pytest.fixture(scope="module")
def docker(daemon):
    """The CLI, with the image bb:1 imported."""
    if not dockerlab.DOCKER:
        pytest.skip("needs the docker CLI")
    tar = dockerlab.tar_of(f"{daemon.base}/rootfs")
    done = daemon.docker("import", "--change", 'CMD ["sh"]', "-", "bb:1", stdin=tar)
    assert done.code == 0, done.err
    return daemon.docker


@pytest.fixture
def running(docker):
    """A container that runs until it is told otherwise."""
    made = docker("run", "-d", "bb:1", "sleep", "1000")
    assert made.code == 0, made.err
    yield made.out.strip()
    docker("rm", "-f", made.out.strip())


def test_the_walk_of_docker_run(daemon):
    """create, wait, attach, start, as the CLI does it, on a directory."""
    body = {
        "Rootfs": f"{daemon.base}/rootfs:O",
        "Cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"],
        "HostConfig": {"NetworkMode": "none", "Memory": 64 << 20},
    }
    status, made = daemon.ask("POST", "/v1.50/containers/create?name=walk", body)
    assert status == 201, made
    waiting = dockerlab.UnixConnection(daemon.socket)
    waiting.request("POST", f"/v1.50/containers/{made['Id']}/wait?condition=next-exit")
    answer = waiting.getresponse()  # comes before the container has been started
    assert answer.status == 200
    with socket.socket(socket.AF_UNIX) as attached:
        attached.settimeout(dockerlab.PATIENCE)
        attached.connect(daemon.socket)
        attached.sendall(
            f"POST /v1.50/containers/{made['Id']}/attach?stdout=1&stderr=1&stream=1 HTTP/1.1\r\n"
            "Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += attached.recv(1)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert daemon.ask("POST", f"/v1.50/containers/{made['Id']}/start") == (204, b"")
        output = b""
        while part := attached.recv(1000):
            output += part
    assert sorted([output[:12], output[12:]]) == [frame(1, b"out\n"), frame(2, b"err\n")]
    assert json.loads(answer.read()) == {"StatusCode": 3}
    waiting.close()
    status, found = daemon.ask("GET", "/v1.50/containers/walk/json")
    assert found["State"]["Status"] == "exited"
    assert found["State"]["ExitCode"] == 3
    status, log = daemon.ask("GET", "/v1.50/containers/walk/logs?stdout=1&stderr=1")
    assert sorted([log[:12], log[12:]]) == [frame(1, b"out\n"), frame(2, b"err\n")]
    assert daemon.ask("DELETE", "/v1.50/containers/walk")[0] == 204
    assert daemon.ask("GET", "/v1.50/containers/walk/json")[0] == 404


def test_the_socket_is_for_its_group_only(daemon):
    assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o660
    assert stat.S_IMODE(os.stat(f"{daemon.base}/root").st_mode) == 0o700


def test_run_gives_output_and_code(docker):
    done = docker("run", "--rm", "bb:1", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert docker("ps", "-aq").out == ""


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/bin/refused"], 126, "permission denied"),
        (["/tmp"], 126, "is a directory"),
    ],
)
def test_commands_that_cannot_start(docker, words, code, sentence):
    done = docker("run", "--rm", "bb:1", *words)
    assert done.code == code
    assert sentence in done.err
    assert docker("ps", "-aq").out == ""


def test_an_image_that_is_not_here(docker):
    done = docker("run", "--pull", "never", "nosuch:1", "true")
    assert done.code == 125
    assert "No such image: nosuch:1" in done.err


def test_stdin_reaches_the_container(docker):
    sent = b"line\n" * 100_000
    done = docker("run", "--rm", "-i", "bb:1", "cat", stdin=sent)
    assert (done.code, done.out.encode()) == (0, sent)


def test_a_terminal(docker, daemon):
    script = ["script", "-qec", "docker run --rm -it bb:1 sh -c 'stty size; tty'", "/dev/null"]
    done = subprocess.run(
        script,
        env=daemon.environ,
        check=False,
        capture_output=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert b"/dev/pts/" in done.stdout or b"/dev/console" in done.stdout
    assert done.returncode == 0, done.stdout


def test_exec(docker, running):
    done = docker("exec", "-e", "X=1", "-w", "/tmp", running, "sh", "-c", "echo $X; pwd; exit 5")
    assert (done.code, done.out) == (5, "1\n/tmp\n")
    assert docker("exec", "-i", running, "cat", stdin=b"hello").out == "hello"
    missing = docker("exec", running, "nosuch")
    assert missing.code == 127
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.out + missing.err
    assert docker("exec", "-d", running, "true").code == 0


def test_ps_and_inspect(docker, running):
    line = docker("ps", "--no-trunc", "--format", "{{json .}}").lines
    found = [entry for entry in map(json.loads, line) if entry["ID"] == running]
    assert found[0]["Command"] == '"sleep 1000"'
    assert found[0]["Image"] == "bb:1"
    assert re.fullmatch(r"Up (Less than a second|\d+ seconds?)", found[0]["Status"])
    limits = docker("inspect", "-f", "{{.State.Status}} {{.Config.Image}} {{.Path}}", running)
    assert limits.out == "running bb:1 sleep\n"


def test_the_life_of_a_container(docker, running):
    for words, state in (
        (("pause", running), "paused"),
        (("unpause", running), "running"),
        (("stop", "-t", "1", running), "exited"),
        (("start", running), "running"),
        (("restart", "-t", "0", running), "running"),
        (("kill", running), "exited"),
    ):
        done = docker(*words)
        assert done.code == 0, (words, done.err)
        assert docker("wait", running).out == "137\n" if state == "exited" else True
        assert docker("inspect", "-f", "{{.State.Status}}", running).out == state + "\n"
    assert docker("rename", running, "renamed").code == 0
    assert docker("start", "renamed").code == 0
    refused = docker("rm", "renamed")
    assert refused.code == 1
    assert "running" in refused.err


def test_a_restart_does_not_meet_the_end_before_it(daemon):
    body = {"Rootfs": f"{daemon.base}/rootfs:O", "Cmd": ["sleep", "1000"]}
    made = daemon.ask("POST", "/containers/create", body)[1]["Id"]
    assert daemon.ask("POST", f"/containers/{made}/start")[0] == 204
    for _ in range(20):
        assert daemon.ask("POST", f"/containers/{made}/restart?t=0") == (204, b"")
    assert daemon.ask("DELETE", f"/containers/{made}?force=1")[0] == 204


def test_logs(docker):
    made = docker("run", "-d", "bb:1", "sh", "-c", "for i in 1 2 3; do echo $i; done; sleep 1000")
    name = made.out.strip()
    following = subprocess.Popen(
        [dockerlab.DOCKER, "logs", "-f", name],
        env={**os.environ, "DOCKER_HOST": docker.__self__.host},
        stdout=subprocess.PIPE,
    )
    assert [following.stdout.readline() for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
    assert docker("logs", "--tail", "1", name).out == "3\n"
    assert re.fullmatch(r"\S+T\S+Z 3\n", docker("logs", "-t", "--tail", "1", name).out)
    assert docker("rm", "-f", name).code == 0
    assert following.wait(60) == 0  # the end of the container ends the following
    following.stdout.close()


def test_top_and_stats(docker, running):
    assert "sleep 1000" in docker("top", running).out
    line = docker("stats", "--no-stream", "--format", "{{json .}}", running).out
    assert json.loads(line)["PIDs"] == "1"


UNLIMITED = {"PidsLimit": -2}


def test_limits_reach_the_container(daemon, docker):
    done = docker(
        "run",
        "-d",
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
        "bb:1",
        "sleep",
        "1000",
    )
    name = done.out.strip()
    line = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", name).out
    assert line.rstrip().endswith("/ 64MiB")
    answer = docker("inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", name)
    assert answer.out == "500000000 20\n"
    # Clients without the command's habits: nothing to do with processes, then no limit of them.
    for wanted, limit in (({"Memory": 96 << 20, "MemorySwap": 192 << 20}, 20), (UNLIMITED, 0)):
        assert daemon.ask("POST", f"/containers/{name}/update", wanted)[0] == 200
        host = daemon.ask("GET", f"/containers/{name}/json")[1]["HostConfig"]
        assert (host["Memory"], host["PidsLimit"]) == (96 << 20, limit)
        reading = daemon.ask("GET", f"/containers/{name}/stats?stream=0&one-shot=1")[1]
        assert reading["pids_stats"].get("limit", 0) == limit
    docker("rm", "-f", name)


def test_events(docker):
    docker("run", "--rm", "--name", "eventful", "bb:1", "true")
    words = ("--since", "10m", "--until", "-2s", "--filter", "container=eventful")
    told = docker("events", *words, "--format", "{{.Action}}").lines
    steps = ("create", "start", "die", "destroy")
    assert [line for line in told if line in steps] == list(steps)


def test_images(docker):
    assert docker("tag", "bb:1", "other:2").code == 0
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}").lines
    assert {"bb:1", "other:2"} <= set(names)
    assert docker("image", "inspect", "-f", "{{.Config.Cmd}}", "other:2").out == "[sh]\n"
    assert len(docker("history", "-q", "bb:1").lines) == 1
    assert docker("rmi", "other:2").lines == ["Untagged: other:2"]
    assert docker("rmi", "nosuch:1").code == 1


@needs_docker
def test_what_the_daemon_says_of_itself(docker):
    assert docker("version", "-f", "{{.Server.APIVersion}}").out == "1.50\n"
    assert docker("info", "-f", "{{.OSType}} {{.CgroupDriver}}").out == "linux cgroupfs\n"
    assert docker("system", "df").code == 0


def test_an_idle_daemon_is_small(daemon):
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
    assert resident <= 70 << 10  # the promise for an idle engine; 60 MiB is the aim


def test_a_second_daemon_is_refused(daemon):
    done = daemon.run()
    assert done.code == 1
    assert f"held by process {daemon.process.pid}" in done.err
    assert daemon.ask("GET", "/_ping") == (200, b"OK")


def test_containers_outlive_the_daemon(daemon, docker):
    made = docker("run", "-d", "bb:1", "sh", "-c", "echo before; sleep 1000")
    name = made.out.strip()
    pid = docker("inspect", "-f", "{{.State.Pid}}", name).out
    assert daemon.stop() == 0
    assert not os.path.exists(daemon.socket)
    assert os.path.exists(f"/proc/{pid.strip()}")
    daemon.start()
    assert docker("inspect", "-f", "{{.State.Pid}}", name).out == pid
    assert docker("exec", name, "echo", "again").out == "again\n"
    assert docker("rm", "-f", name).code == 0
    assert not os.path.exists(f"/proc/{pid.strip()}")


def test_an_idle_daemon_leaves(daemon):
    assert daemon.stop() == 0
    daemon.start("--idle-exit", "1")
    assert daemon.process.wait(60) == 0
    assert not os.path.exists(daemon.socket)
    daemon.start()
    assert daemon.ask("GET", "/_ping") == (200, b"OK")
