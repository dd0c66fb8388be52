"""Builds as people start them: the docker CLI, docker-py's requests, and `sampan build`.

One daemon serves them all; what a build made is looked at from inside of its image.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import dockerlab
import realregistry
import sampanlab
from buildlab import context

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
]
needs_docker = pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI")
STAGES = """\
FROM bb:1 AS one
ARG V=1
RUN echo hello $V
COPY f /f
FROM bb:1
COPY --from=one /f /g
RUN cat /g
"""


@pytest.fixture(scope="module")
def daemon():
    with dockerlab.daemon() as made:
        tar = dockerlab.tar_of(f"{made.base}/rootfs")
        status, _, _ = made.exchange("POST", "/images/create?fromSrc=-&repo=bb&tag=1", tar)
        assert status == 200
        yield made


@pytest.fixture
def place(tmp_path):
    """A context of a few files."""
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("ef\n")
    (tmp_path / "d/a").write_text("a\n")
    (tmp_path / "Dockerfile").write_text(STAGES)
    return tmp_path


@pytest.fixture
def sampan(daemon, place):
    """The command line, in the context's directory."""
    return sampanlab.command_line(daemon, place)


def output_of(sampan, image, *command):
    return sampan("run", "--rm", "--network", "none", image, *command).out


@needs_docker
def test_docker_builds_with_the_classic_protocol(daemon, place):
    def build(*flags):
        environ = {**daemon.environ, "DOCKER_BUILDKIT": "0"}
        command = [dockerlab.DOCKER, "build", "-t", "d:1", *flags, str(place)]
        done = subprocess.run(command, env=environ, capture_output=True, check=False, timeout=60)
        return done.returncode, done.stdout.decode()

    code, said = build("--build-arg", "V=2", "--label", "who=me")
    assert code == 0
    assert "Step 1/8 : FROM bb:1 AS one\n" in said
    assert "\nhello 2\n" in said
    assert said.endswith("Successfully tagged d:1\n")
    shown = daemon.ask("GET", "/images/d:1/json")[1]
    assert shown["Config"]["Labels"] == {"who": "me"}
    code, said = build("--build-arg", "V=2", "--label", "who=me")
    assert said.count(" ---> Using cache\n") == 6
    (place / "Dockerfile").write_text("FROM bb:1\nRUN exit 7\n")
    assert build()[0] == 7


def test_clients_in_go_send_null_for_nothing(daemon):
    nothing = "&".join(
        f"{name}=null" for name in ("buildargs", "labels", "cachefrom", "ulimits", "outputs")
    )
    files = context({"Dockerfile": "FROM bb:1\nCMD x\n"})
    headers = {"X-Registry-Config": base64.urlsafe_b64encode(b"null").decode()}
    status, _, text = daemon.exchange("POST", f"/build?t=null:1&{nothing}", files, **headers)
    assert (status, b"Successfully tagged null:1" in text) == (200, True)


@needs_docker
def test_docker_prunes_what_it_counts(daemon, place, sampan):
    sampan("build", "-t", "p:1", ".")
    counted = daemon.ask("GET", "/system/df")[1]["BuildCache"]
    assert counted
    assert {record["Type"] for record in counted} == {"regular", "source.local"}
    assert "Build Cache" in daemon.docker("system", "df").out
    daemon.docker("builder", "prune", "-f", "--filter", "label=none")
    assert daemon.ask("GET", "/system/df")[1]["BuildCache"] == counted
    assert "Total reclaimed space" in daemon.docker("builder", "prune", "-f").out
    assert daemon.ask("GET", "/system/df")[1]["BuildCache"] == []
    assert output_of(sampan, "p:1", "cat", "/g") == "ef\n"


def test_progress_is_told_as_buildkit_does(sampan):
    said = sampan("build", "--no-cache", "-t", "s:1", ".").err
    assert "[one 2/3] RUN echo hello $V\n" in said
    assert " hello 1\n" in said
    assert "naming to s:1 done\n" in said
    assert "CACHED" not in said
    again = sampan("build", "-t", "s:1", ".").err
    assert again.count(" CACHED\n") == 4


