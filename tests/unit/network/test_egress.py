"""Rules of what may be reached, and what becomes of them in the packet filter."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.network import denials, egress
from sampan.network.egress import Restricted, elements, parse


def test_rules():
    policy = parse(["10.0.0.0/8", "2001:db8::1", "Example.org.", "*.example.net"])
    assert [str(one) for one in policy.networks] == ["10.0.0.0/8", "2001:db8::1/128"]
    assert policy.permits("example.org")
    assert policy.permits("a.b.example.net")
    for name in ("example.net", "notexample.org", "example.org.evil", "evilexample.net", ""):
        assert not policy.permits(name)
    assert not parse([]).permits("example.org")


@pytest.mark.parametrize(
    "rule", ["", "a b", "10.0.0.0/33", "*", "*.*.org", "-a.org", "1.2.3", "a/b"]
)
def test_what_is_no_rule(rule):
    with pytest.raises(InvalidArgument, match="invalid egress rule"):
        parse([rule])


def test_elements_are_of_their_own_version_and_learned_ones_pass(monkeypatch):
    policy = parse(["10.0.0.0/8", "fd00::/8"])
    one = Restricted(policy, 7, ("172.17.0.2", "fd17::2"), (("sv1", "02:42:00:00:00:01"),))
    one.learn("192.0.2.9", 5)
    found = elements([one])
    assert found["restricted4"] == ["172.17.0.2"]
    assert found["current6"] == ["fd17::2 . 7"]
    assert found["allowed6"] == ["fd17::2 . fd00::/8"]
    assert found["allowed4"][0] == "172.17.0.2 . 10.0.0.0/8"
    assert found["allowed4"][1].startswith("172.17.0.2 . 192.0.2.9 timeout 1")
    now = egress.time.monotonic()
    monkeypatch.setattr(egress.time, "monotonic", lambda: now + egress.LEAST_SECONDS + 1)
    assert elements([one])["allowed4"] == ["172.17.0.2 . 10.0.0.0/8"]


def test_packets_are_told_apart():
    udp = bytes.fromhex("4500001c0000000040110000ac110002c0000209") + bytes.fromhex("303900350008")
    assert denials.parse(udp) == ("172.17.0.2", "192.0.2.9", "udp", 53)
    assert denials.parse(udp[:20]) == ("172.17.0.2", "192.0.2.9", "udp", 0)
    for noise in (b"", b"\x45", b"\x60" * 39, b"\xff" * 60):
        assert denials.parse(noise) is None
