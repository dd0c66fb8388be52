"""Logins: what is shown to whom. Foreign origins must never see a secret."""

from __future__ import annotations

import asyncio
import base64
import json
import os

import pytest
from yarl import URL

from registry_fixture import BASIC, PASSWORD, TOKEN, USER, FakeRegistry, faults
from sampan.errors import (
    FailedPrecondition,
    ImageNotFound,
    InvalidArgument,
    SampanError,
    Unauthenticated,
)
from sampan.registry.auth import Authenticator, parse_challenges
from sampan.registry.client import Registry
from sampan.registry.credentials import Credentials
from sampan.registry.hosts import Endpoint, Hosts, Origin, is_internal, registrable
from sampan.registry.http import HttpClient
from sampan.registry.retry import Retry
from sampan.spec.reference import Reference

FAST = Retry(attempts=2, blob_attempts=2, first=0.001, longest=0.01)
ALICE = Credentials(USER, PASSWORD)
SECRETS = (BASIC, PASSWORD, TOKEN)


class Writer:
    """Counts the bytes of a blob."""

    offset = 0

    async def write(self, data: bytes) -> None:
        self.offset += len(data)


async def pull(fake, credentials, hosts=None):
    """Resolve, read the manifest, and fetch the first layer."""
    registry = Registry(hosts, retry=FAST)
    try:
        repository = registry.repository(Reference.parse(f"{fake.name}/test/image"), credentials)
        resolved = await repository.resolve()
        await repository.manifest(resolved.descriptor)
        layer = next(iter(fake.layers))
        writer = Writer()
        await repository.blob(layer, writer, lambda _: None)
        assert writer.offset == layer.size
    finally:
        await registry.aclose()


def run(work, **options):
    """Run `work(home registry with one image, foreign registry)`."""

    async def both():
        async with FakeRegistry(**options) as fake, FakeRegistry(host="127.0.0.2") as foreign:
            fake.layers = fake.put_image().layers
            foreign.blobs = fake.blobs
            await work(fake, foreign)
            seen = json.dumps([[r.path, r.headers] for r in foreign.requests])
            assert not any(secret in seen for secret in SECRETS)
            assert foreign.authorizations() == []

    asyncio.run(both())


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_login_is_made_when_the_registry_asks(auth):
    async def work(fake, _):
        await pull(fake, ALICE)
        assert "Authorization" not in fake.requests[0].headers
        assert BASIC in fake.authorizations()

    run(work, auth=auth)


def test_a_token_is_fetched_once_for_a_whole_pull():
    async def work(fake, _):
        await pull(fake, ALICE)
        [asked] = fake.token_requests
        query = URL(asked.path).query
        assert query["scope"] == "repository:test/image:pull"
        assert query["service"] == "fake, the registry"
        assert query["account"] == USER

    run(work, auth="bearer")


def test_nothing_is_shown_to_a_registry_that_does_not_ask():
    async def work(fake, _):
        await pull(fake, ALICE)
        assert fake.authorizations() == []

    run(work)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("credentials", [None, Credentials(USER, "wrong")])
def test_missing_and_wrong_credentials_are_unauthenticated(auth, credentials):
    async def work(fake, _):
        with pytest.raises(Unauthenticated) as caught:
            await pull(fake, credentials)
        assert "wrong" not in str(caught.value)

    run(work, auth=auth)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_blob_elsewhere_is_fetched_without_credentials(auth, status):
    async def work(fake, foreign):
        layer = fake.layers[0]
        target = f"{foreign.url}/v2/any/where/blobs/{layer.digest}"
        fake.faults[layer.digest] = faults.redirect(target, status)
        await pull(fake, ALICE)
        assert len(foreign.requests) == 1

    run(work, auth=auth)


def test_a_request_that_left_home_gets_no_credentials_when_it_comes_back():
    async def work(fake, foreign):
        digest = fake.layers[0].digest
        back = f"{fake.url}/v2/back/blobs/{digest}"
        away = f"{foreign.url}/v2/away/blobs/{digest}"
        fake.faults[digest] = faults.once(faults.redirect(away))
        foreign.faults[digest] = faults.redirect(back)
        with pytest.raises(SampanError):
            await pull(fake, ALICE)
        returned = [r for r in fake.requests if r.path.startswith("/v2/back/")]
        assert returned
        assert "Authorization" not in returned[0].headers

    run(work, auth="basic")