def test_progress_as_json(sampan):
    said = sampan("build", "--no-cache", "--progress", "rawjson", ".").err
    lines = [json.loads(line) for line in said.splitlines()]
    names = {vertex["name"] for line in lines for vertex in line.get("vertexes", ())}
    assert "[stage-1 3/3] RUN cat /g" in names
    logs = [log for line in lines for log in line.get("logs", ())]
    assert {log["stream"] for log in logs} == {1}


def test_a_failure_shows_its_line(sampan, place):
    (place / "Dockerfile").write_text("FROM bb:1\nRUN echo why; exit 7\nCMD true\n")
    said = sampan("build", ".", code=1).err
    assert "Dockerfile:2\n" in said
    assert "   2 | >>> RUN echo why; exit 7\n" in said
    assert " > [2/2] RUN echo why; exit 7:\nwhy\n" in said
    assert "returned a non-zero code: 7" in said.splitlines()[-1]


def test_mistakes_are_told_before_anything_is_built(sampan, place):
    (place / "Dockerfile").write_text("FROM bb:1\nRNU x\n")
    assert "Dockerfile:2:1: unknown instruction: RNU (did you mean RUN?)" in (
        sampan("build", ".", code=1).err
    )
    assert "not found" in sampan("build", "nowhere", code=1).err
    assert "failed to read dockerfile" in sampan("build", "-f", "no", ".", code=1).err
    assert "invalid progress" in sampan("build", "--progress", "loud", ".", code=1).err
    assert "invalid output type" in sampan("build", "-o", "type=tra,dest=x", ".", code=1).err
    assert "no such file" in sampan("build", "--secret", "id=x,src=/no", ".", code=1).err.lower()
    assert "invalid secret" in sampan("build", "--secret", "id=x,path=/no", ".", code=1).err
    assert "SSH_AUTH_SOCK" in sampan("build", "--ssh", "default", ".", code=1).err


def test_check_finds_and_builds_nothing(sampan, place):
    (place / "Dockerfile").write_text("from bb:1 AS Up\nCMD echo\nRUN false\nENV TOKEN=x\n")
    found = sampan("build", "--check", ".", code=1).out
    rules = {line.split(": ")[1] for line in found.splitlines() if line.startswith("WARNING: ")}
    assert rules == {
        "ConsistentInstructionCasing",
        "FromAsCasing",
        "JSONArgsRecommended",
        "SecretsUsedInArgOrEnv",
        "StageNameCasing",
    }
    (place / "Dockerfile").write_text('# check=skip=all\nfrom bb:1 AS Up\nCMD ["echo"]\n')
    assert "no warnings" in sampan("build", "--check", ".").out


def test_dockerfiles_and_contexts_from_standard_input(sampan, place):
    first = sampan("build", "-q", "-", stdin=b"FROM bb:1\nRUN echo x > /x\n").out.strip()
    assert output_of(sampan, first, "cat", "/x") == "x\n"
    second = sampan("build", "-q", "-f", "-", ".", stdin=b"FROM bb:1\nCOPY . /c/\n").out.strip()
    assert output_of(sampan, second, "ls", "/c") == "Dockerfile\nd\nf\n"
    tar = context({"Dockerfile": "FROM bb:1\nCOPY t /t\n", "t": "tee"})
    third = sampan("build", "-q", "-", stdin=tar).out.strip()
    assert output_of(sampan, third, "cat", "/t") == "tee"
    outside = place.parent / "Elsewhere"
    outside.write_text("FROM bb:1\nCOPY . /c/\n")
    fourth = sampan("build", "-q", "-f", str(outside), ".").out.strip()
    assert fourth == second


def test_ignore_files(sampan, place):
    (place / ".dockerignore").write_text("*\n!d/a\n!f\n")
    (place / "Dockerfile").write_text("FROM bb:1\nCOPY . /c/\n")
    first = sampan("build", "-q", ".").out.strip()
    assert output_of(sampan, first, "sh", "-c", "find /c -type f | wc -l; cat /c/d/a /c/f") == (
        "2\na\nef\n"
    )
    (place / "Own").write_text("FROM bb:1\nCOPY . /c/\n")
    (place / "Own.dockerignore").write_text("d\n.*\nDockerfile\nOwn*\n")
    second = sampan("build", "-q", "-f", "Own", ".").out.strip()
    assert output_of(sampan, second, "find", "/c", "-type", "f") == "/c/f\n"


