"""The rules as text: what is there only while somebody needs it, and the ports for loopback."""

from __future__ import annotations

import pytest

from sampan.network.ruleset import free_ports, table


@pytest.mark.parametrize(
    ("local", "found"),
    [
        ("32768\t60999", (1024, 32767)),
        ("1024 40000", (40001, 65535)),
        ("1024 65535", None),
        ("5000 60000", None),
        ("", None),
    ],
)
def test_the_side_that_the_host_does_not_use(local, found):
    assert free_ports(local) == found


def test_an_established_connection_meets_one_rule():
    rules = table("x", {"bridges": ['"b"']}, group=1)
    forward = rules[rules.index("chain forward") :].splitlines()
    assert forward[2].strip() == "ct state established,related accept"
    assert "hook input" not in rules
    assert "chain egress" not in rules


def test_restricted_containers_come_before_what_is_established():
    rules = table("x", {"restricted6": ["fd00::1"]}, group=1)
    assert rules.index("@restricted6 jump egress") < rules.index("ct state established")
    assert "hook input" in rules


def test_internal_networks_have_a_rule_of_their_own():
    rules = table("x", {"internal": ['"b"']}, group=1)
    assert "iifname @internal fib" in rules
    assert "egress" not in rules