def test_redirects_end():
    async def work(fake, _):
        digest = fake.layers[0].digest
        fake.faults[digest] = faults.redirect(f"{fake.url}/v2/test/image/blobs/{digest}")
        with pytest.raises(FailedPrecondition, match="more than 5 redirects"):
            await pull(fake, ALICE)

    run(work)


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.2/",
        "http://user:secret@127.0.0.2/",
        "http://",
        "",
        "http://example.com/plain",
        "//[",
    ],
)
def test_a_redirect_to_where_nobody_should_go_is_refused(location):
    async def work(fake, _):
        fake.faults[fake.layers[0].digest] = faults.redirect(location)
        with pytest.raises(FailedPrecondition):
            await pull(fake, ALICE)

    run(work)


@pytest.mark.parametrize(
    "realm",
    [
        "http://127.0.0.2:{port}/token",
        "http://example.com/token",
        "ftp://127.0.0.1/token",
        "not a url",
        "",
        "http://alice:pw@127.0.0.1/token",
        "https://127.0.0.1.example.com/token",
    ],
)
def test_a_bogus_realm_gets_no_credentials(realm):
    async def work(fake, foreign):
        fake.realm = realm.format(port=foreign.port) or " "
        with pytest.raises(FailedPrecondition, match=r"log in to|refuse"):
            await pull(fake, ALICE)
        assert foreign.requests == []

    run(work, auth="bearer")


def test_a_realm_that_the_configuration_names_gets_the_credentials():
    async def both():
        async with FakeRegistry(auth="bearer") as fake, FakeRegistry(host="127.0.0.3") as tokens:
            fake.layers = fake.put_image().layers
            fake.realm = f"{tokens.url}/token"
            await pull(fake, ALICE, Hosts(realms={fake.name: ("127.0.0.3",)}))
            assert BASIC in tokens.authorizations()

    asyncio.run(both())


def test_urls_of_a_descriptor_get_no_credentials():
    async def work(fake, foreign):
        layer = fake.layers[0]
        content = fake.blobs[layer.digest]
        fake.blobs = {key: value for key, value in fake.blobs.items() if key != layer.digest}
        foreign.blobs = {layer.digest: content}
        url = f"{foreign.url}/v2/foreign/layer/blobs/{layer.digest}"
        fake.layers = [type(layer)(layer.media_type, layer.digest, layer.size, urls=(url,))]
        await pull(fake, ALICE)
        assert len(foreign.requests) == 1

    run(work, auth="basic")


def test_a_mirror_is_asked_first_and_gets_no_credentials():
    async def work(fake, foreign):
        foreign.manifests = fake.manifests
        await pull(fake, ALICE, Hosts(mirrors={fake.name: (foreign.url,)}))
        assert fake.requests == []

    run(work, auth="basic")


def test_a_mirror_that_has_nothing_is_passed_over():
    async def work(fake, foreign):
        foreign.blobs = {}
        await pull(fake, ALICE, Hosts(mirrors={fake.name: (foreign.url,)}))
        assert fake.requests

    run(work, auth="basic")


@pytest.mark.parametrize("foreign_place", [False, True])
@pytest.mark.parametrize("auth", ["", "basic", "bearer"])
def test_a_push_sends_credentials_home_only(auth, foreign_place):
    content = os.urandom(100_000)

    async def work(fake, foreign):
        descriptor = fake.put_blob(content)
        fake.blobs = {}
        if foreign_place:
            fake.faults = {}
            place = f"{foreign.url}/v2/test/image/blobs/uploads/1?state=a%2Fb"
            fake._upload = elsewhere(fake, place)
        registry = Registry(retry=FAST)
        fd = os.memfd_create("blob")
        os.write(fd, content)
        try:
            repository = registry.repository(Reference.parse(f"{fake.name}/test/image"), ALICE)
            assert not await repository.has_blob(descriptor)
            await repository.push_blob(descriptor, fd, lambda _: None)
        finally:
            os.close(fd)
            await registry.aclose()
        assert (foreign if foreign_place else fake).blobs[descriptor.digest] == content

    run(work, auth=auth)


def elsewhere(fake, place):
    """The upload handler of a registry that stores its content at another place."""

    async def upload(request):
        from aiohttp import web

        assert request.method == "POST"
        return web.Response(status=202, headers={"Location": place})

    return upload