def test_outputs(sampan, place):
    (place / "Dockerfile").write_text("FROM scratch\nCOPY d /z\nCOPY f /f\n")
    before = sampan("images", "-q").out
    sampan("build", "-o", "out", ".")
    assert (place / "out/z/a").read_text() == "a\n"
    listed = sampan("build", "-q", "-o", "type=tar,dest=out.tar", ".")
    assert listed.out.startswith("sha256:")
    with tarfile.open(place / "out.tar") as tar:
        assert sorted(tar.getnames()) == ["f", "z", "z/a"]
    assert sampan("images", "-q").out == before
    sampan("build", "-t", "o:1", "-o", "type=oci,dest=oci.tar", ".")
    with tarfile.open(place / "oci.tar") as tar:
        assert "index.json" in tar.getnames()
    sampan("build", "-t", "o:1", "-o", "type=oci,dest=layout,tar=false", ".")
    assert (place / "layout/oci-layout").exists()
    sampan("build", "--iidfile", "iid", "--metadata-file", "meta", "-t", "o:1", ".")
    written = json.loads((place / "meta").read_text())
    assert written["containerimage.config.digest"] == (place / "iid").read_text()
    assert written["image.name"] == "o:1"


def test_a_cache_in_a_directory(sampan):
    sampan("build", "-t", "s:1", "--cache-to", "type=local,dest=cache,mode=max", ".")
    sampan("builder", "prune", "-f")
    sampan("rmi", "-f", "s:1")
    again = sampan("build", "-t", "s:1", "--cache-from", "type=local,src=cache", ".").err
    assert again.count(" CACHED\n") == 4
    assert "sampan-cache" not in sampan("images").out
    assert "not supported" in sampan("build", "--cache-to", "type=s3,ref=x", ".", code=1).err


@pytest.mark.skipif(not realregistry.available, reason="needs docker-registry")
def test_images_and_caches_at_a_registry(sampan, tmp_path_factory):
    with realregistry.real_registry(tmp_path_factory.mktemp("registry")) as registry:
        name, cache = f"{registry}/app:1", f"{registry}/app:cache"
        where = f"type=registry,ref={cache},mode=max"
        sampan("build", "-t", name, "--cache-to", where, "--push", ".")
        sampan("rmi", "-f", name)
        sampan("builder", "prune", "-f")
        again = sampan("build", "-t", "s:1", "--cache-from", cache, ".").err
        assert again.count(" CACHED\n") == 4
        tags = sampan("image", "tags", f"{registry}/app").out.split()
        assert set(tags) == {"1", "cache", "cache-stage-0", "cache-stage-1"}
        based = f"FROM {name}\nRUN cat /g > /h\n".encode()
        image = sampan("build", "-q", "--pull", "-", stdin=based).out.strip()
        assert output_of(sampan, image, "cat", "/h") == "ef\n"


@pytest.mark.skipif(not realregistry.available, reason="needs docker-registry")
def test_documents_about_an_image_are_its_referrers(daemon, sampan, place, tmp_path_factory):
    data = tmp_path_factory.mktemp("registry")
    status = "Package: it\nStatus: install ok installed\nVersion: 1\n"
    (place / "Dockerfile").write_text(
        f"FROM bb:1\nARG SECRET\nCOPY <<E /var/lib/dpkg/status\n{status}E\n"
    )
    assert "--push" in sampan("build", "--sbom=true", ".", code=1).err
    with realregistry.real_registry(data) as registry:
        name = f"{registry}/app:1"
        flags = ("--sbom=true", "--provenance=true", "--build-arg", "SECRET=hush-1234")
        sampan("build", "-t", name, "--push", *flags, ".")
        found = sampan("image", "referrers", name).out
        assert found.count("application/spdx+json") == 1
        assert found.count("application/vnd.in-toto+json") == 1
        image = json.loads(sampan("inspect", name).out)[0]["Id"]
        bill = daemon.exchange("GET", f"/images/{image}/sbom")[2]
        assert [one["name"] for one in json.loads(bill)["packages"]] == [image, "it"]
    blobs = b"".join(path.read_bytes() for path in Path(data).rglob("data") if path.is_file())
    assert b"slsa.dev/provenance/v1" in blobs
    assert b"hush-1234" not in blobs


