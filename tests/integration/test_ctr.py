"""containerd's interface, driven by containerd's own client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile

import grpc
import pytest

import dockerlab
import realregistry
from certificates import Authority
from dockerlab import PATIENCE, SOURCES, Result

CTR = shutil.which("ctr")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not CTR or not dockerlab.BUSYBOX, reason="needs ctr and a static busybox"),
]
BB = "docker.io/library/bb:1"


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        data = dockerlab.tar_of(f"{made.base}/rootfs")
        assert sampan(made, "import", "-", "bb:1", stdin=data).code == 0
        yield made


def sampan(daemon, *words, stdin=b""):
    command = [sys.executable, "-m", "sampan.cli", "-H", daemon.host, *words]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, "HOME": daemon.base}
    return run(command, environ, stdin)


def ctr(daemon, *words, stdin=b"", before=(), **environ):
    command = [*before, CTR, "-a", f"{daemon.base}/state/containerd.sock", *map(str, words)]
    return run(command, {"PATH": os.environ["PATH"], **environ}, stdin)


def run(command, environ, stdin):
    done = subprocess.run(
        command, env=environ, input=stdin, check=False, capture_output=True, timeout=PATIENCE
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def good(done):
    assert done.code == 0, done.err
    return done.out


def rows(text):
    return [line.split() for line in text.splitlines()]


@pytest.mark.skipif(not realregistry.available, reason="needs docker-registry")
def test_the_walk(daemon, tmp_path):
    """Word for word; the registry of that name is on loopback, for this client's process alone."""
    authority = Authority(tmp_path)
    address = "127.0.0.44"
    (tmp_path / "hosts").write_text(f"{address} registry-1.docker.io\n")
    with realregistry.real_registry(
        tmp_path, tls=authority.issue("registry-1.docker.io"), name=f"{address}:443"
    ) as name:
        good(sampan(daemon, "tag", "bb:1", f"{name}/library/redis:latest"))
        good(sampan(daemon, "push", f"{name}/library/redis:latest"))
        good(sampan(daemon, "rmi", f"{name}/library/redis:latest"))
        bind = f'mount --bind {tmp_path}/hosts /etc/hosts && exec "$@"'
        said = ctr(
            daemon, "images", "pull", "docker.io/library/redis:latest",
            before=("unshare", "--mount", "--propagation", "private", "sh", "-c", bind, "sh"),
            SSL_CERT_FILE=str(authority.path),
        )  # fmt: skip
    assert "done" in good(said)
    listed = good(ctr(daemon, "images", "list"))
    assert "docker.io/library/redis:latest" in listed
    assert "redis:latest" in good(sampan(daemon, "images", "--format", "{{.Repository}}:{{.Tag}}"))
    good(ctr(daemon, "container", "create", "docker.io/library/redis:latest", "redis"))
    [row] = rows(good(ctr(daemon, "container", "list")))[1:]
    assert row[:2] == ["redis", "docker.io/library/redis:latest"]
    assert good(sampan(daemon, "ps", "-a", "-q")) == ""  # it is this client's
    good(ctr(daemon, "container", "delete", "redis"))
    assert rows(good(ctr(daemon, "container", "list")))[1:] == []
    done = sampan(daemon, "run", "--rm", "--network", "none", "redis", "echo", "the same image")
    assert good(done) == "the same image\n"
    assert "no problems" in good(sampan(daemon, "system", "check")).lower()
    good(ctr(daemon, "images", "rm", "docker.io/library/redis:latest"))
    assert sampan(daemon, "image", "inspect", "redis").code == 1


