"""How registries are spoken with: certificates in every form, mirrors and proxies."""

from __future__ import annotations

import asyncio
import gzip
import os
from contextlib import asynccontextmanager

import pytest

from certificates import Authority
from imagelab import store
from realregistry import available, real_registry
from registry_fixture import FakeRegistry, tar
from sampan.errors import FailedPrecondition, InvalidArgument, SampanError
from sampan.registry.hosts import Hosts
from sampan.registry.proxies import Proxies
from sampan.registry.settings import from_table

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked as root"),
    pytest.mark.skipif(not available, reason="docker-registry is not installed"),
]
ROOT = gzip.compress(tar({"etc/hello": b"hello\n"}))


async def root():
    yield ROOT


def round_trip(tmp_path, name, hosts):
    """Push to and pull from the registry."""

    async def work():
        async with store(tmp_path / "here", hosts=hosts) as one:
            image = await one.service.import_tar(root(), f"{name}/a:1")
            await one.service.push(f"{name}/a:1")
            await one.service.remove(f"{name}/a:1")
            assert (await one.service.pull(f"{name}/a:1")).id == image.id

    (tmp_path / "here").mkdir(exist_ok=True)
    asyncio.run(work())


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory, authority):
    """The name of a registry with a certificate of our authority."""
    with real_registry(tmp_path_factory.mktemp("r"), tls=authority.issue("server")) as name:
        yield name


@pytest.fixture(scope="module")
def mutual(tmp_path_factory, authority):
    """One that asks for the client's certificate too."""
    tls = authority.issue("strict")
    with real_registry(tmp_path_factory.mktemp("m"), tls=tls, client_ca=authority.path) as name:
        yield name


def test_loopback_speaks_tls_when_the_server_does(tmp_path, secure):
    round_trip(tmp_path, secure, Hosts())


def test_a_server_that_became_another_is_asked_again(monkeypatch):
    """Plain http first, TLS after a while at the same port."""
    answers = [False, True]

    async def speaks(host, port):
        return answers.pop(0)

    async def main():
        from sampan.registry import http

        monkeypatch.setattr(http.tls, "speaks_tls", speaks)
        client, endpoint = http.HttpClient(Hosts()), Hosts().upstream("127.0.0.1:5000")
        schemes = [(await client.settle(endpoint)).base.scheme for _ in range(2)]
        monkeypatch.setattr(http, "_SETTLED_SECONDS", 0.0)
        client._settled.clear()
        answers.insert(0, False)
        schemes += [(await client.settle(endpoint)).base.scheme for _ in range(2)]
        assert schemes == ["http", "http", "http", "https"]

    asyncio.run(main())


def test_a_server_that_turns_out_to_speak_http(tmp_path, monkeypatch):
    """It is said so, and not with the number of OpenSSL's error as if it were the kernel's."""

    async def speaks(host, port):
        return True

    async def answer(reader, writer):
        writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        writer.close()

    async def main():
        from sampan.registry import http

        monkeypatch.setattr(http.tls, "speaks_tls", speaks)
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, store(tmp_path) as one:
            with pytest.raises(SampanError, match="gave HTTP response to HTTPS client"):
                await one.service.pull(f"127.0.0.1:{port}/a:1")

    asyncio.run(main())


def test_a_table_names_the_authority(tmp_path, authority, secure):
    settings = from_table(secure, {"ca": str(authority.path)})
    round_trip(tmp_path, secure, Hosts(registries={secure: settings}))


def test_dockers_directory(tmp_path, authority, mutual):
    place = tmp_path / "certs.d" / mutual
    place.mkdir(parents=True)
    certificate, key = authority.issue("me")
    (place / "ca.crt").write_bytes(authority.path.read_bytes())
    (place / "client.cert").write_bytes(certificate.read_bytes())
    (place / "client.key").write_bytes(key.read_bytes())
    hosts = Hosts(directories=(str(tmp_path / "nothing"), str(tmp_path / "certs.d")))
    round_trip(tmp_path, mutual, hosts)


def test_containerds_directory(tmp_path, authority, mutual):
    place = tmp_path / "certs.d" / mutual
    place.mkdir(parents=True)
    certificate, key = authority.issue("me")
    (place / "hosts.toml").write_text(
        f'server = "https://{mutual}"\n'
        f'[host."https://{mutual}"]\n  capabilities = ["pull", "resolve", "push"]\n'
        f'  ca = "{authority.path}"\n  client = [["{certificate}", "{key}"]]\n'
    )
    round_trip(tmp_path, mutual, Hosts(directories=(str(tmp_path / "certs.d"),)))


def test_without_the_clients_certificate_it_is_refused(tmp_path, authority, mutual):
    settings = from_table(mutual, {"ca": str(authority.path)})
    with pytest.raises(SampanError):
        round_trip(tmp_path, mutual, Hosts(registries={mutual: settings}))


def test_another_authority_is_not_trusted(tmp_path, secure):
    other = Authority(tmp_path / "other", "other")
    settings = from_table(secure, {"ca": str(other.path)})
    with pytest.raises(FailedPrecondition, match="certificate is not trusted"):
        round_trip(tmp_path, secure, Hosts(registries={secure: settings}))


def test_skip_verify(tmp_path, secure):
    settings = from_table(secure, {"skip_verify": True, "plain_http": False})
    round_trip(tmp_path, secure, Hosts(registries={secure: settings}))


