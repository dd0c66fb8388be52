"""Names in `Host`: what clients write there, and what only a web page would."""

from __future__ import annotations

import pytest

from sampan.api.docker.origins import is_foreign

OURS = ("docker.example.com", "*.hosts.example.com")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "localhost:2375",
        "docker",
        "d",
        "api.moby.localhost",
        "%2Frun%2Fsampan%2Fdocker.sock",
        "/run/sampan/docker.sock",
        "2f72756e2f73616d70616e:0",
        "v1.40",
        "127.0.0.1:2376",
        "[::1]:2376",
        "[::1]",
        "docker.sock",
        "docker.example.com:2376",
        "Docker.Example.COM.",
        "one.hosts.example.com",
    ],
)
def test_what_clients_write(host):
    assert not is_foreign(host, OURS)


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:2375",
        "EVIL.com.",
        "127.0.0.1.nip.io",
        "a.docker.example.com",
        "hosts.example.com",
        "one.two.hosts.example.com",
        "xn--e1afmkfd.com",
    ],
)
def test_what_only_a_page_would(host):
    assert is_foreign(host, OURS)
