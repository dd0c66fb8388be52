"""Builds for several platforms, with the caller's ssh agent, and as a terminal shows them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from contextlib import contextmanager

import pytest

import dockerlab
import realregistry
import sampanlab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
needs_ssh = pytest.mark.skipif(not shutil.which("ssh-agent"), reason="needs openssh-client")
BOTH = ("--platform", "linux/amd64,linux/arm64")
OTHERS = """\
FROM --platform=$BUILDPLATFORM bb:1 AS make
ARG TARGETARCH
RUN echo $TARGETARCH > /made
FROM scratch
ARG TARGETPLATFORM
COPY --from=make /made /made
ENV P=$TARGETPLATFORM
"""


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        status, _, _ = made.exchange("POST", "/images/create?fromSrc=-&repo=bb&tag=1", tar)
        assert status == 200
        yield made


@pytest.fixture
def sampan(daemon, tmp_path):
    return sampanlab.command_line(daemon, tmp_path)


# several platforms


def test_an_image_for_several_platforms(sampan, tmp_path):
    (tmp_path / "Dockerfile").write_text(OTHERS)
    said = sampan("build", "-t", "p:1", *BOTH, ".").err
    assert "[linux/amd64 make 2/2] RUN echo" in said
    assert "[linux/arm64 stage-1 2/2] COPY" in said
    sampan("build", "-o", "out", *BOTH, ".")
    found = {folder.name: (folder / "made").read_text() for folder in (tmp_path / "out").iterdir()}
    assert found == {"linux_amd64": "amd64\n", "linux_arm64": "arm64\n"}
    sampan("build", "-t", "p:1", "-o", "type=oci,dest=layout,tar=false", *BOTH, ".")
    blobs = tmp_path / "layout/blobs/sha256"
    texts = [path.read_bytes() for path in blobs.iterdir()]
    listed = [json.loads(text) for text in texts if b'"platform"' in text and text[:1] == b"{"]
    kinds = [one["platform"]["architecture"] for index in listed for one in index["manifests"]]
    assert sorted(kinds) == ["amd64", "arm64"]
    again = sampan("build", "-t", "p:1", *BOTH, ".").err
    assert again.count(" CACHED\n") == 4
    sampan("rmi", "p:1")
    assert "<none>" not in sampan("images", "-a").out


@pytest.mark.skipif(not realregistry.available, reason="needs docker-registry")
def test_an_index_is_pushed_whole(sampan, tmp_path, tmp_path_factory):
    (tmp_path / "Dockerfile").write_text(OTHERS)
    with realregistry.real_registry(tmp_path_factory.mktemp("registry")) as registry:
        name = f"{registry}/app:1"
        sampan("build", "-t", name, *BOTH, "--push", ".")
        sampan("rmi", name)
        sampan("pull", "--platform", "linux/arm64", name)
        shown = json.loads(sampan("inspect", name).out)[0]
        assert shown["Architecture"] == "arm64"
        assert "P=linux/arm64" in shown["Config"]["Env"]
        sampan("rmi", name)


def test_commands_for_another_processor_need_an_emulator(sampan, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\nRUN true\n")
    other = "arm64" if os.uname().machine == "x86_64" else "amd64"
    said = sampan("build", "--platform", f"linux/{other}", ".", code=1).err
    assert "no emulator is registered" in said
    assert "FROM --platform=$BUILDPLATFORM" in said
    both = f"linux/{other},linux/{other}"
    assert "given twice" in sampan("build", "--platform", both, ".", code=1).err
    flags = (*BOTH, "--cache-to", "type=local,dest=c")
    assert "one platform at a time" in sampan("build", *flags, ".", code=1).err


# the caller's agent


@contextmanager
def agent(place):
    """An agent with one key, `place`/key; its socket."""
    path = f"{place}/agent"
    keygen = [
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        "its@comment",
        "-f",
        f"{place}/key",
    ]
    subprocess.run(keygen, check=True)
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        environ = {**os.environ, "SSH_AUTH_SOCK": path}
        subprocess.run(["ssh-add", "-q", f"{place}/key"], env=environ, check=True)
        yield path
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def program(name, root):
    """A program with its libraries below `root`."""
    path = shutil.which(name)
    listed = subprocess.run(["ldd", path], capture_output=True, check=True).stdout.decode()
    for each in [path, *re.findall(r"/\S+", listed)]:
        target = root / each.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(each, target)


@needs_ssh
def test_a_command_uses_the_keys_and_cannot_take_them(sampan, tmp_path):
    program("ssh-add", tmp_path / "root")
    (tmp_path / "Dockerfile").write_text(
        "FROM bb:1\nCOPY root /\n"
        "RUN --mount=type=ssh,required ssh-add -l; ssh-add -D; ssh-add -l\n"
        "RUN --mount=type=ssh chmod 777 $SSH_AUTH_SOCK; true\n"
        "USER 1000\nRUN --mount=type=ssh ssh-add -l; true\n"
        "RUN --mount=type=ssh,uid=1000,target=/tmp/a ssh-add -l; ls /tmp\n"
    )
    keys = tmp_path.parent / f"{tmp_path.name}-keys"
    keys.mkdir(0o700)
    with agent(keys) as path:
        build = ("build", "--no-cache", "--ssh")
        said = sampan(*build, "default", ".", SSH_AUTH_SOCK=path).err
        assert said.count("its@comment") == 3
        assert "Failed to remove all identities" in said
        assert "Read-only file system" in said
        assert "Permission denied" in said  # of another user, without uid=
        assert sampan(*build, f"default={keys}/key", ".").err.count("its@comment") == 3
        environ = {**os.environ, "SSH_AUTH_SOCK": path}
        assert subprocess.run(["ssh-add", "-l"], env=environ, check=False).returncode == 0
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(path)
    assert "Connection refused" in sampan(*build, f"default={path}", ".", code=1).err
    assert "no such file" in sampan(*build, f"default={keys}/none", ".", code=1).err
    assert "did not take" in sampan(*build, "default=Dockerfile", ".", code=1).err


def test_an_agent_that_answers_nonsense_harms_nobody(sampan, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        "FROM bb:1\nRUN --mount=type=ssh,target=/agent ls /agent && echo here\n"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/odd")
        listener.listen()
        assert " here\n" in sampan("build", "--ssh", f"default={tmp_path}/odd", ".").err


# on a terminal


def test_a_terminal_shows_all_steps_in_place(daemon, sampan, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        "FROM bb:1 AS one\nRUN echo first\nFROM bb:1\nCOPY --from=one /etc /etc2\n"
        "RUN printf '\\033[2J\\033]0;x\\007evil\\rover\\n'\n"
    )
    code, said = sampanlab.on_terminal(daemon, tmp_path, "build", "-t", "tty:1", ".")
    assert code == 0
    assert said.startswith("\x1b[?25l")
    assert "\x1b[?25h" in said
    assert "\x1b[2J" not in said
    last = said.rpartition("[+] Building ")[2]
    assert "(8/8) FINISHED" in last
    assert " => [stage-1 3/3] RUN printf" in last
    assert "naming to tty:1" in last
    assert all(len(line.split("\x1b")[0]) <= 80 for line in last.splitlines())
    code, said = sampanlab.on_terminal(daemon, tmp_path, "build", ".")
    assert said.rpartition("[+] Building ")[2].count("=> CACHED [") == 3
    plain = sampanlab.on_terminal(daemon, tmp_path, "build", "--progress", "plain", ".")[1]
    assert "\x1b" not in plain


def test_a_terminal_shows_why_it_failed(daemon, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM bb:1\nRUN echo why; printf '\\033[31mred'; exit 7\n")
    code, said = sampanlab.on_terminal(daemon, tmp_path, "build", ".", rows=5)
    assert code == 1
    assert "=> ERROR [2/2] RUN echo why" in said
    assert "why\r\n[31mred\r\n------" in said
    assert "   2 | >>> RUN echo why" in said
    assert said.rstrip().endswith("returned a non-zero code: 7")
    assert said.index("\x1b[?25h") > said.index("\x1b[?25l")
