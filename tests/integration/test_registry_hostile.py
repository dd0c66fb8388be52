"""A registry that lies in everything beside plain pulls: lists, uploads, indexes, signatures.

Each case must end with its error, in bounded time and with bounded reading, leave the store as it
was, and show nothing to a foreign origin.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os

import pytest
from aiohttp import web

from imagelab import store
from registry_fixture import BASIC, PASSWORD, USER, FakeRegistry, faults, index, manifest, tar
from sampan.errors import (
    DigestMismatch,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SampanError,
)
from sampan.images.trust import Untrusted
from sampan.registry import listing
from sampan.registry.credentials import Credentials
from sampan.registry.hosts import Hosts
from sampan.spec import mediatypes
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor
from signing import Signer, attach, payload_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root")
ALICE = Credentials(USER, PASSWORD)
ROOT = gzip.compress(tar({"etc/hello": os.urandom(30_000)}))
SECONDS = 20


async def root():
    yield ROOT


def run(tmp_path, work, **options):
    async def main():
        async with (
            asyncio.timeout(SECONDS),
            FakeRegistry(host="127.0.0.2") as foreign,
            FakeRegistry() as fake,
            store(tmp_path / "s", **options) as one,
        ):
            await work(fake, one, foreign)
            assert foreign.authorizations() == []
            assert one.leftovers() == []
            assert one.ingests() == []

    asyncio.run(main())


def answer(content, status=200, **headers):
    async def fault(fake, request):
        headers_ = {key.replace("_", "-"): value for key, value in headers.items()}
        return web.Response(body=content, status=status, headers=headers_)

    return fault


# lists

LISTS = {
    "endless": (faults.endless(), SampanError),
    "no JSON": (answer(b"<html>"), InvalidArgument),
    "another document": (answer(b'{"tags": "a"}'), InvalidArgument),
    "a list": (answer(b"[]"), InvalidArgument),
    "keys twice": (answer(b'{"tags": [], "tags": ["a"]}'), InvalidArgument),
    "numbers": (answer(b'{"tags": [1]}'), InvalidArgument),
    "nested": (answer(b'{"tags": ' + b"[" * 5000 + b"]" * 5000 + b"}"), InvalidArgument),
    "status": (answer(b"", 500), SampanError),
    "redirect inside": (faults.redirect("http://169.254.169.254/latest"), FailedPrecondition),
    "redirect to a file": (faults.redirect("file:///etc/passwd"), FailedPrecondition),
}


@pytest.mark.parametrize("case", LISTS)
def test_tags(tmp_path, case):
    fault, error = LISTS[case]

    async def work(fake, one, foreign):
        fake.faults["list"] = fault
        with pytest.raises(error):
            await one.service.remote(f"{fake.name}/lib/x", ALICE).tags()

    run(tmp_path, work)


RESULT = {"name": "lib/x", "description": "an x", "star_count": 3, "is_official": True}
SEARCHES = {
    "no JSON": answer(b"{"),
    "another kind": answer(b'{"results": {}}'),
    "a result that is none": answer(b'{"results": ["x"]}'),
    "twice": answer(b'{"results": [], "results": []}'),
    "negative": answer(json.dumps({"results": [RESULT | {"star_count": -1}]}).encode()),
    "very many": answer(json.dumps({"results": [RESULT] * 200}).encode()),
    "endless": faults.endless(),
}


@pytest.mark.parametrize("case", SEARCHES)
def test_searches(tmp_path, case):
    async def work(fake, one, foreign):
        fake.faults["search"] = SEARCHES[case]
        with pytest.raises(SampanError):
            await one.service.remote(f"{fake.name}/x").search("x", 25)

    run(tmp_path, work)


def test_a_search_of_its_own_is_asked_first(tmp_path):
    async def work(fake, one, foreign):
        fake.faults["search"] = answer(json.dumps({"results": [RESULT]}).encode())
        [found] = await one.service.remote(f"{fake.name}/x").search("x", 25)
        assert (found.name, found.stars, found.official) == ("lib/x", 3, True)
        assert fake.paths() == ["/v1/search"]

    run(tmp_path, work)


def test_pages_without_an_end_end(tmp_path):
    async def again(fake, request):
        link = f'<{request.path}?last=a>; rel="next"'
        return web.json_response({"tags": ["a"]}, headers={"Link": link})

    async def work(fake, one, foreign):
        fake.faults["list"] = again
        assert await one.service.remote(f"{fake.name}/lib/x").tags() == ["a"]
        assert len(fake.paths()) <= listing.MAX_PAGES

    run(tmp_path, work)


REFERRERS = {
    "endless": faults.endless(),
    "a manifest": answer(b'{"schemaVersion":2,"config":{},"layers":[]}'),
    "too many": answer(
        index(
            mediatypes.OCI_INDEX,
            [(Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b"x"), 1), None)] * 1001,
        )
    ),
    "digest": answer(
        json.dumps(
            {
                "schemaVersion": 2,
                "manifests": [{"mediaType": "a", "digest": "sha256:../../x", "size": 1}],
            }
        ).encode()
    ),
    "next page elsewhere": answer(
        b'{"schemaVersion":2,"manifests":[]}', Link='<http://127.0.0.2:1/x>; rel="next"'
    ),
}


@pytest.mark.parametrize("case", REFERRERS)
def test_referrers(tmp_path, case):
    async def work(fake, one, foreign):
        image = fake.put_image("lib/x")
        fake.faults[image.descriptor.digest] = only_referrers(REFERRERS[case])
        with pytest.raises(SampanError):
            await one.service.remote(f"{fake.name}/lib/x", ALICE).referrers()

    run(tmp_path, work)


def only_referrers(fault):
    async def chosen(fake, request):
        return await fault(fake, request) if "/referrers/" in request.path else None

    return chosen


# uploads

UPLOADS = {
    "elsewhere, plain": "http://upload.example/x",
    "inside": "http://169.254.169.254/x",
    "user in it": "http://alice:x@127.0.0.1/x",
    "a file": "file:///etc/passwd",
    "nothing": "",
}


@pytest.mark.parametrize("case", UPLOADS)
def test_places_of_uploads(tmp_path, case):
    async def work(fake, one, foreign):
        await one.service.import_tar(root(), f"{fake.name}/a:1")
        before = one.blobs()
        fake.faults["place"] = UPLOADS[case]
        with pytest.raises(FailedPrecondition):
            await one.service.push(f"{fake.name}/a:1", auth=ALICE)
        assert ("a", "1") not in fake.manifests
        assert one.blobs() == before

    run(tmp_path, work)


def test_a_mount_that_did_not_happen_is_found(tmp_path):
    async def lies(fake, request):
        return web.Response(status=201)

    async def work(fake, one, foreign):
        await one.service.import_tar(root(), f"{fake.name}/a:1")
        await one.service.tag(f"{fake.name}/a:1", f"{fake.name}/b:1")
        fake.faults["mount"] = lies
        await one.service.push(f"{fake.name}/b:1")
        layer = (await one.service.get(f"{fake.name}/b:1")).layers[0].digest
        assert fake.blobs[layer] == ROOT

    run(tmp_path, work)


# indexes

GRAPHS = {
    "another type": [Descriptor("text/html", Digest.of(b"x"), 1)],
    "missing": [Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b"x"), 1)],
    "size": [Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b"x"), 1 << 40)],
}


@pytest.mark.parametrize("case", GRAPHS)
def test_indexes_with_everything(tmp_path, case):
    async def work(fake, one, foreign):
        image = fake.put_image("lib/x", "one")
        platform = {"os": "linux", "architecture": "amd64"}
        fake.put_index(
            [(image.descriptor, platform), *((entry, None) for entry in GRAPHS[case])], "lib/x"
        )
        with pytest.raises(SampanError):
            await one.service.pull(f"{fake.name}/lib/x", every_platform=True)
        await one.collector.run()
        assert one.blobs() == set()
        assert (await one.service.pull(f"{fake.name}/lib/x")).id == image.config.digest

    run(tmp_path, work)


def test_an_index_of_indexes_of_indexes_ends(tmp_path):
    async def work(fake, one, foreign):
        image = fake.put_image("lib/x", "one")
        platform = {"os": "linux", "architecture": "amd64"}
        entry = image.descriptor
        for level in range(7):
            more = [(entry, platform if level == 0 else None)]
            entry = fake.put_index(more, "lib/x", f"level{level}")
        fake.put_index([(image.descriptor, platform), (entry, None)], "lib/x")
        with pytest.raises(InvalidArgument, match=r"nested|deep"):
            await one.service.pull(f"{fake.name}/lib/x", every_platform=True)

    run(tmp_path, work)


def test_a_copy_of_a_lie_is_not_named(tmp_path):
    async def work(fake, one, foreign):
        image = fake.put_image("lib/x")
        fake.faults[image.layers[0].digest] = only_get(faults.replaced(b"x" * image.layers[0].size))
        with pytest.raises(DigestMismatch):
            await one.service.copy(f"{fake.name}/lib/x", f"{foreign.name}/copied:1")
        assert foreign.manifests == {}
        assert one.blobs() == set()

    run(tmp_path, work)


def only_get(fault):
    async def chosen(fake, request):
        return await fault(fake, request) if request.method == "GET" else None

    return chosen


# signatures


def test_signatures_are_bounded(tmp_path):
    async def work(fake, one, foreign):
        image, signer = fake.put_image("lib/x"), Signer()
        payload = payload_of(image.descriptor.digest, f"{fake.name}/lib/x")
        attach(fake, "lib/x", image.descriptor, payload, signer.sign(payload))
        fake.faults[Digest.of(payload)] = faults.endless()
        with pytest.raises(SampanError):
            await one.service.verify(f"{fake.name}/lib/x", keys=[signer.pem])
        del fake.faults[Digest.of(payload)]
        assert (await one.service.verify(f"{fake.name}/lib/x", keys=[signer.pem])).signers
        config = fake.put_blob(b"{}", mediatypes.OCI_CONFIG)
        huge = manifest(mediatypes.OCI_MANIFEST, config, [config] * 600)
        tag = f"{image.descriptor.digest.replace(':', '-')}.sig"
        fake.put_manifest("lib/x", tag, huge, mediatypes.OCI_MANIFEST)
        with pytest.raises((InvalidArgument, Untrusted)):
            await one.service.verify(f"{fake.name}/lib/x", keys=[signer.pem])

    run(tmp_path, work)


# what settings add


def test_headers_of_the_settings_stay_with_their_host(tmp_path):
    async def work(fake, one, foreign):
        image = fake.put_image("lib/x")
        foreign.blobs.update(fake.blobs)
        layer = image.layers[0].digest
        fake.faults[layer] = only_get(faults.redirect(f"{foreign.url}/v2/lib/x/blobs/{layer}"))
        place = tmp_path / "certs.d" / fake.name
        place.mkdir(parents=True)
        (place / "hosts.toml").write_text(f'server = "{fake.url}"\n[header]\n  x-key = "secret"\n')
        hosts = Hosts(directories=(str(tmp_path / "certs.d"),))
        async with store(tmp_path / "t", hosts=hosts) as other:
            await other.service.pull(f"{fake.name}/lib/x", auth=ALICE)
        assert {request.headers.get("x-key") for request in fake.requests} == {"secret"}
        assert [request.headers.get("x-key") for request in foreign.requests] == [None]
        assert BASIC not in json.dumps([request.headers for request in foreign.requests])

    run(tmp_path, work)


def test_nothing_there_is_told(tmp_path):
    async def work(fake, one, foreign):
        with pytest.raises(NotFound):
            await one.service.copy(f"{fake.name}/none", f"{fake.name}/copied")
        with pytest.raises(NotFound):
            await one.service.verify(f"{fake.name}/none")

    run(tmp_path, work)