def test_an_output_of_files_stays_in_its_directory(sampan, place):
    outside = place.parent / "outside"
    outside.mkdir()
    (place / "Dockerfile").write_text(f"FROM bb:1\nRUN mkdir /x; ln -s {outside} /x/l\n")
    sampan("build", "-o", "out", "-f", "-", ".", stdin=b"FROM scratch\nCOPY f /l/f\n")
    sampan("build", "-o", "out2", ".")
    assert os.path.islink(place / "out2/x/l")
    os.symlink(outside, place / "out/m")
    sampan("build", "-o", "out", "-f", "-", ".", stdin=b"FROM scratch\nCOPY f /m/f\n")
    assert os.listdir(outside) == []


def test_secrets_and_named_contexts(sampan, place):
    (place / "Dockerfile").write_text(
        "FROM bb:1\nRUN --mount=type=secret,id=k,required cat /run/secrets/k | wc -c\n"
        "RUN --mount=type=secret,id=v,env=V,required echo ${V:+set}\nCOPY --from=other a /a\n"
    )
    (place / "key").write_text("hush\n")
    flags = ("--secret", "id=k,src=key", "--secret", "id=v,env=VAR", "--build-context", "other=d")
    done = sampan("build", "-q", *flags, ".", VAR="x")
    assert output_of(sampan, done.out.strip(), "cat", "/a") == "a\n"
    said = sampan("build", "--no-cache", *flags, ".", VAR="x").err
    assert " 5\n" in said
    assert " set\n" in said
    other = ("--build-context", "other=docker-image://bb:1")
    image = sampan(
        "build", "-q", *other, "-", stdin=b"FROM scratch\nCOPY --from=other /etc/group /g\n"
    )
    assert image.out.startswith("sha256:")


def test_the_rest_of_the_flags(sampan, place):
    (place / "Dockerfile").write_text(
        "FROM bb:1 AS first\nRUN cat /etc/hosts; cat /proc/self/limits\nFROM first\nRUN false\n"
    )
    said = sampan(
        *("build", "--target", "first", "--add-host", "there:192.0.2.7", "--ulimit", "nofile=77"),
        *("--label", "a=b", "--platform", "linux/amd64", "--shm-size", "1m", "."),
    ).err
    assert "192.0.2.7\tthere" in said
    assert " 77 " in said
    assert "cannot" not in said
    Path(place / "Dockerfile").write_text("FROM bb:1\nRUN --network=host true\n")
    assert "not allowed" in sampan("build", ".", code=1).err
    sampan("build", "--allow", "network.host", ".")


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="needs docker-compose")
def test_compose_builds_what_it_runs(daemon, place):
    (place / "Dockerfile").write_text(
        "FROM bb:1 AS base\nARG WHO=nobody\nRUN echo $WHO > /who\nFROM base AS app\nCOPY f /f\n"
        "FROM base\nRUN false\n"
    )
    (place / "docker-compose.yml").write_text(
        'version: "2.4"\nservices:\n  app:\n    image: made:1\n    network_mode: none\n'
        "    build:\n      context: .\n      target: app\n      args: {WHO: compose}\n"
        "      labels: {by: compose}\n    command: cat /who /f\n"
    )

    def compose(*words):
        done = subprocess.run(
            ["docker-compose", "--project-name", "made", *words],
            cwd=place,
            env={**daemon.environ, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"},
            capture_output=True,
            check=False,
            timeout=dockerlab.PATIENCE,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    assert "Successfully tagged made:1" in compose("build")
    assert "Using cache" in compose("build")
    try:
        assert "compose\n" in compose("up", "--no-color")
        shown = daemon.ask("GET", "/images/made:1/json")[1]
        assert shown["Config"]["Labels"]["by"] == "compose"
    finally:
        compose("down")
