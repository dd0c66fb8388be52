"""Commands about images beside docker's client: the same words, the same daemon, the same lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import dockerlab
import realregistry
import sampan as library
from dockerlab import PATIENCE, SOURCES, Result

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs docker's client"),
    pytest.mark.skipif(not realregistry.available, reason="needs docker-registry"),
]
SAMPAN = (sys.executable, "-m", "sampan.cli")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with realregistry.real_registry(tmp_path_factory.mktemp("registry")) as name:
        yield name


@pytest.fixture(scope="module")
def daemon(registry):
    with dockerlab.daemon() as made:
        data = dockerlab.tar_of(f"{made.base}/rootfs")
        assert call(made, "import", "-", "bb:1", stdin=data).code == 0
        for tag in ("1", "2"):
            assert call(made, "tag", "bb:1", f"{registry}/team/app:{tag}").code == 0
        yield made


def call(daemon, *words, stdin=b"", program=SAMPAN):
    done = subprocess.run(
        [*program, "-H", daemon.host, *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, "HOME": daemon.base},
        input=stdin,
        check=False,
        capture_output=True,
        timeout=PATIENCE,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def ages(text):
    """Without what passes between two calls; names of one image have no order with docker.

    An age that gets longer ("9 seconds", then "10 seconds") widens its column, and so its title.
    """
    ageless = re.sub(r"(\d+|About a|Less than a) \w+ ago *", "AGO ", text)
    return sorted(re.sub(r"CREATED +", "CREATED ", ageless).splitlines())


def test_an_age_that_gets_longer_is_no_difference():
    before = "CREATED         SIZE\n9 seconds ago   1B\n"
    after = "CREATED          SIZE\n10 seconds ago   1B\n"
    assert ages(before) == ages(after)


SAME = [
    "images",
    "images -q",
    "images --digests",
    "images --no-trunc -q",
    "images --format {{.Repository}}:{{.Tag}}",
    "images -f reference=*/team/*",
    "images -f reference=*/team/app:2",
    "images -f reference=bb",
    "images -f reference=*",
    "images -f dangling=true",
    "images -f bad=1",
    "image ls nothing",
    "history bb:1",
    "image inspect nothing",
    "container inspect nothing",
    "inspect --type image nothing",
    "inspect nothing",
    "rmi nothing",
    "tag nothing a:1",
    "system df",
    "system df -v",
    "image prune -f",
    "push nothing",
]


@pytest.mark.parametrize("words", SAME)
def test_the_same_as_dockers(daemon, words):
    ours = call(daemon, *words.split())
    docker = call(daemon, *words.split(), program=(dockerlab.DOCKER,))
    assert ages(ours.out) == ages(docker.out)
    assert ours.err == docker.err
    assert ours.code == docker.code


def test_every_tag_goes_and_comes(daemon, registry):
    name = f"{registry}/team/app"
    done = call(daemon, "push", "-a", name)
    assert (done.code, done.err) == (0, "")
    assert done.out.count("digest: sha256:") == 2
    assert call(daemon, "rmi", f"{name}:1", f"{name}:2").code == 0
    done = call(daemon, "pull", "--all-tags", name)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == name
    listed = call(daemon, "images", "-f", f"reference={name}", "--format", "{{.Tag}}")
    assert listed.lines == ["1", "2"]
    done = call(daemon, "pull", "-a", f"{name}:1")
    assert (done.code, done.err) == (1, "tag can't be used with --all-tags/-a\n")
    done = call(daemon, "push", "-a", f"{registry}/no/such")
    assert (done.code, "has no tags" in done.err) == (1, True)


def test_search(daemon, registry):
    """Of a registry without a search of its own, by its catalog."""
    assert call(daemon, "push", "-q", f"{registry}/team/app:1").code == 0
    for words in (("search", f"{registry}/app"), ("search", "--limit", "5", f"{registry}/team")):
        ours = call(daemon, *words)
        assert (ours.code, ours.err) == (0, "")
        assert ours.lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
        assert [line.split()[0] for line in ours.lines[1:]] == [f"{registry}/team/app"]
        assert ours.out == call(daemon, *words, program=(dockerlab.DOCKER,)).out
    assert call(daemon, "search", f"{registry}/nothing").lines[1:] == []
    done = call(daemon, "search", "--limit", "1000", f"{registry}/app")
    assert (done.code, "between 1 and 100" in done.err) == (1, True)
    done = call(daemon, "search", "-f", "bad=1", f"{registry}/app")
    assert (done.code, "invalid filter" in done.err) == (1, True)
    with library.Engine.open(host=daemon.host) as engine:
        assert [one.name for one in engine.search(f"{registry}/app")] == [f"{registry}/team/app"]
        assert "default" in str(engine.trust_policy()).lower()


def test_a_prune_of_everything(daemon):
    assert call(daemon, "network", "create", "unused").code == 0
    assert call(daemon, "create", "--name", "gone", "bb:1", "sh").code == 0
    asked = call(daemon, "system", "prune", stdin=b"n\n")
    assert "networks not used by at least one container" in asked.out
    assert call(daemon, "ps", "-aq").out
    done = call(daemon, "system", "prune", "-f")
    assert (done.code, done.err) == (0, "")
    assert "Deleted Networks:\nunused\n" in done.out
    assert "Deleted Containers:\n" in done.out
    assert call(daemon, "ps", "-aq").out == ""
