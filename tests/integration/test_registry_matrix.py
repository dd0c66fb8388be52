"""What registries are known to have done to clients: one row for each shape, by its public number.

Three tables: content that costs too much, content that is taken for what it is not, and places that
want the credentials. Each row ends with its error within SECONDS and within MEBIBYTES of memory;
afterwards nothing of it is in the store, the same service pulls a good image, and neither a foreign
origin, nor a message, nor the log has seen a secret.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import os
import re
import tarfile

import pytest
import zstandard
from aiohttp import web

from imagelab import FAST, store
from registry_fixture import (
    BASIC,
    PASSWORD,
    TOKEN,
    USER,
    FakeRegistry,
    describe,
    error,
    faults,
    index,
    manifest,
    tar,
)
from sampan.client import credentials
from sampan.errors import SampanError
from sampan.registry import push as pushing
from sampan.registry.credentials import Credentials
from sampan.registry.hosts import Hosts
from sampan.registry.retry import Retry
from sampan.spec import mediatypes
from sampan.spec.digest import Digest
from sampan.spec.image import Descriptor

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root")

ALICE = Credentials(USER, PASSWORD)
SECRETS = (BASIC, BASIC.split()[1], PASSWORD, TOKEN, "identity-of-alice")
SECONDS = 40  # for a busy machine; alone none takes five
MEBIBYTES = 64
NAME = "lib/x"


class Ceiling:
    """How much memory this process took at most inside of the block, in MiB."""

    def __enter__(self):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak begins anew
        self._before = _status("VmRSS")
        return self

    def __exit__(self, *_):
        self.taken = (_status("VmHWM") - self._before) / 1024


def _status(key):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{key}:\s+(\d+) kB", file.read())[1])


def refuse(tmp_path, caplog, prepare, *, auth="basic", good=True, act=None, **options):
    """Prepare a registry, pull from it, and see the error and that nothing else came of it."""
    caplog.set_level(logging.DEBUG)

    async def main():
        async with (
            FakeRegistry(auth=auth) as fake,
            FakeRegistry(host="127.0.0.2") as foreign,
            store(tmp_path / "s", **options) as one,
        ):
            foreign.blobs = dict(fake.blobs)
            reference = prepare(fake, foreign) or f"{fake.name}/{NAME}"
            with Ceiling() as memory, pytest.raises(SampanError) as caught:
                async with asyncio.timeout(SECONDS):
                    await (act or pulled)(one, reference)
            assert memory.taken < MEBIBYTES
            assert one.leftovers() == []
            await one.collector.run()
            assert one.blobs() == set()
            fake.faults.clear()
            if good:
                await one.pull(fake.put_image("lib/good").reference, auth=ALICE)
            seen = repr([[r.method, r.path, r.headers] for r in foreign.requests])
            said = " ".join([str(caught.value), repr(one.steps), caplog.text])
            for secret in SECRETS:
                assert secret not in seen
                assert secret not in said
            assert foreign.authorizations() == []
            return str(caught.value)

    return asyncio.run(main())


async def pulled(one, reference):
    await one.pull(reference, auth=ALICE)


async def pulled_whole(one, reference):
    await one.pull(reference, auth=ALICE, every_platform=True)


def document(fake, content, kind=mediatypes.OCI_MANIFEST):
    """Name any bytes by the tag that is pulled."""
    return fake.put_manifest(NAME, "latest", content, kind)


def image_of(fake, *blobs, diff_ids):
    """An image of packed layers as they are."""
    made = fake.put_image(NAME, layers=[b"x"] * len(blobs), diff_ids=diff_ids)
    layers = [fake.put_blob(blob) for blob in blobs]
    document(fake, manifest(mediatypes.OCI_MANIFEST, made.config, layers))


# Content that costs too much


def manifest_above_the_limit(fake, _):  # CVE-2017-11468, CVE-2023-2253
    document(fake, b'{"schemaVersion":2,' + b" " * (5 << 20) + b"}")


def manifest_without_an_end(fake, _):
    made = fake.put_image(NAME)
    fake.faults[made.descriptor.digest] = faults.endless()
    fake.faults["latest"] = faults.endless()


def manifest_of_brackets(fake, _):
    document(fake, b'{"schemaVersion":2,"layers":' + b"[" * 300_000 + b"]" * 300_000 + b"}")


def manifest_of_very_many_layers(fake, _):  # CVE-2024-3056
    made = fake.put_image(NAME)
    document(fake, manifest(mediatypes.OCI_MANIFEST, made.config, made.layers * 20_000))


def index_of_very_many_manifests(fake, _):  # CVE-2026-53493
    entry = Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b"x"), 1)
    document(fake, index(mediatypes.OCI_INDEX, [(entry, None)] * 25_000), mediatypes.OCI_INDEX)


def index_of_very_many_indexes(fake, _):
    leaf = Descriptor(mediatypes.OCI_MANIFEST, Digest.of(b"x"), 1)
    many = [
        fake.put_index([(leaf, {"os": "plan9", "architecture": f"a{number}"})], NAME, f"i{number}")
        for number in range(40)
    ]
    fake.put_index([(entry, None) for entry in many], NAME)


def index_that_names_itself(fake, _):
    """A digest cannot be in what it is of, so the registry has to lie about one."""
    own = Digest.of(b"myself")
    text = index(mediatypes.OCI_INDEX, [(Descriptor(mediatypes.OCI_INDEX, own, 234), None)])
    target = Descriptor(mediatypes.OCI_INDEX, own, len(text))
    text = index(mediatypes.OCI_INDEX, [(target, None)])
    fake.manifests[NAME, own] = mediatypes.OCI_INDEX, text
    fake.put_index([(target, None)], NAME)


def config_above_the_limit(fake, _):
    made = fake.put_image(NAME)
    config = Descriptor(made.config.media_type, made.config.digest, 9 << 20)
    document(fake, manifest(mediatypes.OCI_MANIFEST, config, made.layers))


def blob_of_any_size(fake, _):
    made = fake.put_image(NAME)
    layer = Descriptor(made.layers[0].media_type, Digest.of(b"none"), 1 << 62)
    fake.faults[layer.digest] = faults.endless()
    document(fake, manifest(mediatypes.OCI_MANIFEST, made.config, [layer]))


def blob_without_an_end(fake, _):
    fake.faults[fake.put_image(NAME).layers[0].digest] = faults.endless()


def blob_that_drips(fake, _):
    async def drip(_, request):
        response = web.StreamResponse()
        response.content_length = len(fake.blobs[layer])
        await response.prepare(request)
        try:
            for byte in fake.blobs[layer]:
                await response.write(bytes([byte]))
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass  # the client had enough
        return response

    layer = fake.put_image(NAME, layers=[tar({"x": os.urandom(60_000)})]).layers[0].digest
    fake.faults[layer] = drip


def chunks_that_are_cut(fake, _):
    async def cut(_, request):
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        request.transport.write(b"ffff\r\nshort")
        request.transport.close()
        return response

    fake.faults[fake.put_image(NAME).layers[0].digest] = cut


def layer_that_is_a_bomb(fake, _):
    """More than a GiB of zeros in a few KiB."""
    packed = zstandard.ZstdCompressor().compressobj()
    header = tarfile.TarInfo("zeros")
    header.size = 300 << 22
    blob = packed.compress(header.tobuf())
    zeros = bytes(1 << 22)
    for _ in range(300):
        blob += packed.compress(zeros)
    image_of(fake, blob + packed.flush(), diff_ids=[Digest.of(b"whatever")])


def layer_of_very_many_opaque_marks(fake, _):  # CVE-2026-95838
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(300):
            archive.addfile(tarfile.TarInfo(f"d/f{number}"))
        for _ in range(10_000):
            archive.addfile(tarfile.TarInfo("d/.wh..wh..opq"))
    image_of(fake, gzip.compress(out.getvalue(), 1), diff_ids=[Digest.of(b"whatever")])


def layer_that_is_missing(fake, _):  # CVE-2021-20291
    del fake.blobs[fake.put_image(NAME).layers[0].digest]


COSTLY = [
    manifest_above_the_limit,
    manifest_without_an_end,
    manifest_of_brackets,
    manifest_of_very_many_layers,
    index_of_very_many_manifests,
    index_of_very_many_indexes,
    index_that_names_itself,
    config_above_the_limit,
    blob_of_any_size,
    blob_without_an_end,
    chunks_that_are_cut,
    layer_of_very_many_opaque_marks,
    layer_that_is_missing,
]


def by_name(case):
    return case.__name__


@pytest.mark.parametrize("prepare", COSTLY, ids=by_name)
def test_content_that_costs_too_much(tmp_path, caplog, prepare):
    refuse(tmp_path, caplog, prepare)


@pytest.mark.parametrize(
    "prepare", [index_of_very_many_manifests, index_of_very_many_indexes], ids=by_name
)
def test_an_index_that_costs_too_much_as_a_whole(tmp_path, caplog, prepare):
    refuse(tmp_path, caplog, prepare, act=pulled_whole)


def test_a_layer_that_is_a_bomb(tmp_path, caplog):
    said = refuse(tmp_path, caplog, layer_that_is_a_bomb)
    assert re.search(r"more than 1100 bytes|no room", said)


def test_a_token_without_an_end(tmp_path, caplog):
    def prepare(fake, _):
        fake.put_image(NAME)
        fake.faults["token"] = faults.endless()

    assert "a token: more than the limit" in refuse(tmp_path, caplog, prepare, auth="bearer")


def test_a_blob_that_drips(tmp_path, caplog):
    retry = Retry(attempts=2, blob_attempts=2, first=0.001, longest=0.01, patience=0.3)
    said = refuse(tmp_path, caplog, blob_that_drips, retry=retry)
    assert re.search(r"the server sent \d+ bytes in", said)


def test_a_subject_that_is_none_is_nobodys_business(tmp_path):  # CVE-2026-95839
    async def main():
        async with FakeRegistry() as fake, store(tmp_path / "s") as one:
            made = fake.put_image(NAME)
            subject = {"mediaType": mediatypes.OCI_MANIFEST, "digest": "sha256:", "size": 1}
            text = manifest(mediatypes.OCI_MANIFEST, made.config, made.layers, subject=subject)
            document(fake, text)
            image = await one.pull(f"{fake.name}/{NAME}")
            assert await one.service.push(image.names[0]) == Digest.of(text)
            assert await one.service.remote(image.names[0]).referrers() == (image.target.digest, [])

    asyncio.run(main())


# Content that is taken for what it is not

DIGESTS = {
    "path": "sha256:../../../../etc/passwd",
    "path alone": "../../x",
    "absolute": "/etc/passwd",
    "upper case": "sha256:" + "A" * 64,
    "algorithm in upper case": "SHA256:" + "a" * 64,
    "short": "sha256:" + "a" * 63,
    "long": "sha256:" + "a" * 65,
    "no hex": "sha256:" + "g" * 64,
    "newline": "sha256:" + "a" * 64 + "\n",
    "another algorithm": "md5:" + "a" * 32,
    "sha512 that is short": "sha512:" + "a" * 64,
    "empty": "",
}


def in_a_layer(fake, made, entry):
    text = manifest(mediatypes.OCI_MANIFEST, made.config, [])
    document(fake, text.replace(b'"layers": []', b'"layers": [' + entry + b"]"))


def in_a_config(fake, made, entry):
    text = manifest(mediatypes.OCI_MANIFEST, made.config, made.layers)
    document(fake, text.replace(json.dumps(describe(made.config)).encode(), entry))


def in_an_index(fake, _, entry):
    text = b'{"schemaVersion":2,"manifests":[' + entry + b"]}"
    document(fake, text, mediatypes.OCI_INDEX)


@pytest.mark.parametrize("place", [in_a_layer, in_a_config, in_an_index], ids=by_name)
@pytest.mark.parametrize("digest", DIGESTS)
def test_digests_that_are_none(tmp_path, caplog, place, digest):  # CVE-2024-3727, CVE-2014-9356
    def prepare(fake, _):
        made = fake.put_image(NAME)
        kind = mediatypes.OCI_MANIFEST if place is in_an_index else mediatypes.OCI_CONFIG
        entry = {"mediaType": kind, "digest": DIGESTS[digest], "size": 10}
        place(fake, made, json.dumps(entry).encode())

    assert "digest" in refuse(tmp_path, caplog, prepare, good=False)


def index_as_manifest(fake, _):  # CVE-2021-41190
    made = fake.put_image(NAME)
    document(fake, index(mediatypes.OCI_INDEX, [(made.descriptor, None)]))


def manifest_as_index(fake, _):
    made = fake.put_image(NAME)
    _, text = fake.manifests[NAME, "latest"]
    document(fake, text, mediatypes.OCI_INDEX)
    assert made


def both_in_one(fake, _):
    made = fake.put_image(NAME)
    text = manifest(
        mediatypes.OCI_MANIFEST, made.config, made.layers, manifests=[describe(made.descriptor)]
    )
    document(fake, text)


def both_without_a_type(fake, _):
    made = fake.put_image(NAME)
    fields = json.loads(
        manifest(
            mediatypes.OCI_MANIFEST, made.config, made.layers, manifests=[describe(made.descriptor)]
        )
    )
    del fields["mediaType"]
    document(fake, json.dumps(fields).encode())


def keys_twice(fake, _):
    made = fake.put_image(NAME)
    text = manifest(mediatypes.OCI_MANIFEST, made.config, made.layers)
    document(fake, text[:-1] + b', "layers": []}')


def keys_that_differ_by_case(fake, _):
    made = fake.put_image(NAME)
    text = manifest(mediatypes.OCI_MANIFEST, made.config, made.layers)
    document(fake, text[:-1] + b', "Layers": []}')


def config_keys_that_differ_by_case(fake, _):
    made = fake.put_image(NAME)
    text = fake.blobs[made.config.digest]
    config = fake.put_blob(text[:-1] + b', "RootFS": {}}', mediatypes.OCI_CONFIG)
    document(fake, manifest(mediatypes.OCI_MANIFEST, config, made.layers))


def another_manifest(fake, _):
    made = fake.put_image(NAME)
    kind, text = fake.manifests[NAME, made.descriptor.digest]
    fake.manifests[NAME, made.descriptor.digest] = kind, text + b" "
    fake.faults["latest"] = named(made.descriptor.digest, kind, len(text))


def another_config(fake, _):
    config = fake.put_image(NAME).config
    fake.faults[config.digest] = faults.replaced(b"x" * config.size)


def another_layer(fake, _):  # GHSA-p3rc: visible before it was verified
    layer = fake.put_image(NAME).layers[0]
    fake.faults[layer.digest] = faults.replaced(b"x" * layer.size)


def another_diff_id(fake, _):  # GHSA-f2v9
    fake.put_image(NAME, diff_ids=[Digest.of(b"another")])


def layer_that_is_no_layer(fake, _):
    made = fake.put_image(NAME)
    document(fake, manifest(mediatypes.OCI_MANIFEST, made.config, [made.config]))


def config_that_is_no_config(fake, _):
    made = fake.put_image(NAME)
    document(fake, manifest(mediatypes.OCI_MANIFEST, made.layers[0], made.layers))


def size_of_another(fake, _):
    made = fake.put_image(NAME)
    layer = Descriptor(made.layers[0].media_type, made.layers[0].digest, made.layers[0].size - 1)
    document(fake, manifest(mediatypes.OCI_MANIFEST, made.config, [layer]))


def size_that_is_negative(fake, _):
    made = fake.put_image(NAME)
    layer = Descriptor(made.layers[0].media_type, made.layers[0].digest, -1)
    document(fake, manifest(mediatypes.OCI_MANIFEST, made.config, [layer]))


def header_that_names_another(fake, _):
    made = fake.put_image(NAME)
    kind, text = fake.manifests[NAME, "latest"]
    fake.faults["latest"] = named(Digest.of(b"another"), kind, len(text))
    assert made


def range_of_another_part(fake, _):
    layer = fake.put_image(NAME).layers[0].digest
    fake.faults[layer] = faults.wrong_range("bytes 0-{last}/{size}")


def named(digest, kind, size):
    """A HEAD that says so; other requests are answered as always."""

    async def fault(_, request):
        if request.method != "HEAD":
            return None
        headers = {"Docker-Content-Digest": digest, "Content-Length": str(size)}
        return web.Response(headers=headers, content_type=kind)

    return fault


CONFUSED = [
    index_as_manifest,
    manifest_as_index,
    both_in_one,
    both_without_a_type,
    keys_twice,
    keys_that_differ_by_case,
    config_keys_that_differ_by_case,
    another_manifest,
    another_config,
    another_layer,
    another_diff_id,
    layer_that_is_no_layer,
    config_that_is_no_config,
    size_of_another,
    size_that_is_negative,
    header_that_names_another,
    range_of_another_part,
]


@pytest.mark.parametrize("prepare", CONFUSED, ids=by_name)
def test_content_that_is_not_what_it_is_called(tmp_path, caplog, prepare):
    refuse(tmp_path, caplog, prepare)


def test_a_reference_by_digest_gets_that_digest(tmp_path, caplog):
    def prepare(fake, _):
        made = fake.put_image(NAME)
        wanted = Digest.of(b"another")
        fake.manifests[NAME, wanted] = fake.manifests[NAME, "latest"]
        assert made
        return f"{fake.name}/{NAME}:latest@{wanted}"

    refuse(tmp_path, caplog, prepare)


# Places that want the credentials


def redirects(place, status=307):
    """What is asked for at `place` is at the foreign registry."""

    def prepare(fake, foreign):
        made = fake.put_image(NAME)
        foreign.blobs, foreign.manifests = {}, {}
        target = {"manifest": "latest", "blob": made.layers[0].digest}[place]

        async def away(_, request):
            location = f"{foreign.url}{request.path}"
            return web.Response(status=status, headers={"Location": location})

        fake.faults[target] = away

    return prepare


def redirect_and_back(fake, foreign):
    layer = fake.put_image(NAME).layers[0].digest
    fake.faults[layer] = faults.once(faults.redirect(f"{foreign.url}/v2/away/blobs/{layer}"))
    foreign.faults[layer] = faults.redirect(f"{fake.url}/v2/back/blobs/{layer}")
    del fake.blobs[layer]


def redirect_with_a_user(fake, foreign):
    layer = fake.put_image(NAME).layers[0].digest
    location = f"http://{USER}:x@127.0.0.2:{foreign.port}/"
    fake.faults[layer] = faults.redirect(location)


def redirect_to_a_file(fake, _):
    fake.faults[fake.put_image(NAME).layers[0].digest] = faults.redirect("file:///etc/passwd")


def redirect_to_the_cloud(fake, _):  # CVE-2026-35527
    location = "http://169.254.169.254/latest/meta-data"
    fake.faults[fake.put_image(NAME).layers[0].digest] = faults.redirect(location)


def challenge_of_the_foreign_place(fake, foreign):
    """It asks for a login itself, after a redirect."""

    async def wants(_, __):
        return error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="mine"'})

    layer = fake.put_image(NAME).layers[0].digest
    fake.faults[layer] = faults.redirect(f"{foreign.url}/v2/{NAME}/blobs/{layer}")
    foreign.faults[layer] = wants


def urls_of_a_descriptor(fake, foreign):  # CVE-2020-15157
    made = fake.put_image(NAME)
    layer = {**describe(made.layers[0]), "urls": [f"{foreign.url}/v2/x/blobs/{Digest.of(b'y')}"]}
    del fake.blobs[made.layers[0].digest]
    text = manifest(mediatypes.OCI_MANIFEST, made.config, [])
    text = text.replace(b'"layers": []', f'"layers": [{json.dumps(layer)}]'.encode())
    document(fake, text)


PLACES = [
    redirects("manifest", 301),
    redirects("manifest"),
    *(redirects("blob", status) for status in (301, 302, 303, 307, 308)),
    redirect_and_back,
    redirect_with_a_user,
    redirect_to_a_file,
    redirect_to_the_cloud,
    challenge_of_the_foreign_place,
    urls_of_a_descriptor,
]


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("number", range(len(PLACES)))
def test_places_that_an_answer_names(tmp_path, caplog, auth, number):
    refuse(tmp_path, caplog, PLACES[number], auth=auth)


REALMS = {  # CVE-2026-33540, CVE-2026-48978, CVE-2026-65388
    "another host": "http://127.0.0.2:{port}/token",
    "a longer name": "https://127.0.0.1.example.com/token",
    "a user in it": "http://127.0.0.1@127.0.0.2:{port}/token",
    "without tls": "http://auth.example.com/token",
    "the cloud": "http://169.254.169.254/token",
    "a file": "file:///etc/passwd",
    "no host": "http:///token",
    "no url": "token",
}


@pytest.mark.parametrize("realm", REALMS)
@pytest.mark.parametrize("kind", ["password", "identity token"])
def test_realms(tmp_path, caplog, realm, kind):
    def prepare(fake, foreign):
        fake.put_image(NAME)
        fake.realm = REALMS[realm].format(port=foreign.port)

    async def act(one, reference):
        user = ALICE if kind == "password" else Credentials(identity_token="identity-of-alice")
        await one.pull(reference, auth=user)

    refuse(tmp_path, caplog, prepare, auth="bearer", act=act, good=False)


def test_a_token_server_that_sends_us_on(tmp_path):
    """The password stays behind, and what needs a body is not sent on at all."""

    async def main():
        async with (
            FakeRegistry(auth="bearer") as fake,
            FakeRegistry(host="127.0.0.2") as foreign,
            store(tmp_path / "s") as one,
        ):
            fake.faults["token"] = faults.redirect(f"{foreign.url}/token")
            reference = fake.put_image(NAME).reference
            await one.pull(reference, auth=ALICE)  # it has a token for everybody
            assert foreign.authorizations() == []
            foreign.requests.clear()
            with pytest.raises(SampanError, match="answered 307"):
                await one.pull(reference, auth=Credentials(identity_token="identity-of-alice"))
            assert foreign.requests == []

    asyncio.run(main())


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_an_upload_that_is_sent_on(tmp_path, caplog, monkeypatch, auth, method):  # CVE-2026-50151
    """A redirect of a request with a body is not followed, with or without credentials."""

    async def away(request):
        if request.method == method and "uploads" in request.path:
            location = f"http://127.0.0.2:{away.port}{request.path}"
            return web.Response(status=307, headers={"Location": location})
        return None

    def prepare(fake, foreign):
        away.port = foreign.port
        upload = fake._upload

        async def sent_on(request):
            return await away(request) or await upload(request)

        fake._upload = sent_on

    async def act(one, reference):
        async def root():
            yield tar({"etc/x": b"x"})

        await one.service.import_tar(root(), reference)
        try:
            await one.service.push(reference, auth=ALICE)
        finally:
            await one.service.remove(reference, force=True)

    monkeypatch.setattr(pushing, "PIECE", 100 if method == "PATCH" else 1 << 20)
    refuse(tmp_path, caplog, prepare, auth=auth, act=act)


def test_a_mirror_gets_nothing(tmp_path, caplog):
    """It asks for a login, and is passed over."""

    def prepare(fake, foreign):
        foreign.auth = "basic"
        fake.put_image(NAME)
        fake.faults["latest"] = faults.status(500)
        hosts.mirrors[fake.name] = (foreign.url,)

    hosts = Hosts(mirrors={})
    refuse(tmp_path, caplog, prepare, hosts=hosts, retry=FAST)


def test_the_users_files_are_not_asked(tmp_path, caplog, monkeypatch):
    """No .netrc, and no proxy of the environment on the way to loopback."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login netrc password open-netrc\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    async def act(one, reference):
        await one.pull(reference)  # without credentials

    def prepare(fake, foreign):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, foreign.url)
        fake.put_image(NAME)
        seen.append(fake)

    seen = []
    refuse(tmp_path, caplog, prepare, act=act, good=False)
    assert seen[0].authorizations() == []


def test_docker_hub_gets_no_credentials_of_others(tmp_path, monkeypatch):  # CVE-2021-41092
    """A name without a registry is Docker Hub's, whoever is logged in elsewhere."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    auth = {"auth": BASIC.split()[1]}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.example:5000": auth}}))
    sent = Credentials.from_header(credentials.header_for("r.example:5000/x"))
    assert (sent.username, sent.password) == (USER, PASSWORD)
    for other in ("x", "docker.io/x", "r.example/x", "r.example:5001/x", "r.example:5000.evil/x"):
        assert Credentials.from_header(credentials.header_for(other)) is None
