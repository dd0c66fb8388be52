"""Files of containers over the API: both ways, running or not, and nothing but theirs."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest

import dockerlab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]

# Says a byte after every thousand exchanges of two names (RENAME_EXCHANGE).
SWAP = """
import ctypes, os, sys
rename = ctypes.CDLL(None, use_errno=True).renameat2
names = [os.fsencode(f"{sys.argv[1]}/{name}") for name in ("real", "trap")]
while True:
    for _ in range(1000):
        assert rename(-100, names[0], -100, names[1], 2) == 0
    os.write(1, b"x")
"""
EXCHANGES = 20  # thousands


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        yield made


@pytest.fixture
def make(daemon):
    """Create a container, started when it has a command; its id."""
    made = []

    def create(*command, **host):
        body = {"Rootfs": f"{daemon.base}/rootfs:O", "Cmd": list(command) or ["true"]}
        body["HostConfig"] = {"NetworkMode": "none", **host}
        status, answer = daemon.ask("POST", "/containers/create", body)
        assert status == 201, answer
        made.append(answer["Id"])
        if command:
            assert daemon.ask("POST", f"/containers/{answer['Id']}/start")[0] == 204
        return answer["Id"]

    yield create
    for container in made:
        daemon.ask("DELETE", f"/containers/{container}?force=1")


def put(daemon, container, path, content, query=""):
    url = f"/containers/{container}/archive?path={quote(path)}{query}"
    status, _, body = daemon.exchange("PUT", url, content)
    return status, json.loads(body)["message"] if body else ""


def get(daemon, container, path):
    status, headers, body = daemon.exchange(
        "GET", f"/containers/{container}/archive?path={quote(path)}"
    )
    assert status == 200, body
    facts = json.loads(base64.b64decode(headers["X-Docker-Container-Path-Stat"]))
    return facts, tarfile.open(fileobj=io.BytesIO(body))


def tar(*members):
    """(name, content or None for a directory, or a ready TarInfo) as a tar."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode, entry.uid, entry.gid = 1_700_000_000, 0o640, 7, 8
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o750
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def inside(daemon, container, *command):
    """What a command prints in the container."""
    body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, "Tty": True}
    made = daemon.ask("POST", f"/containers/{container}/exec", body)[1]
    done = daemon.exchange(
        "POST",
        f"/exec/{made['Id']}/start",
        b'{"Tty": true}',
        **{"Content-Type": "application/json"},
    )
    return done[2].decode().replace("\r\n", "\n")


@pytest.mark.parametrize("command", [(), ("sleep", "1000")], ids=["created", "running"])
def test_what_is_put_is_there_and_comes_back(daemon, make, command):
    container = make(*command)
    content = tar(("d", None), ("d/file", b"hello"), link("d/link", "file"))
    assert put(daemon, container, "/tmp", gzip.compress(content)) == (200, "")
    facts, archive = get(daemon, container, "/tmp/d")
    assert facts["name"] == "d"
    assert facts["mode"] == 1 << 31 | 0o750
    assert archive.getnames() == ["d", "d/file", "d/link"]
    assert archive.extractfile("d/file").read() == b"hello"
    file = archive.getmember("d/file")
    assert (file.mode, file.uid, file.gid, file.mtime) == (0o640, 7, 8, 1_700_000_000)
    assert archive.getmember("d/link").linkname == "file"
    if command:
        assert inside(daemon, container, "cat", "/tmp/d/link") == "hello"
    else:
        daemon.ask("POST", f"/containers/{container}/start")  # the tree was let go of


def test_head_tells_where_a_link_leads(daemon, make):
    container = make("sleep", "1000")
    inside(daemon, container, "ln", "-s", "../etc/passwd", "/tmp/l")
    path = f"/containers/{container}/archive?path=/tmp/l"
    status, headers, _ = daemon.exchange("HEAD", path)
    facts = json.loads(base64.b64decode(headers["X-Docker-Container-Path-Stat"]))
    assert (status, facts["linkTarget"]) == (200, "/etc/passwd")
    assert facts["mode"] == 1 << 27 | 0o777


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/etc", ["etc", "etc/group"]),
        ("/etc/", ["etc", "etc/group"]),
        ("/etc/.", [".", "./group"]),
        ("etc/passwd", ["passwd"]),
        ("/tmp/../etc/passwd", ["passwd"]),
        ("/../../etc/passwd", ["passwd"]),
    ],
)
def test_names_are_docker_s(daemon, make, path, names):
    _, archive = get(daemon, make(), path)
    assert archive.getnames()[: len(names)] == names


