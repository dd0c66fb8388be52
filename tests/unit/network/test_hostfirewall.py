"""What a host's firewall would have closed, of what nft prints."""

from __future__ import annotations

from sampan.network.hostfirewall import HostFirewall, judge


def chain(table, hook, policy, name="c"):
    return {
        "chain": {"family": "inet", "table": table, "name": name, "hook": hook, "policy": policy}
    }


def rule(table, right, protocol="tcp", verdict="accept"):
    left = {"payload": {"protocol": protocol, "field": "dport"}}
    match = {"match": {"op": "==", "left": left, "right": right}}
    return {"rule": {"family": "inet", "table": table, "expr": [match, {verdict: None}]}}


def test_an_open_host_closes_nothing():
    found = judge([chain("fw", "input", "accept"), chain("sampan", "forward", "drop")], "sampan")
    assert found == HostFirewall()
    assert not found.blocks("tcp", 80)


def test_what_a_closed_input_lets_in():
    objects = [
        {"metainfo": {"version": "1"}},
        chain("fw", "input", "drop", "in"),
        rule("fw", 22),
        rule("fw", {"set": [80, {"range": [8000, 8010]}]}),
        rule("fw", 53, protocol="udp"),
        rule("fw", 25, verdict="drop"),
        rule("other", 443),
    ]
    found = judge(objects, "sampan")
    assert found.inputs == ("inet fw in",)
    for port in (22, 80, 8000, 8010):
        assert not found.blocks("tcp", port)
    for protocol, port in (("tcp", 25), ("tcp", 443), ("tcp", 53), ("udp", 80)):
        assert found.blocks(protocol, port)
    assert not found.blocks("udp", 53)


def test_a_forward_policy_of_drop():
    assert judge([chain("filter", "forward", "drop", "FORWARD")], "sampan").forwards == (
        "inet filter FORWARD",
    )
