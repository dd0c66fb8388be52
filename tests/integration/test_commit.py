"""diff, commit, sizes and df: what containers changed and what it takes, seen by the real CLI."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest

import dockerlab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI"),
]


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        changes = ("--change", 'CMD ["sh"]', "--change", "LABEL k=v")
        assert made.docker("import", *changes, "-", "bb:1", stdin=tar).code == 0
        yield made


@pytest.fixture
def changed(daemon):
    """A running container that added, changed and removed something."""
    script = "echo 1 > /tmp/new; mkdir /d; echo 2 >> /etc/group; rm /bin/wc; head -c 9999 /dev/zero"
    words = ("sh", "-c", f"{script} > /d/big; touch /tmp/ready; exec sleep 1000")
    name = daemon.docker("run", "-d", "--network", "none", "bb:1", *words).out.strip()
    while daemon.docker("exec", name, "ls", "/tmp/ready").code:
        pass
    yield name
    daemon.docker("rm", "-f", name)


def test_diff_lists_what_the_container_did_and_not_what_we_did(daemon, changed):
    lines = daemon.docker("diff", changed).lines
    changes = "C /bin, D /bin/wc, A /d, A /d/big, C /etc, C /etc/group, C /tmp"
    assert sorted(lines) == sorted(f"{changes}, A /tmp/new, A /tmp/ready".split(", "))
    idle = daemon.docker("run", "-d", "--network", "none", "bb:1", "sleep", "1000").out.strip()
    assert daemon.ask("GET", f"/containers/{idle}/changes") == (200, None)
    daemon.docker("rm", "-f", idle)


def test_commit_makes_an_image_that_runs(daemon, changed):
    words = ("-m", "message", "-a", "me", "-c", "ENV A=b", "-c", 'CMD ["cat", "/tmp/new"]')
    done = daemon.docker("commit", *words, changed, "made:2")
    assert done.code == 0, done.err
    assert daemon.docker("run", "--rm", "--network", "none", "made:2").out == "1\n"
    seen = json.loads(daemon.docker("inspect", "made:2").out)[0]
    assert seen["Id"] == done.out.strip()
    assert (seen["Author"], seen["Comment"]) == ("me", "message")
    assert seen["Config"]["Cmd"] == ["cat", "/tmp/new"]
    assert seen["Config"]["Labels"] == {"k": "v"}
    assert "A=b" in seen["Config"]["Env"]
    gone = daemon.docker("run", "--rm", "--network", "none", "made:2", "ls", "/bin/wc")
    assert gone.code != 0
    assert daemon.docker("history", "-q", "made:2").lines[0] in done.out
    assert daemon.docker("inspect", "-f", "{{.State.Status}}", changed).out == "running\n"


def test_mount_points_of_ours_are_in_no_image(daemon):
    """The image has no /dev/shm, /etc/hosts and /sys; what the runtime made of them stays away."""
    words = ("sh", "-c", "echo 1 > /kept; mkdir /srv")
    ref = daemon.docker("run", "-d", "--network", "none", "-v", "/data", "bb:1", *words).out.strip()
    daemon.docker("wait", ref)
    daemon.docker("commit", ref, "made:points")
    daemon.docker("rm", "-v", ref)
    saved = daemon.exchange("GET", "/images/made:points/get")[2]
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
        layer = archive.extractfile(manifest[0]["Layers"][-1]).read()
    with tarfile.open(fileobj=io.BytesIO(layer)) as top:
        names = {name.removeprefix("./").strip("/") for name in top.getnames()}
    assert {"kept", "srv", "data"} <= names
    assert names.isdisjoint({"dev", "dev/shm", "etc/hosts", "etc/hostname", "proc", "sys"})


def test_commit_merges_the_body(daemon, changed):
    body = {"Cmd": ["true"], "Env": ["X=1"], "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}}
    status, made = daemon.ask("POST", f"/commit?container={changed}&repo=made&tag=3", body)
    assert status == 201
    config = daemon.ask("GET", f"/images/{made['Id']}/json")[1]["Config"]
    assert config["Cmd"] == ["true"]
    assert config["Labels"] == {"k": "v", "a": "b"}
    assert config["ExposedPorts"] == {"80/tcp": {}}


def test_commit_keeps_the_health_check(daemon):
    words = ("--health-cmd", "true", "--health-retries", "7", "--network", "none")
    made = daemon.docker("create", *words, "bb:1", "true").out.strip()
    assert daemon.docker("commit", made, "made:4").code == 0
    check = daemon.ask("GET", "/images/made:4/json")[1]["Config"]["Healthcheck"]
    assert (check["Test"], check["Retries"]) == (["CMD-SHELL", "true"], 7)
    daemon.docker("rm", made)


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("container=nobody", 404, "No such container: nobody"),
        ("", 400, "container is needed"),
        ("container={}&changes=FROM+x", 400, "FROM is not an instruction"),
        ("container={}&repo=UPPER", 400, "UPPER"),
    ],
)
def test_commits_that_are_refused(daemon, changed, query, status, words):
    answer = daemon.ask("POST", "/commit?" + query.format(changed))
    assert answer[0] == status, answer
    assert words in answer[1]["message"]


def test_a_container_of_a_directory_cannot_be_committed(daemon):
    body = {"Rootfs": f"{daemon.base}/rootfs:O", "Cmd": ["true"]}
    made = daemon.ask("POST", "/containers/create", body)[1]["Id"]
    status, answer = daemon.ask("POST", f"/commit?container={made}")
    assert (status, "no image below it" in answer["message"]) == (400, True)
    daemon.ask("DELETE", f"/containers/{made}")


def test_a_container_that_wrote_nothing_has_no_size(daemon):
    made = daemon.docker("run", "-d", "--network", "none", "bb:1", "true").out.strip()
    daemon.ask("POST", f"/containers/{made}/wait")
    seen = daemon.ask("GET", f"/containers/{made}/json?size=1")[1]
    assert (seen["SizeRw"], daemon.ask("POST", "/containers/prune")[0]) == (0, 200)


def test_sizes_and_df(daemon, changed):
    line = daemon.ask("GET", "/containers/json?size=1")[1][0]
    image = daemon.ask("GET", "/images/bb:1/json")[1]
    assert line["SizeRw"] > 9999
    assert line["SizeRootFs"] == image["Size"] + line["SizeRw"]
    assert "SizeRw" not in daemon.ask("GET", "/containers/json")[1][0]
    seen = daemon.ask("GET", f"/containers/{changed}/json?size=1")[1]
    assert (seen["SizeRw"], seen["SizeRootFs"]) == (line["SizeRw"], line["SizeRootFs"])
    used = daemon.ask("GET", "/system/df")[1]
    assert used["LayersSize"] >= image["Size"]
    mine = next(entry for entry in used["Images"] if entry["RepoTags"] == ["bb:1"])
    assert (mine["Containers"], mine["Id"]) == (1, image["Id"])
    only = daemon.ask("GET", "/system/df?type=image")[1]
    assert (only["Containers"], bool(only["Images"])) == (None, True)
    assert daemon.ask("GET", "/system/df?type=nothing")[0] == 400
    assert daemon.docker("system", "df", "-v").code == 0


def test_execs_are_listed_while_they_run(daemon, changed):
    exec_id = daemon.ask("POST", f"/containers/{changed}/exec", {"Cmd": ["sleep", "1000"]})[1]["Id"]
    assert daemon.ask("GET", f"/containers/{changed}/json")[1]["ExecIDs"] is None
    daemon.ask("POST", f"/exec/{exec_id}/start", {"Detach": True})
    assert daemon.ask("GET", f"/containers/{changed}/json")[1]["ExecIDs"] == [exec_id]