def test_missing_things_are_told_in_docker_s_words(daemon, make):
    container = make()
    name = daemon.ask("GET", f"/containers/{container}/json")[1]["Name"][1:]
    expected = {"message": f"Could not find the file /no/such in container {name}"}
    path = f"/containers/{container}/archive?path=/no/such"
    assert daemon.ask("GET", path) == (404, expected)
    assert put(daemon, container, "/no/such", tar(("x", b""))) == (404, expected["message"])
    assert daemon.ask("GET", "/containers/nobody/archive?path=/")[0] == 404
    assert daemon.ask("GET", f"/containers/{container}/archive")[0] == 400
    path = f"/containers/{container}/archive?path=/etc/passwd/"
    assert daemon.ask("GET", path) == (400, {"message": "/etc/passwd/: not a directory"})


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (tar(("../out", b"x")), 400, "bad name"),
        (tar(("tmp/x/y", b"1"))[:700], 400, "ends in the middle"),
        (b"this is no tar" * 100, 400, "checksum"),
        (tar(("directory", b"x")), 400, "cannot overwrite directory"),
        (tar(("file", None)), 400, "cannot overwrite non-directory"),
    ],
    ids=["dotdot", "short", "garbage", "directory", "file"],
)
def test_bad_archives_are_refused(daemon, make, content, status, words):
    container = make("sleep", "1000")
    inside(daemon, container, "sh", "-c", "mkdir /tmp/directory; touch /tmp/file")
    answer = put(daemon, container, "/tmp", content, "&noOverwriteDirNonDir=true")
    assert answer[0] == status, answer
    assert words in answer[1]
    assert inside(daemon, container, "ls", "-1", "/tmp") == "directory\nfile\n"


def test_put_below_a_file_is_refused(daemon, make):
    answer = put(daemon, make(), "/etc/passwd", tar(("x", b"")))
    assert answer == (400, "extraction point is not a directory")


@pytest.mark.parametrize("command", [(), ("sleep", "1000")], ids=["created", "running"])
def test_a_read_only_container_is_not_written(daemon, make, command, tmp_path):
    container = make(*command, ReadonlyRootfs=True, Binds=[f"{tmp_path}:/v"])
    status, message = put(daemon, container, "/tmp", tar(("x", b"")))
    assert (status, "read-only" in message) == (403, True)
    if command:  # before the first start the mount point may be missing
        assert put(daemon, container, "/v", tar(("x", b"1"))) == (200, "")
        assert (tmp_path / "x").read_bytes() == b"1"


def test_volumes_are_part_of_what_is_copied_and_not_of_an_export(daemon, make, tmp_path):
    (tmp_path / "f").write_text("volume")
    container = make(Binds=[f"{tmp_path}:/v:ro"])
    assert get(daemon, container, "/v/f")[1].extractfile("f").read() == b"volume"
    assert put(daemon, container, "/v", tar(("x", b"")))[0] == 403
    status, headers, body = daemon.exchange("GET", f"/containers/{container}/export")
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        names = archive.getnames()
    assert {"bin", "bin/busybox", "etc/passwd"} <= set(names)
    assert "v/f" not in names


def test_mounts_of_all_kinds_are_there_before_the_start(daemon, make, tmp_path):
    """What the container will see, whichever way it was asked for."""
    (tmp_path / "f").write_text("bind")
    daemon.docker("wait", make("mkdir", "/v/sub", Binds=["named:/v"]))
    mounts = [
        {"Type": "bind", "Source": str(tmp_path), "Target": "/typed", "ReadOnly": True},
        {"Type": "volume", "Source": "named", "Target": "/sub"},
        {"Type": "tmpfs", "Target": "/scratch"},
    ]
    mounts[1]["VolumeOptions"] = {"Subpath": "sub"}
    container = make(Mounts=mounts, Binds=["named:/whole"])
    assert get(daemon, container, "/typed/f")[1].extractfile("f").read() == b"bind"
    assert put(daemon, container, "/typed", tar(("x", b"")))[0] == 403
    assert put(daemon, container, "/sub", tar(("x", b"1"))) == (200, "")
    assert get(daemon, container, "/whole/sub/x")[1].extractfile("x").read() == b"1"