def test_run(daemon):
    script = "echo out; echo err >&2; ls /dev | grep -c null; exit 7"
    done = ctr(daemon, "run", "--rm", BB, "one", "sh", "-c", script)
    assert (done.code, done.out, done.err) == (7, "out\n1\n", "err\n")
    words = ("--env", "A=b", "--cwd", "/tmp", BB, "two", "sh", "-c", "echo $A; pwd")
    done = ctr(daemon, "run", "--rm", *words)
    assert good(done) == "b\n/tmp\n"
    done = ctr(daemon, "run", "--rm", "--read-only", BB, "three", "touch", "/x")
    assert (done.code, "Read-only file system" in done.err) == (1, True)
    assert good(ctr(daemon, "run", "--rm", BB, "four", "cat", stdin=b"in and out")) == "in and out"
    assert len(good(ctr(daemon, "run", "--rm", BB, "five", "seq", "1", "200000"))) == 1288895
    done = ctr(daemon, "run", "--rm", BB, "six", "nosuch")
    assert (done.code, "nosuch" in done.err) == (1, True)
    for words in (("task", "ls"), ("container", "ls"), ("snapshots", "ls")):
        left = rows(good(ctr(daemon, *words)))[1:]
        assert [row for row in left if not row[0].startswith(("sha256:", "six"))] == []
    ctr(daemon, "container", "rm", "six")


def test_a_task_from_its_start_to_its_end(daemon):
    good(ctr(daemon, "run", "-d", BB, "long", "sleep", "1000"))
    try:
        [row] = rows(good(ctr(daemon, "task", "ls")))[1:]
        assert (row[0], row[2]) == ("long", "RUNNING")
        done = ctr(
            daemon, "task", "exec", "--exec-id", "e", "long", "sh", "-c", "cat; exit 3", stdin=b"hi"
        )
        assert (done.code, done.out) == (3, "hi")
        good(ctr(daemon, "task", "pause", "long"))
        assert rows(good(ctr(daemon, "task", "ls")))[1][2] == "PAUSED"
        good(ctr(daemon, "task", "resume", "long"))
        assert rows(good(ctr(daemon, "task", "ps", "long")))[1][0] == row[1]
        done = ctr(daemon, "container", "rm", "long")
        assert (done.code, "running" in done.err) == (1, True)
        good(ctr(daemon, "task", "kill", "-s", "SIGKILL", "long"))
        done = ctr(daemon, "task", "delete", "long")
        assert "137" in done.err
    finally:
        ctr(daemon, "task", "delete", "--force", "long")
        good(ctr(daemon, "container", "rm", "long"))


def test_a_terminal(daemon):
    # ctr tells the size after the start.
    size = "until stty size 2>/dev/null | grep -v '^0 0'; do sleep 0.05; done"
    words = f'run --rm -t {BB} tty sh -c "tty; {size}"'
    command = f"stty rows 33 cols 99; {CTR} -a {daemon.base}/state/containerd.sock {words}"
    done = run(["script", "-qec", command, "/dev/null"], dict(os.environ), b"")
    assert good(done).replace("^@", "").split() == ["/dev/pts/0", "33", "99"]


def test_namespaces(daemon):
    good(ctr(daemon, "namespaces", "create", "other"))
    good(ctr(daemon, "-n", "other", "container", "create", BB, "same"))
    good(ctr(daemon, "container", "create", BB, "same"))
    for words in (("-n", "other"), ()):
        assert good(ctr(daemon, *words, "container", "ls", "-q")) == "same\n"
    done = ctr(daemon, "namespaces", "rm", "other")
    assert (done.code, "must be empty" in done.err) == (1, True)
    done = ctr(daemon, "container", "create", BB, "same")
    assert (done.code, "already exists" in done.err) == (1, True)
    for words in (("-n", "other"), ()):
        good(ctr(daemon, *words, "container", "rm", "same"))
    good(ctr(daemon, "namespaces", "rm", "other"))
    assert "other" not in good(ctr(daemon, "namespaces", "ls", "-q"))


def test_images_go_out_and_come_back(daemon, tmp_path):
    good(ctr(daemon, "images", "tag", BB, "docker.io/library/moved:1"))
    good(ctr(daemon, "images", "export", tmp_path / "a.tar", "docker.io/library/moved:1"))
    good(ctr(daemon, "images", "rm", "docker.io/library/moved:1"))
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert "index.json" in tar.getnames()
    good(ctr(daemon, "images", "import", tmp_path / "a.tar"))
    assert "true" in good(ctr(daemon, "images", "check", "name==docker.io/library/moved:1"))
    assert (
        good(ctr(daemon, "run", "--rm", "docker.io/library/moved:1", "one", "echo", "x")) == "x\n"
    )
    good(ctr(daemon, "images", "label", "docker.io/library/moved:1", "a=b"))
    assert "a=b" in good(ctr(daemon, "images", "ls", "name~=moved"))
    good(ctr(daemon, "images", "rm", "docker.io/library/moved:1"))
    digest = json.loads(good(sampan(daemon, "image", "inspect", "bb:1")))[0]["Id"]
    assert json.loads(good(ctr(daemon, "content", "get", digest)))["os"] == "linux"


