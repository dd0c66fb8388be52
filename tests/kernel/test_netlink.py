"""The netlink client: batches, errors in words, dumps; and what they make, as ip sees it."""

from __future__ import annotations

import errno
import json
from ipaddress import ip_address, ip_interface

import pytest
from tests.netlab import needs_net
from tests.segment import run

from sampan.network import links, spaces

pytestmark = needs_net


@pytest.fixture
def space():
    made = spaces.make()
    with spaces.entered(made.fd):
        yield made
    made.close()


def facts(name):
    return json.loads(run("ip", "-j", "-d", "address", "show", "dev", name))[0]


def bridge(name):
    return links.new_bridge(name, b"\x02\0\0\0\0\1", 1400)


def test_a_new_namespace_has_loopback_and_listens_to_no_router(space):
    assert "UP" in facts("lo")["flags"]
    assert spaces.get_sysctl("net/ipv6/conf/default/accept_ra") == "0"
    assert spaces.get_sysctl("net/ipv6/conf/default/disable_ipv6") == "1"


def test_a_bridge_as_it_was_asked_for(space):
    space.netlink.run([bridge("b0")])
    found = facts("b0")
    assert found["linkinfo"]["info_kind"] == "bridge"
    assert (found["mtu"], found["address"]) == (1400, "02:00:00:00:00:01")
    assert "UP" in found["flags"]
    space.netlink.run([links.delete("b0"), links.delete("b0")])
    assert links.index_of("b0") == 0


def test_an_error_says_what_failed_and_the_rest_is_done(space):
    with pytest.raises(OSError, match="make bridge b0: file exists") as failure:
        space.netlink.run([bridge("b0"), bridge("b0"), bridge("b1")])
    assert failure.value.errno == errno.EEXIST
    assert links.index_of("b1")
    space.netlink.run([bridge("b2")])  # the socket is still in step
    assert links.index_of("b2")


def test_a_pair_into_another_namespace_with_addresses_and_a_route(space):
    other = spaces.make()
    try:
        space.netlink.run([links.new_veth("v0", other.fd, "eth0", 1500), bridge("b0")])
        index = links.index_of("b0")
        space.netlink.run(
            [links.join_bridge("v0", index), links.configure_port("v0", isolated=True)]
        )
        assert facts("v0")["master"] == "b0"
        assert facts("v0")["linkinfo"]["info_slave_data"]["isolated"] is True
        with spaces.entered(other.fd):
            inside = links.index_of("eth0")
            spaces.set_sysctl("net/ipv6/conf/eth0/disable_ipv6", "0")
            wanted = [ip_interface("10.9.8.7/24"), ip_interface("fd00::7/64")]
            messages = [links.change("eth0", mac=b"\x02\x42\0\0\0\7", mtu=1300, up=True)]
            messages += [links.add_address(inside, one) for one in wanted * 2]
            messages += [
                links.default_route(inside, ip_address(one)) for one in ("10.9.8.1", "fd00::1")
            ]
            other.netlink.run(messages)
            assert set(wanted) <= set(links.addresses(other.netlink, inside))
            assert (facts("eth0")["mtu"], facts("eth0")["address"]) == (1300, "02:42:00:00:00:07")
            assert "default via 10.9.8.1" in run("ip", "route")
            assert "default via fd00::1" in run("ip", "-6", "route")
            assert ("10.9.8.0/24", inside) in links.routes(other.netlink)
            other.netlink.run([links.drop_default_route(4), links.drop_default_route(6)] * 2)
            assert "default" not in run("ip", "route") + run("ip", "-6", "route")
    finally:
        other.close()


def test_many_links_fit_into_one_dump(space):
    space.netlink.run([bridge(f"b{number}") for number in range(200)])
    indices = [links.index_of(f"b{number}") for number in range(200)]
    space.netlink.run(
        [
            links.add_address(index, ip_interface(f"10.{number}.0.1/24"))
            for number, index in enumerate(indices)
        ]
    )
    assert len([one for one in links.addresses(space.netlink) if str(one).startswith("10.")]) == 200