def test_a_mirror_of_hosts_toml_is_asked_first(tmp_path):
    async def work():
        async with FakeRegistry() as mirror, FakeRegistry() as home:
            image = mirror.put_image("lib/a")
            place = tmp_path / "certs.d" / home.name
            place.mkdir(parents=True)
            (place / "hosts.toml").write_text(
                f'server = "{home.url}"\n[host."{mirror.url}"]\n  capabilities = ["pull"]\n'
                '[host."http://127.0.0.1:1"]\n  capabilities = ["push"]\n'
                '  [host."http://127.0.0.1:1".header]\n    x-key = "secret"\n'
            )
            hosts = Hosts(directories=(str(tmp_path / "certs.d"),))
            async with store(tmp_path / "s", hosts=hosts) as one:
                found = await one.service.pull(f"{home.name}/lib/a")
            assert found.id == image.config.digest
            assert home.requests == []
            assert mirror.requests[0].path == "/v2/lib/a/manifests/latest"

    asyncio.run(work())


def test_a_path_that_a_mirror_wants_and_its_headers(tmp_path):
    async def work():
        async with FakeRegistry() as mirror, FakeRegistry() as home:
            mirror.put_image("cache/lib/a")
            place = tmp_path / "certs.d/_default"
            place.mkdir(parents=True)
            (place / "hosts.toml").write_text(
                f'[host."{mirror.url}/v2/cache"]\n  override_path = true\n'
                f'  [host."{mirror.url}/v2/cache".header]\n    x-key = ["a", "b"]\n'
            )
            hosts = Hosts(directories=(str(tmp_path / "certs.d"),))
            async with store(tmp_path / "s", hosts=hosts) as one:
                await one.service.pull(f"{home.name}/lib/a")
            assert {request.headers["x-key"] for request in mirror.requests} == {"a, b"}
            assert home.requests == []

    asyncio.run(work())


WRONG = {
    "no toml": ("server = ", "Expected|invalid|Invalid"),
    "unknown key": ('[host."https://a.example"]\n  capabilites = []\n', "unknown: capabilites"),
    "capability": ('[host."https://a.example"]\n  capabilities = ["steal"]\n', "capabilities are"),
    "url": ('server = "ftp://a.example"\n', "not a URL"),
    "ca": ('server = "https://a.example"\nca = 1\n', "text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_cannot_be_understood_are_named(tmp_path, case):
    text, match = WRONG[case]
    (tmp_path / "a.example").mkdir()
    (tmp_path / "a.example/hosts.toml").write_text(text)
    with pytest.raises(InvalidArgument, match=match) as caught:
        Hosts(directories=(str(tmp_path),)).endpoints("a.example")
    assert "hosts.toml" in str(caught.value)


def test_a_key_that_is_missing_is_told(tmp_path):
    (tmp_path / "a.example").mkdir()
    (tmp_path / "a.example/client.cert").write_text("")
    with pytest.raises(InvalidArgument, match=r"there is no client\.key"):
        Hosts(directories=(str(tmp_path),)).endpoints("a.example")


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"mirror": []}, "unknown: mirror"),
        ({"plain_http": "yes"}, "true or false"),
        ({"ca": [1]}, "text"),
        ({"mirrors": ["x"]}, "not a URL"),
        ([], "unknown"),
    ],
)
def test_tables_that_are_wrong(table, match):
    with pytest.raises(InvalidArgument, match=match):
        from_table("a.example", table)


@asynccontextmanager
async def proxy(log):
    """A proxy for plain http that sends everything to loopback and writes down what was asked."""

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        method, url, _ = head.split(b"\r\n")[0].decode().split(" ")
        log.append(url)
        _, _, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        port = int(authority.rpartition(":")[2])
        upstream, out = await asyncio.open_connection("127.0.0.1", port)
        lines = [line for line in head.split(b"\r\n")[1:] if not line.lower().startswith(b"conn")]
        request = f"{method} /{path} HTTP/1.1\r\nConnection: close\r\n".encode()
        out.write(request + b"\r\n".join(lines))
        writer.write(await upstream.read())
        writer.close()
        out.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_a_proxy_is_used_where_it_is_configured(tmp_path):
    async def work():
        log = []
        async with FakeRegistry() as home, proxy(log) as address:
            home.put_image("lib/a")
            name = f"registry.example:{home.port}"
            hosts = Hosts(registries={name: from_table(name, {"plain_http": True})})
            proxies = Proxies.make(address, "", "")
            async with store(tmp_path / "s", hosts=hosts, proxies=proxies) as one:
                await one.service.pull(f"{name}/lib/a")
            assert log[0] == f"http://{name}/v2/lib/a/manifests/latest"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("url", "exceptions", "through"),
    [
        ("https://registry.example/", "", True),
        ("http://registry.example/", "", False),
        ("https://127.0.0.1:5000/", "", False),
        ("https://localhost/", "", False),
        ("https://registry.example/", "example", False),
        ("https://registry.example/", ".example", False),
        ("https://registry.example/", "*.example", False),
        ("https://registry.example/", "gistry.example", True),
        ("https://registry.example/", "other, registry.example:443", False),
        ("https://registry.example/", "registry.example:444", True),
        ("https://10.1.2.3/", "10.0.0.0/8", False),
        ("https://11.1.2.3/", "10.0.0.0/8", True),
        ("https://registry.example/", "*", False),
        ("https://[fd00::1]/", "fd00::/8", False),
    ],
)
def test_what_goes_through_a_proxy(url, exceptions, through):
    from yarl import URL

    proxies = Proxies.make("", "http://proxy.example:3128", exceptions)
    assert (proxies.choose(URL(url)) is not None) == through


def test_a_proxy_that_is_no_url_is_refused():
    with pytest.raises(InvalidArgument, match="proxy"):
        Proxies.make("socks5://user:secret@x", "", "")
    assert Proxies.make("", "p:1", "").https == "http://p:1"