def test_a_container_survives_the_daemon(daemon):
    good(ctr(daemon, "run", "-d", BB, "kept", "sleep", "1000"))
    daemon.stop()
    daemon.start()
    [row] = rows(good(ctr(daemon, "task", "ls")))[1:]
    assert (row[0], row[2]) == ("kept", "RUNNING")
    good(ctr(daemon, "task", "kill", "-s", "9", "kept"))
    ctr(daemon, "task", "delete", "kept")
    good(ctr(daemon, "container", "rm", "kept"))
    assert len(rows(good(ctr(daemon, "snapshots", "ls")))) == 2


def test_labels_survive_the_daemon(daemon):
    good(ctr(daemon, "images", "tag", BB, "docker.io/library/labelled:1"))
    good(ctr(daemon, "images", "label", "docker.io/library/labelled:1", "a=b"))
    good(ctr(daemon, "namespaces", "create", "kept", "c=d"))
    digest = json.loads(good(sampan(daemon, "image", "inspect", "bb:1")))[0]["Id"]
    good(ctr(daemon, "content", "label", digest, "e=f"))
    daemon.stop()
    daemon.start()
    assert "a=b" in good(ctr(daemon, "images", "ls", "name~=labelled"))
    assert rows(good(ctr(daemon, "namespaces", "ls")))[1:] == [["default"], ["kept", "c=d"]]
    assert "e=f" in good(ctr(daemon, "content", "ls", f"digest=={digest}"))
    good(sampan(daemon, "rmi", "labelled:1"))  # by another door, which tells nobody
    daemon.stop()
    daemon.start()
    good(ctr(daemon, "images", "tag", BB, "docker.io/library/labelled:1"))
    assert "a=b" not in good(ctr(daemon, "images", "ls", "name~=labelled"))
    good(ctr(daemon, "images", "rm", "docker.io/library/labelled:1"))
    good(ctr(daemon, "namespaces", "rm", "kept"))


def test_nothing_is_executed_for_a_record(daemon):
    """A log that names a program, and a layer for a directory that is no snapshot's."""
    done = ctr(daemon, "run", "--rm", "--log-uri", "binary:///bin/true", BB, "log", "true")
    assert (done.code, "are not taken" in done.err) == (1, True)
    ctr(daemon, "container", "rm", "log")
    with grpc.insecure_channel(f"unix:{daemon.base}/state/containerd.sock") as channel:
        from sampan.wire.containerd import diff_pb2, types_pb2

        apply = channel.unary_unary(
            "/containerd.services.diff.v1.Diff/Apply",
            diff_pb2.ApplyRequest.SerializeToString,
            diff_pb2.ApplyResponse.FromString,
        )
        layer = types_pb2.Descriptor(
            media_type="application/vnd.oci.image.layer.v1.tar", digest="sha256:" + "0" * 64, size=1
        )
        for path in ("/etc", f"{daemon.base}/root/snapshots/1/fs/..", "/"):
            mount = types_pb2.Mount(type="bind", source=path)
            with pytest.raises(grpc.RpcError) as caught:
                apply(diff_pb2.ApplyRequest(diff=layer, mounts=[mount]), timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_grpc_is_not_loaded_before_somebody_comes():
    with dockerlab.daemon() as fresh:
        with open(f"/proc/{fresh.process.pid}/maps") as maps:
            assert "grpc" not in maps.read()
        assert ctr(fresh, "version").code == 0
        with open(f"/proc/{fresh.process.pid}/maps") as maps:
            assert "grpc" in maps.read()
