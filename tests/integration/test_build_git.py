"""Git repositories as sources and as contexts, from a real server on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest

from buildlab import BuildLab, with_builder
from sampan.builder.model import BuildOptions
from sampan.engine.model import HostConfig
from sampan.errors import Unavailable

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")
WHO = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")


def git(place, *words):
    """One git command in a directory."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *WHO, *words], cwd=place, env=environ, check=True, capture_output=True)


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