def test_export_of_a_running_container_has_no_kernel_files(daemon, make):
    container = make("sh", "-c", "echo new > /tmp/new; mkfifo /tmp/p; exec sleep 1000")
    while "new" not in inside(daemon, container, "ls", "/tmp"):
        pass
    body = daemon.exchange("GET", f"/containers/{container}/export")[2]
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.extractfile("tmp/new").read() == b"new\n"
        assert archive.getmember("tmp/p").isfifo()
        assert not [name for name in archive.getnames() if name.startswith(("proc/", "sys/"))]


def test_links_lead_nowhere_but_inside(daemon, make, tmp_path):
    """Absolute links, climbing ones and those of /proc: read and written inside of the root."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "secret").write_text("secret")
    container = make("sleep", "1000", PidMode="host")
    script = f"ln -s {canary} /abs; ln -s ../../../../../..{canary} /up; ln -s /proc/1/root /magic"
    inside(daemon, container, "sh", "-c", script)
    for name in ("/abs", "/up", f"/magic{canary}"):
        status = daemon.ask("GET", f"/containers/{container}/archive?path={name}/secret")[0]
        assert status in (403, 404), name
        status = put(daemon, container, name + "/", tar(("planted", b"x")))[0]
        assert status in (403, 404), name
    planted = tar(link("out", str(canary)), ("out/planted", b"x"))
    put(daemon, container, "/tmp", planted)
    assert os.listdir(canary) == ["secret"]


def test_var_run_that_is_an_absolute_link_works(daemon, make):
    container = make("sleep", "1000")
    inside(daemon, container, "sh", "-c", "mkdir -p /run /var; ln -s /run /var/run")
    assert put(daemon, container, "/var/run", tar(("pid", b"1")))[0] == 200
    assert inside(daemon, container, "cat", "/run/pid") == "1"


def test_a_race_of_exchanged_names_finds_nothing_of_the_host(daemon, make, tmp_path):
    """A directory and a link to the host change places while it is read and written."""
    shared, canary = tmp_path / "shared", tmp_path / "canary"
    for made in (shared, shared / "real", canary):
        made.mkdir()
    (shared / "real/f").write_text("inside")
    (canary / "f").write_text("secret")
    (shared / "trap").symlink_to(canary)
    container = make("sleep", "1000", Binds=[f"{shared}:/v"])
    path, seen, tries = f"/containers/{container}/archive?path=/v/real/f", b"", 0
    words = [sys.executable, "-I", "-c", SWAP, str(shared)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as swapper:
        os.set_blocking(swapper.stdout.fileno(), False)
        while len(seen) < EXCHANGES or tries < 8:
            tries += 1
            assert b"secret" not in daemon.exchange("GET", path)[2]
            put(daemon, container, "/v/real", tar(("planted", b"x")))
            seen += swapper.stdout.read() or b""
        swapper.kill()
    assert os.listdir(canary) == ["f"]
    assert (canary / "f").read_text() == "secret"


def test_special_files_do_not_block(daemon, make):
    container = make("sh", "-c", "mkfifo /etc/fifo; exec sleep 1000")
    while "fifo" not in inside(daemon, container, "ls", "/etc"):
        pass
    archive = get(daemon, container, "/etc/fifo")[1]
    assert archive.getmember("fifo").isfifo()


@pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI")
def test_docker_cp(daemon, make):
    container, home = make("sleep", "1000"), Path(daemon.base)
    (home / "dir/sub").mkdir(parents=True)
    (home / "dir/sub/file").write_text("1")
    os.chmod(home / "dir/sub/file", 0o4711)
    assert daemon.docker("cp", f"{home}/dir", f"{container}:/tmp").code == 0
    assert daemon.docker("cp", f"{home}/dir/sub/file", f"{container}:/tmp/renamed").code == 0
    assert daemon.docker("cp", f"{container}:/tmp/.", f"{home}/back").code == 0
    assert (home / "back/renamed").read_text() == "1"
    assert stat.S_IMODE((home / "back/dir/sub/file").stat().st_mode) == 0o4711
    missing = daemon.docker("cp", f"{container}:/nosuch", "-")
    assert (missing.code, missing.err.split(":")[0]) == (1, "Error response from daemon")
