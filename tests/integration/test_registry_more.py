"""What registries can beside plain pulls: mounts, pieces, indexes, copies, tags, referrers."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from pathlib import Path

import pytest

from imagelab import store
from realregistry import PASSWORD, USER, available, real_registry
from registry_fixture import BASIC, FakeRegistry, error, manifest, tar
from sampan.errors import FailedPrecondition, NotFound, Unauthenticated, Unavailable
from sampan.registry import push as push_module
from sampan.registry.client import Registry
from sampan.registry.credentials import Credentials
from sampan.registry.hosts import Hosts
from sampan.registry.login import registry_of
from sampan.registry.retry import Retry
from sampan.spec import mediatypes
from sampan.spec.platform import Platform
from sampan.spec.reference import Reference

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root")
ALICE = Credentials(USER, PASSWORD)
ROOT = gzip.compress(tar({"etc/hello": os.urandom(40_000)}))


async def root():
    yield ROOT


def run(tmp_path, work, **options):
    async def main():
        async with FakeRegistry(**options) as fake, store(tmp_path / "s") as one:
            await work(fake, one)
            assert one.leftovers() == []

    asyncio.run(main())


# push


def test_a_blob_of_another_repository_is_mounted(tmp_path):
    async def work(fake, one):
        fake.with_mounts = True
        await one.service.import_tar(root(), f"{fake.name}/first:1")
        await one.service.push(f"{fake.name}/first:1")
        await one.service.tag(f"{fake.name}/first:1", f"{fake.name}/second:1")
        layer = (await one.service.get(f"{fake.name}/first:1")).layers[0].digest
        fake.faults[layer] = absent_once()
        fake.requests.clear()
        steps = []
        await one.service.push(f"{fake.name}/second:1", progress=steps.append)
        assert "Mounted from first" in [step.status for step in steps]
        assert not [path for path in fake.paths("PUT") if "uploads" in path]

    run(tmp_path, work)


def absent_once():
    seen = []

    async def answer(fake, request):
        seen.append(request.path)
        return error(404, "BLOB_UNKNOWN") if len(seen) == 1 else None

    return answer


def test_a_registry_that_does_not_mount_gets_the_blob(tmp_path):
    async def work(fake, one):
        await one.service.import_tar(root(), f"{fake.name}/first:1")
        await one.service.tag(f"{fake.name}/first:1", f"{fake.name}/second:1")
        await one.service.push(f"{fake.name}/second:1")
        assert fake.manifests["second", "1"]

    run(tmp_path, work)


def test_a_large_blob_goes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(push_module, "PIECE", 10_000)

    async def work(fake, one):
        await one.service.import_tar(root(), f"{fake.name}/a:1")
        await one.service.push(f"{fake.name}/a:1")
        sent = [r for r in fake.requests if r.method in ("PATCH", "PUT") and "uploads" in r.path]
        ranges = [r.headers.get("Content-Range") for r in sent]
        assert ranges[:2] == ["0-9999", "10000-19999"]
        assert [r.method for r in sent[:-2]] == ["PATCH"] * (len(sent) - 2)

    run(tmp_path, work)


def test_a_broken_upload_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(push_module, "PIECE", 10_000)
    broken = []

    async def break_third(fake, request):
        broken.append(request.method)
        if len(broken) == 3:
            place = request.path.rpartition("/")[2]
            fake.uploads[place] += (await request.read())[:3000]  # a part of it arrived
            request.transport.close()
            return error(500, "UNKNOWN")
        return None

    async def work(fake, one):
        await one.service.import_tar(root(), f"{fake.name}/a:1")
        fake.faults["upload"] = break_third
        await one.service.push(f"{fake.name}/a:1")
        starts = [r.headers.get("Content-Range") for r in fake.requests if r.method == "PATCH"]
        assert starts[2:4] == ["20000-29999", "23000-32999"]

    run(tmp_path, work)


# indexes


def index_of(fake, repository="multi"):
    """An index with two platforms and a document that is no image."""
    images = [
        fake.put_image(
            repository, f"x{name}", platform=("linux", name), layers=[tar({"a": name.encode()})]
        )
        for name in ("amd64", "arm64")
    ]
    empty = fake.put_blob(b"{}", "application/vnd.oci.empty.v1+json")
    content = manifest(mediatypes.OCI_MANIFEST, empty, [empty], artifactType="text/note")
    note = fake.put_manifest(repository, "note", content, mediatypes.OCI_MANIFEST)
    entries = [
        (image.descriptor, {"os": "linux", "architecture": name})
        for image, name in zip(images, ("amd64", "arm64"), strict=True)
    ]
    return images, fake.put_index([*entries, (note, {"os": "unknown", "architecture": "unknown"})],
                                  repository)  # fmt: skip


def test_every_platform_comes_and_goes(tmp_path):
    async def work(fake, one):
        images, index = index_of(fake)
        found = await one.service.pull(f"{fake.name}/multi", every_platform=True)
        assert found.id == images[0].config.digest
        arm = Platform("linux", "arm64")
        other = await one.service.get(f"{fake.name}/multi", arm)
        assert other.id == images[1].config.digest
        await one.service.unpack(f"{fake.name}/multi", arm)
        await one.service.tag(f"{fake.name}/multi", f"{fake.name}/again")
        assert await one.service.push(f"{fake.name}/again:latest") == index.digest
        for (repository, target), document in list(fake.manifests.items()):
            if repository == "multi" and target.startswith("sha256:"):
                assert fake.manifests["again", target] == document
        only = await one.service.push(f"{fake.name}/again:latest", platform=arm)
        assert only == images[1].descriptor.digest

    run(tmp_path, work)


def test_one_platform_is_pushed_as_what_it_is(tmp_path):
    async def work(fake, one):
        images, _ = index_of(fake)
        await one.service.pull(f"{fake.name}/multi")
        await one.service.tag(f"{fake.name}/multi", f"{fake.name}/again")
        digest = await one.service.push(f"{fake.name}/again:latest")
        assert digest == images[0].descriptor.digest

    run(tmp_path, work)


def test_a_copy_needs_no_image(tmp_path):
    async def work(fake, one):
        images, index = index_of(fake)
        async with FakeRegistry(auth="basic") as other:
            digest = await one.service.copy(
                f"{fake.name}/multi", f"{other.name}/copied:2", destination_auth=ALICE
            )
            assert digest == index.digest
            assert ("copied", "2") in other.manifests
            assert other.blobs.keys() >= {layer.digest for i in images for layer in i.layers}
            assert BASIC not in fake.authorizations()
        assert await one.service.list() == []
        assert one.blobs() == set()
        assert one.keys() == set()

    run(tmp_path, work)


def test_a_copy_in_one_registry_moves_no_bytes(tmp_path):
    async def work(fake, one):
        fake.with_mounts = True
        _, index = index_of(fake)
        await one.service.copy(f"{fake.name}/multi", f"{fake.name}/copied")
        assert ("copied", str(index.digest)) in fake.manifests
        assert not [path for path in fake.paths("PUT") if "uploads" in path]

    run(tmp_path, work)


# looking


def test_tags_of_all_pages(tmp_path):
    async def work(fake, one):
        for tag in ("a", "b", "c", "d", "e"):
            fake.put_image("lib/x", tag)
        remote = one.service.remote(f"{fake.name}/lib/x")
        assert await remote.tags() == ["a", "b", "c", "d", "e"]

    run(tmp_path, work)


def test_pages_of_tags_stay_with_the_registry(tmp_path):
    async def astray(fake, request):
        from aiohttp import web

        link = '<http://127.0.0.2:1/v2/lib/x/tags/list?last=a>; rel="next"'
        return web.json_response({"name": "x", "tags": ["a"]}, headers={"Link": link})

    async def work(fake, one):
        fake.faults["list"] = astray
        with pytest.raises(FailedPrecondition, match="another server"):
            await one.service.remote(f"{fake.name}/lib/x").tags()

    run(tmp_path, work)


@pytest.mark.parametrize("has_endpoint", [True, False])
def test_referrers(tmp_path, has_endpoint):
    async def work(fake, one):
        fake.with_referrers = has_endpoint
        image = fake.put_image("lib/x")
        signature = refer(fake, image, "text/signature")
        refer(fake, image, "text/other")
        remote = one.service.remote(f"{fake.name}/lib/x")
        digest, found = await remote.referrers("text/signature")
        assert digest == image.descriptor.digest
        assert [entry.digest for entry in found] == [signature.digest]
        assert len((await remote.referrers())[1]) == 2
        image = fake.put_image("lib/x", "alone", created="2021-01-01T00:00:00Z")
        remote = one.service.remote(f"{fake.name}/lib/x:alone")
        assert (await remote.referrers())[1] == []

    run(tmp_path, work)


def refer(fake, image, kind):
    """An artifact about an image, also under the tag for registries without the endpoint."""
    empty = fake.put_blob(b"{}", "application/vnd.oci.empty.v1+json")
    subject = {
        "mediaType": image.descriptor.media_type,
        "digest": image.descriptor.digest,
        "size": image.descriptor.size,
    }
    content = manifest(mediatypes.OCI_MANIFEST, empty, [empty], artifactType=kind, subject=subject)
    made = fake.put_manifest("lib/x", kind, content, mediatypes.OCI_MANIFEST)
    tag = image.descriptor.digest.replace(":", "-")
    before = fake.manifests.get(("lib/x", tag))
    entries = json.loads(before[1])["manifests"] if before else []
    entry = {"mediaType": made.media_type, "digest": made.digest, "size": made.size}
    entries.append({**entry, "artifactType": kind})
    document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}
    if not fake.with_referrers:
        content = json.dumps(document).encode()
        fake.put_manifest("lib/x", tag, content, mediatypes.OCI_INDEX)
    return made


def test_what_is_there_without_pulling_it(tmp_path):
    async def work(fake, one):
        image = fake.put_image("lib/x")
        found = await one.service.remote(f"{fake.name}/lib/x").manifest()
        assert found.descriptor.digest == image.descriptor.digest
        assert found.platforms == (Platform("linux", "amd64"),)
        index_of(fake)
        found = await one.service.remote(f"{fake.name}/multi").manifest()
        assert [str(platform) for platform in found.platforms] == [
            "linux/amd64",
            "linux/arm64",
            "unknown/unknown",
        ]
        with pytest.raises(NotFound):
            await one.service.remote(f"{fake.name}/lib/none").manifest()
        assert one.blobs() == set()

    run(tmp_path, work)


def test_a_rate_limit_is_explained(tmp_path):
    async def limited(fake, request):
        headers = {"Retry-After": "60", "RateLimit-Limit": "100;w=21600"}
        return error(429, "TOOMANYREQUESTS", headers=headers)

    async def work(fake, one):
        fake.put_image("lib/x")
        fake.faults["latest"] = limited
        one.service._registry.retry = Retry(attempts=1)
        with pytest.raises(Unavailable) as caught:
            await one.service.pull(f"{fake.name}/lib/x")
        for words in ("(100 in 6 hours)", "try again in 60 seconds", f"log in to {fake.name}"):
            assert words in str(caught.value)

    run(tmp_path, work)


# logins


@pytest.mark.parametrize("kind", ["", "basic", "bearer"])
def test_login_asks_the_registry(kind):
    async def main():
        async with FakeRegistry(auth=kind) as fake:
            registry = Registry(Hosts(), Retry(attempts=1))
            try:
                assert await registry.login(f"http://{fake.name}/v1/", ALICE) == ""
                if kind:
                    with pytest.raises(Unauthenticated, match="refused"):
                        await registry.login(fake.name, Credentials(USER, "wrong"))
            finally:
                await registry.aclose()

    asyncio.run(main())


def test_login_does_not_show_the_password_to_others():
    async def main():
        async with FakeRegistry() as other:
            realm = f"http://127.0.0.2:{other.port}/token"
            async with FakeRegistry(auth="bearer", realm=realm) as fake:
                registry = Registry(Hosts(), Retry(attempts=1))
                try:
                    with pytest.raises(FailedPrecondition, match="refuse to show"):
                        await registry.login(fake.name, ALICE)
                finally:
                    await registry.aclose()
            assert other.requests == []

    asyncio.run(main())


def test_which_registry_a_server_address_means():
    cases = {
        "": "docker.io",
        "https://index.docker.io/v1/": "docker.io",
        "docker.io": "docker.io",
        "https://r.example/v2/": "r.example",
        "localhost:5000": "localhost:5000",
        "r.example:5000": "r.example:5000",
    }
    assert {text: registry_of(text) for text in cases} == cases


@pytest.mark.skipif(not available, reason="docker-registry is not installed")
def test_login_at_a_real_registry_and_pieces_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(push_module, "PIECE", 10_000)

    async def work(name):
        async with store(tmp_path / "s") as one:
            assert await one.service.login(name, ALICE) == ""
            with pytest.raises(Unauthenticated):
                await one.service.login(name, Credentials(USER, "wrong"))
            image = await one.service.import_tar(root(), f"{name}/first:1")
            await one.service.push(f"{name}/first:1", auth=ALICE)
            await one.service.tag(f"{name}/first:1", f"{name}/second:1")
            steps = []
            await one.service.push(f"{name}/second:1", auth=ALICE, progress=steps.append)
            assert "Mounted from first" in [step.status for step in steps]
            await one.service.copy(
                f"{name}/second:1", f"{name}/third:1", auth=ALICE, destination_auth=ALICE
            )
            assert await one.service.remote(f"{name}/third", ALICE).tags() == ["1"]
            for ref in ("first:1", "second:1"):
                await one.service.remove(f"{name}/{ref}")
            found = await one.service.pull(f"{name}/third:1", auth=ALICE)
            assert found.id == image.id

    (tmp_path / "r").mkdir()
    with real_registry(tmp_path / "r", login=True) as name:
        asyncio.run(work(name))


# credential helpers

HELPER = """#!/bin/sh
case $1 in
get) read -r server; cat "$HOME/kept-$(echo "$server" | tr -c 'a-z0-9\\n' _)" 2>/dev/null ||
     { echo 'credentials not found in native keychain'; exit 1; } ;;
