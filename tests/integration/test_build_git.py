"""Git repositories as sources and as contexts, from a real server on loopback."""

from __future__ import annotations

import io
import os
import shutil
import tarfile

import pytest

from buildlab import BuildLab, with_builder
from gitlab import git, make_repository, served
from sampan.builder.language.failure import DockerfileError
from sampan.builder.model import BuildOptions
from sampan.engine.model import HostConfig
from sampan.errors import DigestMismatch, Unavailable

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")


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
