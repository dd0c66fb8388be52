"""Volumes, health, explain, doctor, update and completion, from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

import dockerlab
from integration.test_cli import call, daemon, sampan  # noqa: F401 - fixtures

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
RUN = ("run", "--rm", "--network", "none")


def test_volumes(sampan):  # noqa: F811
    assert sampan("volume", "create", "--label", "a=b", "data").out == "data\n"
    assert sampan(*RUN, "-v", "data:/d", "bb:1", "sh", "-c", "echo 1 > /d/f").code == 0
    mount = "type=volume,src=data,dst=/x,ro"
    assert sampan(*RUN, "--mount", mount, "bb:1", "cat", "/x/f").out == "1\n"
    assert sampan("volume", "ls", "-q", "-f", "label=a=b").out == "data\n"
    found = json.loads(sampan("volume", "inspect", "data").out)[0]
    assert (found["Labels"], found["Driver"]) == ({"a": "b"}, "local")
    image = "type=image,src=bb:1,dst=/img"
    done = sampan(*RUN, "--mount", image, "bb:1", "sh", "-c", "ls /img/bin; touch /img/x")
    assert "busybox" in done.out
    assert "Read-only" in done.err
    part = sampan(*RUN, "--mount", image + ",image-subpath=bin", "bb:1", "ls", "/img")
    assert "busybox" in part.out.split()
    none = sampan(*RUN, "--mount", image + ",image-subpath=none", "bb:1", "true")
    assert "bind mount of bb:1 on /img: openat2 none: no such file" in none.err.lower(), none.err
    assert (
        sampan("create", "--name", "user", "-v", "data:/d", "-v", "/anon", "bb:1", "true").code == 0
    )
    refused = sampan("volume", "rm", "data")
    assert refused.code == 1
    assert "volume is in use" in refused.err
    assert sampan("rm", "-v", "user").code == 0
    assert sampan("volume", "rm", "data").out == "data\n"
    assert sampan("volume", "ls", "-q").out == ""
    assert "no such volume" in sampan("volume", "inspect", "data").err


@pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker command")
def test_volumes_and_health_with_docker(daemon):  # noqa: F811
    assert daemon.docker("volume", "create", "dv").out == "dv\n"
    done = daemon.docker(*RUN, "-v", "dv:/d", "--mount", "type=tmpfs,dst=/t", "bb:1", "ls", "/d")
    assert (done.code, done.out) == (0, "")
    made = daemon.docker(
        "run", "-d", "--name", "hc", "--network", "none", "--health-cmd", "true",
        "--health-interval", "50ms", "bb:1", "sleep", "100",
    )  # fmt: skip
    assert made.code == 0, made.err
    status, answer = daemon.ask("POST", "/containers/hc/wait?condition=healthy")
    assert status == 200, answer
    assert daemon.docker("inspect", "-f", "{{.State.Health.Status}}", "hc").out == "healthy\n"
    assert "(healthy)" in daemon.docker("ps").out
    assert "hc" in daemon.docker("ps", "--filter", "health=healthy", "--format", "{{.Names}}").out
    daemon.docker("rm", "-f", "hc")
    assert daemon.docker("volume", "prune", "-af").out.splitlines()[1:2] == ["dv"]


def test_explain(sampan):  # noqa: F811
    sampan("create", "--name", "crlf", "--network", "none", "bb:1", "/bin/refused")
    sampan("start", "crlf")
    assert "neither an ELF program nor a script" in sampan("explain", "crlf").out
    sampan("create", "--name", "none", "--network", "none", "bb:1", "nosuch")
    sampan("start", "none")
    assert "no nosuch" in sampan("explain", "none").out
    sampan("run", "--name", "dead", "--network", "none", "bb:1", "sh", "-c", "kill -SEGV $$")
    told = sampan("explain", "dead", "nobody")
    assert told.code == 1
    assert told.out.startswith("dead: ")
    for name in ("crlf", "none", "dead"):
        sampan("rm", name)


def test_update(sampan):  # noqa: F811
    sampan("run", "-d", "--name", "up", "--network", "none", "-m", "64m", "bb:1", "sleep", "100")
    done = sampan("update", "-m", "32m", "--memory-swap", "64m", "--restart", "always", "up")
    assert (done.code, done.out) == (0, "up\n"), done.err
    host = json.loads(sampan("inspect", "up").out)[0]["HostConfig"]
    assert (host["Memory"], host["RestartPolicy"]["Name"]) == (32 << 20, "always")
    sampan("rm", "-f", "up")


def test_doctor(sampan):  # noqa: F811
    done = sampan("doctor")
    assert done.code in (0, 1)
    subjects = {line.split()[1] for line in done.out.splitlines()}
    assert {"kernel", "cgroups", "seccomp", "daemon", "leftovers"} <= subjects
    assert "Traceback" not in done.err


def test_completion(sampan, tmp_path):  # noqa: F811
    script = sampan("completion", "bash").out
    (tmp_path / "script").write_text(script)
    begin, end = f". {tmp_path}/script; ", "COMP_CWORD=2; _sampan; echo ${COMPREPLY[*]}"
    ask = f"{begin} COMP_WORDS=(sampan volume ''); {end}"
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-c", ask], check=True, capture_output=True, text=True)
    words = ["create", "export", "import", "inspect", "list", "ls", "prune", "remove", "rm"]
    assert done.stdout.split() == words
    flags = f"{begin} COMP_WORDS=(sampan run --hea); {end}"
    done = subprocess.run([bash, "-c", flags], check=True, capture_output=True, text=True)
    assert "--health-cmd" in done.stdout.split()
    assert sampan("completion", "tcsh").code == 1