store) cat > "$HOME/body"; server=$(sed 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/' "$HOME/body")
     cp "$HOME/body" "$HOME/kept-$(echo "$server" | tr -c 'a-z0-9\\n' _)" ;;
erase) read -r server; rm "$HOME/kept-$(echo "$server" | tr -c 'a-z0-9\\n' _)" ;;
esac
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory with a credential helper in its path."""
    (tmp_path / "bin").mkdir()
    helper = tmp_path / "bin/docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    (tmp_path / ".docker").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def configure(home, **document):
    Path(home, ".docker/config.json").write_text(json.dumps(document))


def header(image):
    from sampan.client.credentials import header_for

    return Credentials.from_header(header_for(image))


@pytest.mark.parametrize("where", [{"credsStore": "test"}, {"credHelpers": {"r.example": "test"}}])
def test_a_helper_keeps_the_password(home, where):
    from sampan.client import credentials

    configure(home, **where)
    assert header("r.example/a") is None
    assert credentials.keep("r.example", "alice", "s3cret", "") == "test"
    assert "s3cret" not in Path(home, ".docker/config.json").read_text()
    assert header("r.example/a") == Credentials("alice", "s3cret")
    assert credentials.forget("r.example")
    assert header("r.example/a") is None
    assert credentials.keep("r.example", "alice", "x", "the-token") == "test"
    assert header("r.example/a") == Credentials(identity_token="the-token")


def test_the_file_keeps_it_otherwise(home):
    from sampan.client import credentials

    assert credentials.keep("r.example", "alice", "pass:word", "") == ""
    assert header("r.example/a") == Credentials("alice", "pass:word")
    assert header("a") is None
    assert os.stat(home / ".docker/config.json").st_mode & 0o777 == 0o600
    assert credentials.keep("r.example", "alice", "x", "t") == ""
    assert header("r.example/a").identity_token == "t"
    assert credentials.forget("r.example")
    assert not credentials.forget("r.example")


def test_a_helper_that_fails_is_told(home):
    from sampan.errors import InvalidArgument

    configure(home, credsStore="none")
    with pytest.raises(Unavailable, match="docker-credential-none"):
        header("r.example/a")
    configure(home, credsStore="../../bin/sh")
    with pytest.raises(InvalidArgument, match="not the name"):
        header("r.example/a")
    assert Reference.parse("r.example/a").registry == "r.example"
