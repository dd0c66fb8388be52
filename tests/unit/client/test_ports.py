"""Port specifications, in docker's words and with docker's refusals."""

from __future__ import annotations

import pytest

from sampan.client.ports import expose, publish


@pytest.mark.parametrize(
    ("text", "bindings"),
    [
        ("80", {"80/tcp": [("", "")]}),
        ("8080:80", {"80/tcp": [("", "8080")]}),
        ("8080:80/UDP", {"80/udp": [("", "8080")]}),
        ("127.0.0.1:8080:80", {"80/tcp": [("127.0.0.1", "8080")]}),
        ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80", {"80/tcp": [("::1", "8080")]}),
        ("[2001:db8::1]::80/sctp", {"80/sctp": [("2001:db8::1", "")]}),
        ("8000-8001:80-81", {"80/tcp": [("", "8000")], "81/tcp": [("", "8001")]}),
        ("8000-8009:80", {"80/tcp": [("", "8000-8009")]}),
        ("80-81", {"80/tcp": [("", "")], "81/tcp": [("", "")]}),
    ],
)
def test_what_is_published(text, bindings):
    exposed, made = publish([text])
    assert exposed == list(bindings)
    found = {port: [(one["HostIp"], one["HostPort"]) for one in made[port]] for port in made}
    assert found == bindings


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "No port specified"),
        ("8080:", "No port specified"),
        ("0:80", "Invalid hostPort: 0"),
        ("80:65536", "Invalid containerPort: 65536"),
        ("80:a", "Invalid containerPort: a"),
        ("80/icmp", "Invalid proto: icmp"),
        ("80-70", "Invalid containerPort: 80-70"),
        ("8000-8002:80-81", "Invalid ranges"),
        ("host:80:80", "Invalid ip address: host"),
    ],
)
def test_what_is_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        publish([text])


def test_exposed_ports():
    assert expose(["80", "90-91/udp", "80/tcp"]) == ["80/tcp", "90/udp", "91/udp"]
    with pytest.raises(ValueError, match="invalid port format"):
        expose(["80:80"])
