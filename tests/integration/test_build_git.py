"""Git repositories as sources and as contexts, from a real server on loopback."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
import time
from contextlib import contextmanager

import pytest

from buildlab import BuildLab, with_builder
from sampan.builder.language.failure import DockerfileError
from sampan.builder.model import BuildOptions
from sampan.engine.model import HostConfig
from sampan.errors import DigestMismatch, Unavailable

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")
WHO = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")


def git(place, *words):
    """One git command in a directory."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *WHO, *words], cwd=place, env=environ, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


def make_repository(base):
    """A repository with what a checkout would obey: attributes and links."""
    place = base / "repo.git"
    (place / "sub").mkdir(parents=True)
    git(place, "init", "-q", "-b", "main")
    (place / "Dockerfile").write_text("FROM bb:1\nCOPY sub /s/\nRUN cat /s/one\n")
    (place / ".gitattributes").write_text("sub/one export-ignore\n* export-subst\n")
    (place / "sub/one").write_text("one $Format:%H$\n")
    (place / "sub/run").write_text("#!/bin/sh\n")
    (place / "sub/run").chmod(0o755)
    (place / "sub/l").symlink_to("/etc/passwd")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "first")
    git(place, "tag", "v1")
    (place / "sub/one").write_text("two\n")
    git(place, "commit", "-q", "-a", "-m", "second")
    return place


def _answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def served(base):
    """git's own server; the URL of a repository."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = ["git", "daemon", "--export-all", f"--base-path={base}", "--reuseaddr"]
    argv += ["--listen=127.0.0.1", f"--port={port}", str(base)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            end = time.monotonic() + 30
            while not _answers(port) and time.monotonic() < end:
                time.sleep(0.05)  # it has no way to say that it listens
            yield f"git://127.0.0.1:{port}/repo.git"
        finally:
            os.killpg(server.pid, 15)


@with_builder
async def test_a_repository_that_stays_one(lab: BuildLab) -> None:
    place = make_repository(lab.lab.path / "git")
    commit = git(place, "rev-parse", "v1^{commit}")
    with served(lab.lab.path / "git") as url:
        text = f"FROM scratch\nADD --keep-git-dir=true --checksum={commit} {url}#v1 /r/\n"
        first = await lab.build(text)
        out = lab.lab.path / "out"
        await unpack(lab, "t:1", out)
        assert git(out / "r", "status", "--porcelain") == ""
        assert git(out / "r", "rev-parse", "HEAD") == commit
        assert git(out / "r", "log", "--format=%s") == "first"
        assert git(out / "r", "remote", "get-url", "origin") == url
        assert sorted(os.listdir(out / "r/.git"))[:3] == ["HEAD", "config", "index"]
        assert "hooks" not in os.listdir(out / "r/.git")
        again = await lab.build(text)
        assert (again.cached, again.image.id) == (1, first.image.id)
        with pytest.raises(DigestMismatch, match=f"not {'0' * 40}"):
            await lab.build(text.replace(commit, "0" * 40))
        with pytest.raises(DockerfileError, match="whole id of a commit"):
            await lab.build(text.replace(commit, commit[:12]))
        options = BuildOptions(
            tags=("g:1",), host=HostConfig(), args={"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1"}
        )
        (place / "Dockerfile").write_text("FROM bb:1\nCOPY . /c/\nRUN cat /c/.git/HEAD\n")
        git(place, "commit", "-q", "-a", "-m", "third")
        await lab.builder.build(f"{url}#main", options, lab.notes.append)
        assert lab.output.strip() == git(place, "rev-parse", "main")


async def unpack(lab, image, target):
    """The files of an image, as they are."""
    pieces = [piece async for piece in await lab.engine.images.export(image)]
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        tar.extractall(target)


@with_builder
async def test_repositories(lab: BuildLab) -> None:
    make_repository(lab.lab.path / "git")
    with served(lab.lab.path / "git") as url:
        await lab.build(
            f"FROM bb:1\nADD {url}#v1:sub /v1\nADD {url} /all/\n"
            "RUN cat /v1/one /all/sub/one; readlink /v1/l; stat -c %a /v1/run; ls -a /all\n"
        )
        seen = lab.output
        assert seen.startswith("one $Format:%H$\ntwo\n/etc/passwd\n755\n")
        assert ".git\n" not in seen
        again = await lab.build(f"FROM bb:1\nADD {url}#v1:sub /v1\n", {"x": "y"})
        assert again.cached == 1
        options = BuildOptions(tags=("g:1",), host=HostConfig())
        result = await lab.builder.build(f"{url}#main", options, lab.notes.append)
        assert result.image.names == ("g:1",)
        assert lab.output.endswith("two\n")
        for wrong in (f"{url}#nothing", f"{url}#main:nowhere", url.replace("repo", "other")):
            with pytest.raises(Unavailable, match="failed"):
                await lab.build(f"FROM bb:1\nADD {wrong} /x\n")
    assert not [name for name in os.listdir(lab.lab.path / "root/builder") if "git-" in name]