def test_challenges_are_read_as_they_are_written():
    found = parse_challenges(
        'Bearer realm="https://a.b/t?x=1",service="a, \\"b\\"", scope=pull , Basic realm="x"'
    )
    assert [c.scheme for c in found] == ["bearer", "basic"]
    assert found[0].parameters == {
        "realm": "https://a.b/t?x=1",
        "service": 'a, "b"',
        "scope": "pull",
    }
    assert parse_challenges("") == []
    assert parse_challenges("=" * 100_000) == []


def test_the_header_of_dockers_clients_is_read_and_never_shown():
    text = base64.urlsafe_b64encode(json.dumps({"username": "u", "password": "p"}).encode())
    credentials = Credentials.from_header(text.decode().rstrip("="))
    assert credentials == Credentials("u", "p")
    assert "password" not in repr(credentials)
    assert Credentials.from_header("") is None
    assert Credentials.from_header(base64.urlsafe_b64encode(b"{}").decode()) is None
    for bad in ("!!!", "bm90IGpzb24=", base64.urlsafe_b64encode(b"[1]").decode()):
        with pytest.raises(InvalidArgument, match="not base64url of a JSON object"):
            Credentials.from_header(bad)


@pytest.mark.parametrize(
    ("registry", "url"),
    [
        ("docker.io", "https://registry-1.docker.io"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("plain.example:80", "http://plain.example:80"),
        ("registry.example", "https://registry.example"),
        ("127.0.0.1.evil.example", "https://127.0.0.1.evil.example"),
        ("localhost.evil.example", "https://localhost.evil.example"),
    ],
)
def test_plain_http_is_for_loopback_and_for_what_is_configured(registry, url):
    hosts = Hosts(insecure=frozenset({"plain.example:80"}))
    assert hosts.upstream(registry).base == URL(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "https://[::ffff:127.0.0.1]/",
        "https://0.0.0.0/",
        "https://localhost/",
        "https://[fe80::1]/",
        "http://registry.example/",
        "http://cdn.example/",
        "ftp://cdn.example/",
    ],
)
def test_a_public_registry_cannot_send_us_inside(url):
    home = Origin("https", "registry.example", 443)
    with pytest.raises(FailedPrecondition):
        Hosts().check_target(URL(url), home)


def test_a_public_registry_may_send_us_to_a_public_place():
    home = Origin("https", "registry.example", 443)
    Hosts().check_target(URL("https://cdn.example/x?sig=1"), home)


def test_a_name_that_leads_inside_is_dropped_by_the_resolver():
    from sampan.registry.http import PublicResolver

    async def resolve():
        await PublicResolver().resolve("127.0.0.1", 443)

    with pytest.raises(OSError, match="internal to this machine"):
        asyncio.run(resolve())


def test_realms_of_the_same_owner_are_trusted():
    hosts = Hosts()
    hub = Origin("https", "registry-1.docker.io", 443)
    reference = Reference.parse("busybox")
    assert hosts.trusts_realm(reference, hub, URL("https://auth.docker.io/token"))
    assert not hosts.trusts_realm(reference, hub, URL("https://auth.docker.io.evil.example/"))
    assert not hosts.trusts_realm(reference, hub, URL("https://evil-docker.io/"))
    assert registrable("a.b.example.co.uk") == "example.co.uk"
    assert registrable("10.0.0.1") is None
    assert registrable("localhost") is None
    assert not is_internal("10.0.0.1")


def test_an_anonymous_pull_of_what_is_private_is_told():
    async def work(fake, _):
        with pytest.raises((Unauthenticated, ImageNotFound), match="no basic auth credentials"):
            await pull(fake, None)

    run(work, auth="basic")


def test_a_realm_is_never_less_safe_than_the_registry():
    async def log_in(realm):
        client = HttpClient(Hosts())
        endpoint = Endpoint(URL("https://registry.example"))
        reference = Reference.parse("registry.example/a")
        authenticator = Authenticator(client, endpoint, reference, ALICE)
        await authenticator.challenged(f'Bearer realm="{realm}"', None)
        await authenticator.authorization("pull")

    for realm in ("http://registry.example/token", "https://127.0.0.1/token"):
        with pytest.raises(FailedPrecondition, match="refuse"):
            asyncio.run(log_in(realm))
