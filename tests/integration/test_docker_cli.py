"""The docker command line, old and new, command by command: exit codes and words.

One daemon serves both. Each row of a table is a command that people type, its exit code, and a
pattern that its output must match from beginning to end, where a reader would look.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import dockerlab

PROGRAMS = [path for path in ("/usr/local/bin/docker", "/usr/bin/docker") if os.path.exists(path)]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not PROGRAMS, reason="needs the docker CLI"),
]
ID = r"[0-9a-f]{64}\n"
NOT_A_MANAGER = "Error response from daemon: This node is not a swarm manager.*\n"
LOOP = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"


class Client:
    """One docker program against the daemon."""

    def __init__(self, program, daemon):
        self.program = program
        self.daemon = daemon
        self.environ = {**daemon.environ, "LC_ALL": "C"}

    def __call__(self, *words, stdin=b"", code=0):
        done = subprocess.run(
            [self.program, *words],
            env=self.environ,
            input=stdin,
            cwd=self.daemon.base,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=dockerlab.PATIENCE,
        )
        text = done.stdout.decode()
        assert done.returncode == code, (words, done.returncode, text)
        return text


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        Path(f"{made.base}/here").mkdir()
        Path(f"{made.base}/here/file").write_text("content\n")
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        Path(f"{made.base}/root.tar").write_bytes(tar)
        made.exchange("POST", "/images/create?fromSrc=-&repo=bb:1&changes=CMD+sh", tar)
        yield made


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda path: path.split("/")[2])
def docker(request, daemon):
    """A client; the container `c1` runs and prints a line now and then, `c2` has ended."""
    made = Client(request.param, daemon)
    loop = ("run", "-d", "--name", "c1", "--hostname", "h1", "-l", "k=v", "bb:1", "sh", "-c", LOOP)
    assert re.fullmatch(ID, made(*loop))
    assert made("run", "--name", "c2", "bb:1", "echo", "hello") == "hello\n"
    yield made
    made("rm", "-f", "c1", "c2")


RUNS = [
    (("run", "--rm", "bb:1", "sh", "-c", "echo out; exit 3"), 3, "out\n"),
    (("run", "--rm", "--entrypoint", "/bin/echo", "bb:1", "from"), 0, "from\n"),
    (
        ("run", "--rm", "-e", "A=b", "-w", "/tmp", "bb:1", "sh", "-c", "echo $A; pwd"),
        0,
        "b\n/tmp\n",
    ),
    (("run", "--rm", "-h", "name", "bb:1", "hostname"), 0, "name\n"),
    (("run", "--rm", "-v", "{base}/here:/h:ro", "bb:1", "cat", "/h/file"), 0, "content\n"),
    (
        ("run", "--rm", "-v", "{base}/here:/h:ro", "bb:1", "touch", "/h/new"),
        1,
        ".*Read-only file system\n",
    ),
    (("run", "--rm", "--mount", "type=tmpfs,dst=/t", "bb:1", "touch", "/t/x"), 0, ""),
    (("run", "--rm", "--read-only", "bb:1", "touch", "/x"), 1, ".*Read-only file system\n"),
    (("run", "--rm", "--network", "none", "bb:1", "ls", "/sys/class/net"), 0, "lo\n"),
    (("run", "--rm", "--init", "bb:1", "sh", "-c", "test $$ != 1"), 0, ""),
    (("run", "--rm", "--log-opt", "max-size=1m", "bb:1", "echo", "x"), 0, "x\n"),
    (("run", "--rm", "--ulimit", "nofile=100:200", "bb:1", "sh", "-c", "ulimit -n"), 0, "100\n"),
    (("run", "--rm", "bb:1", "nosuch"), 127, ".*executable file not found in \\$PATH.*"),
    (("run", "--rm", "--name", "c2", "bb:1"), 125, ".*is already in use by container.*"),
    (("run", "--rm", "--pull", "never", "nosuch:1"), 125, ".*No such image: nosuch:1.*"),
    (("run", "--rm", "--stop-signal", "99", "bb:1", "true"), 125, ".*[Ii]nvalid signal: 99.*"),
    (
        ("run", "--rm", "--log-driver", "nosuch", "bb:1", "true"),
        125,
        ".*no.* nosuch.*|.*'nosuch'.*",
    ),
    (("run", "--rm", "--network", "nosuch", "bb:1", "true"), 125, ".*network nosuch not found.*"),
]

LOOKS = [
    (("ps", "--format", "{{.Names}} {{.Image}} {{.State}}"), 0, "c1 bb:1 running\n"),
    (("ps", "-a", "--filter", "exited=0", "--format", "{{.Names}}"), 0, "c2\n"),
    (("ps", "--filter", "label=k=v", "--format", "{{.Names}}"), 0, "c1\n"),
    (("ps", "--filter", "foo=bar"), 1, ".*[Ii]nvalid filter 'foo'.*"),
    (("ps", "--filter", "status=bogus"), 1, ".*[Ii]nvalid filter 'status=bogus'.*"),
    (("images", "bb", "--format", "{{.Repository}}:{{.Tag}}"), 0, "bb:1\n"),
    (("images", "--filter", "foo=bar"), 1, ".*[Ii]nvalid filter 'foo'.*"),
    (("volume", "ls", "--filter", "foo=bar"), 1, ".*[Ii]nvalid filter 'foo'.*"),
    (("network", "ls", "--filter", "foo=bar"), 1, ".*[Ii]nvalid filter 'foo'.*"),
    (
        ("network", "ls", "--format", "{{.Name}} {{.Driver}}"),
        0,
        "bridge bridge\nhost host\nnone null\n",
    ),
    (("image", "inspect", "-f", "{{.Config.Cmd}} {{.Os}}", "bb:1"), 0, r"\[.*sh\] linux\n"),
    (("history", "--format", "{{.Comment}}", "bb:1"), 0, "Imported from -\n"),
    (("inspect", "-f", "{{.State.Status}} {{.Config.Hostname}}", "c1"), 0, "running h1\n"),
    (("inspect", "nosuch"), 1, r"\[\]\nError: No such object: nosuch\n"),
    (("logs", "c2"), 0, "hello\n"),
    (("logs", "-t", "c2"), 0, r"\d{4}-\S+Z hello\n"),
    (("logs", "--tail", "0", "c2"), 0, ""),
    (("logs", "nosuch"), 1, "Error.*: No such container: nosuch\n"),
    (("port", "c1"), 0, ""),
    (("top", "c1", "-o", "pid,args"), 0, "PID +COMMAND\n.*while true.*"),
    (("diff", "c2"), 0, ""),
    (("exec", "c1", "sh", "-c", "exit 5"), 5, ""),
    (("exec", "-e", "X=1", "-w", "/tmp", "c1", "sh", "-c", "echo $X; pwd"), 0, "1\n/tmp\n"),
    (("exec", "c1", "nosuch"), 127, ".*executable file not found in \\$PATH.*"),
    (("exec", "-u", "nobody-here", "c1", "true"), 126, ".*unable to find user nobody-here.*"),
    (("exec", "c2", "true"), 1, ".* is not running\n"),
    (("exec", "nosuch", "true"), 1, "Error.*: No such container: nosuch\n"),
    (("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "c1"), 0, r"c1 \d\n"),
    (("kill", "c2"), 1, ".* is not running\n"),
    (("kill", "-s", "BOGUS", "c1"), 1, ".*[Ii]nvalid signal: BOGUS\n"),
    (("rm", "c1"), 1, ".*running.*[Ss]top the container before.*\n"),
    (("rm", "nosuch"), 1, "Error.*: No such container: nosuch\n"),
    (("rename", "c1", "c2"), 1, ".*Error when allocating new name: Conflict.*"),
    (("wait", "c2"), 0, "0\n"),
    (("update", "--memory", "100m", "--memory-swap", "200m", "c1"), 0, "c1\n"),
    (
        ("cp", "c1:/nosuch", "."),
        1,
        ".*[Nn]o such container:path: c1:/nosuch\n|.*not find the file /nosuch in.*",
    ),
    (("volume", "rm", "nosuch"), 1, ".*[Nn]o such volume.*\n"),
    (("volume", "create", "-d", "nosuch", "v"), 1, '.*plugin "nosuch" not found\n'),
    (("rmi", "nosuch:1"), 1, "Error.*: No such image: nosuch:1\n"),
    (("image", "prune", "-f"), 0, "Total reclaimed space: 0B\n"),
    (("info", "-f", "{{.OSType}} {{.Swarm.LocalNodeState}}"), 0, "linux inactive\n"),
    (
        ("system", "df", "--format", "{{.Type}}"),
        0,
        "Images\nContainers\nLocal Volumes\nBuild Cache\n",
    ),
    (("checkpoint", "ls", "c1"), 0, "CHECKPOINT NAME\n"),
    (("checkpoint", "create", "c2", "one"), 1, ".*Container [0-9a-f]{64} is not running\n"),
    (("checkpoint", "create", "c1", "../x"), 1, ".*Invalid checkpoint ID .*\n"),
    (("checkpoint", "rm", "c1", "one"), 1, ".*checkpoint one does not exist.*\n"),
    (("start", "--checkpoint", "one", "c2"), 1, ".*checkpoint one does not exist.*\n"),
    (("node", "ls"), 1, NOT_A_MANAGER),
    (("service", "ls"), 1, NOT_A_MANAGER),
    (("secret", "ls"), 1, NOT_A_MANAGER),
    (("swarm", "init"), 1, ".*swarm mode is not supported.*\n"),
    (("plugin", "ls", "--format", "{{.Name}}"), 0, ""),
    (("login", "-u", "u", "-p", "p", "127.0.0.1:1"), 1, ".*127.0.0.1:1.*\n"),
    (("push", "nosuch:1"), 1, ".*nosuch.*\n"),
]


@pytest.mark.parametrize(("words", "code", "pattern"), [*RUNS, *LOOKS], ids=lambda x: None)
def test_commands(docker, daemon, words, code, pattern):
    text = docker(*(word.replace("{base}", daemon.base) for word in words), code=code)
    assert re.fullmatch(pattern, text, re.DOTALL), (words, text)


def test_files_both_ways(docker, daemon):
    assert "here" not in docker("exec", "c1", "ls", "/tmp")
    docker("cp", "here", "c1:/tmp/")
    docker("cp", "here/file", "c2:/tmp/renamed")
    assert docker("exec", "c1", "cat", "/tmp/here/file") == "content\n"
    docker("cp", "c2:/tmp/renamed", "back")
    assert Path(f"{daemon.base}/back").read_text() == "content\n"
    copied = subprocess.run(
        [docker.program, "cp", "c1:/tmp/here", "-"],
        env=docker.environ,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    assert b"content\n" in copied
    docker("cp", "-", "c2:/tmp", stdin=copied)
    docker("cp", "c2:/tmp/here/file", "again")
    assert Path(f"{daemon.base}/again").read_text() == "content\n"
    docker("exec", "c1", "rm", "-r", "/tmp/here")


def test_images_travel(docker, daemon):
    docker("save", "-o", "saved.tar", "bb:1")
    assert docker("load", "-i", "saved.tar") == "Loaded image: bb:1\n"
    made = docker("commit", "-m", "why", "-a", "me", "-c", 'CMD ["true"]', "c2", "made:1")
    assert re.fullmatch("sha256:" + ID, made)
    assert docker("inspect", "-f", "{{.Author}} {{.Comment}}", "made:1") == "me why\n"
    docker("export", "-o", "exported.tar", "c2")
    with tarfile.open(f"{daemon.base}/exported.tar") as tar:
        assert "bin/busybox" in tar.getnames()
    assert docker("import", "-m", "again", "exported.tar", "imp:1").startswith("sha256:")
    docker("tag", "imp:1", "imp:2")
    assert docker("rmi", "imp:2") == "Untagged: imp:2\n"
    assert "Deleted: sha256:" in docker("rmi", "imp:1", "made:1")


def test_volumes_and_networks(docker):
    assert docker("volume", "create", "--label", "a=b", "v3") == "v3\n"
    assert docker("volume", "ls", "-q", "--filter", "label=a=b") == "v3\n"
    assert docker("volume", "inspect", "-f", "{{.Driver}}", "v3") == "local\n"
    assert re.fullmatch(ID, docker("network", "create", "--subnet", "10.99.0.0/24", "n1"))
    given = docker(
        "run", "--rm", "--network", "n1", "--ip", "10.99.0.60", "bb:1", "cat", "/etc/hosts"
    )
    assert "10.99.0.60" in given
    docker("network", "connect", "--alias", "one", "n1", "c1")
    assert "n1" in docker("ps", "--format", "{{.Networks}}", "--filter", "name=c1")
    assert "active endpoints" in docker("network", "rm", "n1", code=1)
    docker("network", "disconnect", "n1", "c1")
    assert docker("network", "rm", "n1") == "n1\n"
    assert docker("volume", "rm", "v3") == "v3\n"


def test_the_life_of_a_container(docker):
    made = docker("create", "--name", "life", "bb:1", "sleep", "1000")
    assert re.fullmatch(ID, made)
    for words in (
        ("start", "life"),
        ("pause", "life"),
        ("unpause", "life"),
        ("restart", "-t", "0", "life"),
        ("kill", "-s", "KILL", "life"),
        ("start", "life"),
        ("stop", "-t", "0", "life"),
        ("rename", "life", "other"),
        ("rm", "other"),
    ):
        text = docker(*words)
        assert text in ("", f"{words[-1]}\n"), words
    told = docker(
        *(
            "events",
            "--since",
            "60s",
            "--until",
            f"{time.time():.6f}",
            "--filter",
            f"container={made.strip()}",
        ),
        *("--format", "{{.Action}}"),
    ).split()
    assert (
        told
        == (
            "create start pause unpause kill kill die stop start restart kill die "
            "start kill kill die stop rename destroy"
        ).split()
    )


def test_a_start_that_is_attached(docker):
    docker("create", "--name", "once", "bb:1", "sh", "-c", "echo words; exit 4")
    assert docker("start", "-a", "once", code=4) == "words\n"
    assert docker("rm", "once") == "once\n"


def test_a_checkpoint(docker):
    """Where CRIU works, the container ends and goes on from there; where not, its words are told
    and nothing has changed."""
    docker("run", "-d", "--name", "frozen", "--network", "none", "bb:1", "sh", "-c", LOOP)
    words = [docker.program, "checkpoint", "create", "frozen", "one"]
    done = subprocess.run(words, env=docker.environ, check=False, capture_output=True, timeout=60)
    try:
        if done.returncode == 0:
            assert docker("checkpoint", "ls", "frozen") == "CHECKPOINT NAME\none\n"
            docker("start", "--checkpoint", "one", "frozen")
            docker("checkpoint", "rm", "frozen", "one")
        else:
            told = done.stderr.decode()
            assert re.fullmatch(".*checkpoint frozen: sampan-oci: .*criu.*\n", told), told
        assert docker("checkpoint", "ls", "frozen") == "CHECKPOINT NAME\n"
        assert docker("inspect", "-f", "{{.State.Running}}", "frozen") == "true\n"
    finally:
        docker("rm", "-f", "frozen")


def test_the_version_that_a_client_asks_for(docker, daemon):
    """Members come and go with the version of the API."""
    old = daemon.ask("GET", "/v1.24/containers/c1/json")[1]
    assert old["Name"] == "/c1"
    assert json.loads(docker("version", "-f", "{{json .Server}}"))["MinAPIVersion"] == "1.24"
    for version, reason in (("1.23", "too old"), ("1.99", "too new")):
        status, answer = daemon.ask("GET", f"/v{version}/info")
        assert status == 400
        assert reason in answer["message"]


def test_fifty_at_once(daemon):
    docker = Client(PROGRAMS[0], daemon)

    def run(number):
        return docker("run", "--rm", "--network", "none", "bb:1", "echo", str(number))

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(run, range(50))) == [f"{number}\n" for number in range(50)]


def test_a_context_for_docker(daemon, tmp_path):
    """`sampan docker-context` is all that docker needs to find the daemon."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}
    words = ("--host", daemon.host, "docker-context", "--use", "ours")
    sampan = [sys.executable, "-m", "sampan.cli", *words]
    made = subprocess.run(
        sampan, env={**environ, "PYTHONPATH": dockerlab.SOURCES}, check=True, capture_output=True
    )
    assert made.stdout == b"ours\n"
    listed = subprocess.run(
        [PROGRAMS[0], "ps", "-q"], env=environ, check=False, capture_output=True, timeout=60
    )
    assert listed.returncode == 0, listed.stderr
    shown = subprocess.run(
        [PROGRAMS[0], "context", "ls", "--format", "{{.Name}} {{.DockerEndpoint}} {{.Current}}"],
        env=environ,
        check=True,
        capture_output=True,
    )
    assert f"ours {daemon.host} true" in shown.stdout.decode()
