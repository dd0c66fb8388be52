"""Bridges, published ports and what keeps the rest out: every origin, both IP versions, with real
connections, before and after somebody has flushed the packet filter."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from dataclasses import asdict
from ipaddress import ip_address, ip_interface
from typing import NamedTuple

import pytest
from tests.netlab import needs_net
from tests.segment import Plain, Probe, filter_bridges, run, segment

from sampan.errors import FailedPrecondition
from sampan.network import egress, ipam, links, shaping, spaces
from sampan.network.model import Driver, Endpoint, Network, Pool, Published
from sampan.network.plumbing import Plumber

pytestmark = needs_net

OPEN, SHUT, LOCAL = 8080, 9090, 7070
FOREIGN = """
table inet fw {
  chain input { type filter hook input priority 10; policy drop;
    ct state established,related accept
    iifname "lo" accept
    meta l4proto ipv6-icmp accept
    tcp dport 22 accept
  }
}
"""


def network(name, number, **more):
    pools = (
        Pool(subnet=f"10.77.{number}.0/24", gateway=f"10.77.{number}.1"),
        Pool(subnet=f"fd77:{number}::/64", gateway=f"fd77:{number}::1"),
    )
    return Network(id=f"{number:02x}" * 32, name=name, pools=pools, ipv6=True, **more)


class Host:
    """A plumber in this thread's namespace, and the containers that it connected."""

    def __init__(self, marker):
        self.plumber = Plumber(str(marker))
        self.spaces = []

    def join(self, net, last, ports=()):
        """A container with the last number of its addresses; its namespace and endpoint."""
        self.plumber.make_bridge(net)
        spare = self.plumber.take(net.interface)
        self.spaces.append(spare.space)
        number = net.pools[0].subnet.split(".")[2]
        one = Endpoint(
            id="", network=net.id, network_name=net.name, owner=f"c{last}", interface="eth0",
            mac=ipam.mac_of(ipam.parse_address(f"10.77.{number}.{last}")),
            ipv4=f"10.77.{number}.{last}", prefix4=24,
            gateway4="" if net.internal else f"10.77.{number}.1",
            ipv6=f"fd77:{number}::{last}", prefix6=64,
            gateway6="" if net.internal else f"fd77:{number}::1",
        )  # fmt: skip
        self.plumber.attach(
            spare.space, net, one, routed=True, link=spare.link, bridge=spare.bridge
        )
        self.plumber.publish(one, ports)
        return spare.space, one

    def close(self):
        for space in self.spaces:
            space.close()
        self.plumber.close([])


@contextmanager
def lab(tmp_path):
    with segment() as seg:
        host = Host(tmp_path / "forwarding")
        try:
            yield seg, host
        finally:
            host.close()


def published(port, *hosts, protocol="tcp"):
    return [
        Published(port=port, protocol=protocol, host=host, host_port=port + 1) for host in hosts
    ]


def route_through_host(seg):
    """The neighbour sends what is for containers, and for 127.0.0.1, to the host."""
    with spaces.entered(seg.neighbour.fd):
        spaces.set_sysctl("net/ipv4/conf/ext0/route_localnet", "1")
        run("ip", "address", "del", "127.0.0.1/8", "dev", "lo")
        run("ip", "route", "add", "127.0.0.1/32", "via", "198.51.100.1", "dev", "ext0")
        run("ip", "route", "add", "10.77.0.0/16", "via", "198.51.100.1")
        run("ip", "-6", "route", "add", "fd77::/16", "via", "2001:db8:1::1")
        run("ip", "-6", "address", "del", "::1/128", "dev", "lo")
        run("ip", "-6", "route", "add", "::1/128", "via", "2001:db8:1::1", "dev", "ext0")


class Places(NamedTuple):
    """The host's address, and the container's."""

    ext4: str
    ext6: str
    own4: str
    own6: str


def matrix(seg, at, fellow, stranger):
    """What eight origins see of a published port and of one that is not, by IPv4 and IPv6."""
    far, yes = OPEN + 1, "inside "
    cells = {
        "host by loopback": (seg.host, "127.0.0.1", "::1",
            # The kernel cannot rewrite what comes to ::1; the engine carries it.
            (yes + "10.77.1.1", ""), ("", "")),
        "host by its own address": (seg.host, at.ext4, at.ext6,
            (yes + at.ext4, yes + at.ext6), ("", "")),
        "host by the container's address": (seg.host, at.own4, at.own6,
            (yes + "10.77.1.1", yes + "fd77:1::1"), (yes + "10.77.1.1", yes + "fd77:1::1")),
        "client on the segment": (seg.client, at.ext4, at.ext6,
            (yes + "198.51.100.2", yes + "2001:db8:1::2"), ("", "")),
        "neighbour that routes to the container": (seg.neighbour, at.own4, at.own6,
            ("", ""), ("", "")),
        "neighbour that routes to the host's loopback": (seg.neighbour, "127.0.0.1", "::1",
            ("", ""), ("", "")),
        "container of the same network": (fellow, at.own4, at.own6,
            (yes + "10.77.1.6", yes + "fd77:1::6"), (yes + "10.77.1.6", yes + "fd77:1::6")),
        "container of another network": (stranger, at.own4, at.own6,
            ("", ""), ("", "")),
    }  # fmt: skip
    probes = {}
    for name, (origin, by4, by6, published, unpublished) in cells.items():
        inner = "container" in name  # the container's own port, not the host's
        for address, there, shut in zip((by4, by6), published, unpublished, strict=True):
            probes[Probe(origin, address, OPEN if inner and "host's" not in name else far)] = there
            probes[Probe(origin, address, SHUT)] = shut
    assert len(probes) == 8 * 2 * 2
    return probes


def corners(seg, at, inside, fellow, stranger):
    """Published on 127.0.0.1 only; through the host from within; the container itself."""
    far, local = OPEN + 1, LOCAL + 1
    return {
        Probe(seg.host, "127.0.0.1", local): "inside 10.77.1.1",
        Probe(seg.host, at.ext4, local): "",
        Probe(seg.client, at.ext4, local): "",
        Probe(seg.neighbour, "127.0.0.1", local): "",
        Probe(fellow, at.ext4, far): "inside 10.77.1.1",
        Probe(fellow, at.ext6, far): "inside fd77:1::1",
        Probe(fellow, "10.77.1.1", far): "inside 10.77.1.1",
        Probe(fellow, at.ext4, SHUT): "",
        Probe(fellow, at.ext4, local): "",
        Probe(inside, at.ext4, far): "inside 10.77.1.1",
        Probe(inside, at.ext6, far): "inside fd77:1::1",
        Probe(stranger, at.ext4, far): "inside 10.77.2.7",
        Probe(stranger, at.ext6, far): "inside fd77:2::7",
        Probe(stranger, at.ext4, SHUT): "",
        Probe(stranger, at.ext6, SHUT): "",
        Probe(stranger, at.ext4, local): "",
    }


@pytest.mark.parametrize("filtered", [False, True], ids=["plain", "filtered-bridges"])
def test_the_matrix(tmp_path, filtered):
    """Eight origins, published or not, both versions, before and after a flush, and with a host
    firewall that lets nothing in; also where the packet filter sees what stays on a bridge, as
    Docker and Kubernetes set it."""
    with lab(tmp_path) as (seg, host):
        filter_bridges(on=filtered)
        net, other = network("one", 1), network("two", 2)
        ports = [*published(OPEN, "0.0.0.0", "::"), *published(LOCAL, "127.0.0.1")]
        inside, _ = host.join(net, 5, ports)
        fellow, _ = host.join(net, 6)
        stranger, _ = host.join(other, 7)
        for port in (OPEN, SHUT, LOCAL):
            seg.serve(inside, "inside", port)
        route_through_host(seg)
        places = Places("198.51.100.1", "2001:db8:1::1", "10.77.1.5", "fd77:1::5")
        expected = matrix(seg, places, fellow, stranger)
        expected |= corners(seg, places, inside, fellow, stranger)
        for circumstance in ("at first", "after a flush", "with a foreign firewall"):
            if circumstance == "after a flush":
                run("nft", "flush", "ruleset")
                host.plumber.reassert()
            if circumstance == "with a foreign firewall":
                (tmp_path / "fw.nft").write_text(FOREIGN)
                run("nft", "-f", str(tmp_path / "fw.nft"))
            found = seg.ask(expected)
            for probe, answer in expected.items():
                said = found.get(probe, "")
                if filtered and probe.origin in (inside, fellow):  # its own address is kept then
                    said, answer = said[:6], answer[:6]  # noqa: PLW2901
                assert said == answer, (circumstance, probe.address, probe.port)
        host.plumber.reassert()
        assert "tcp dport 22 accept" in run("nft", "list", "table", "inet", "fw")


def test_what_comes_from_loopback_takes_no_port_of_the_hosts_own_connections(tmp_path):
    """Both reach the server from the bridge's address; a server that remembers a port of the one
    would take the other for a ghost, and keep it waiting for a second."""
    with lab(tmp_path) as (_, host):
        inside, one = host.join(network("one", 1), 5, published(OPEN, "0.0.0.0"))
        with spaces.entered(inside.fd):
            listening = socket.create_server((one.ipv4, OPEN))
        seen = []
        with listening:
            for target in ((one.ipv4, OPEN), ("127.0.0.1", OPEN + 1)):
                for _ in range(20):
                    with socket.create_connection(target, timeout=30) as sock:
                        accepted, peer = listening.accept()
                        accepted.close()
                        seen.append((sock.getsockname()[1], peer))
        direct, by_loopback = seen[:20], seen[20:]
        assert all(peer == ("10.77.1.1", port) for port, peer in direct)
        first, last = map(int, spaces.get_sysctl("net/ipv4/ip_local_port_range").split())
        assert {peer[0] for _, peer in by_loopback} == {"10.77.1.1"}
        assert not [peer for _, peer in by_loopback if first <= peer[1] <= last]


def test_out_with_the_hosts_address_and_datagrams_both_ways(tmp_path):
    with lab(tmp_path) as (seg, host):
        ports = published(OPEN, "0.0.0.0", "::", protocol="udp")
        inside, _ = host.join(network("one", 1), 5, ports)
        kind = socket.SOCK_DGRAM
        seg.serve(inside, "inside", OPEN, kind)
        seg.serve(seg.client, "outside", SHUT)
        expected = {
            Probe(inside, "198.51.100.2", SHUT): "outside 198.51.100.1",
            Probe(inside, "2001:db8:1::2", SHUT): "outside 2001:db8:1::1",
            Probe(seg.client, "198.51.100.1", OPEN + 1, kind): "inside 198.51.100.2",
            Probe(seg.client, "2001:db8:1::1", OPEN + 1, kind): "inside 2001:db8:1::2",
            Probe(seg.host, "127.0.0.1", OPEN + 1, kind): "inside 10.77.1.1",
        }
        assert seg.ask(expected) == expected


def test_an_internal_network_reaches_itself_and_nothing_else(tmp_path):
    with lab(tmp_path) as (seg, host):
        inner, outer = network("inner", 1, internal=True), network("outer", 2)
        inside, one = host.join(inner, 5)
        fellow, _ = host.join(inner, 6)
        stranger, _ = host.join(outer, 7, published(OPEN, "0.0.0.0", "::"))
        # A guest that is root in there gives itself a way out.
        for version, gateway in (("-4", "10.77.1.1"), ("-6", "fd77:1::1")):
            run("nsenter", f"--net={inside.path}", "ip", version, "route", "add", "default",
                "via", gateway)  # fmt: skip
        seg.serve(inside, "inside", SHUT)
        seg.serve(stranger, "stranger", OPEN)
        seg.serve(seg.client, "outside", SHUT)
        seg.serve(seg.host, "host", SHUT)
        route_through_host(seg)
        found = seg.ask(
            [
                Probe(fellow, one.ipv4, SHUT),
                Probe(fellow, one.ipv6, SHUT),
                Probe(inside, "10.77.1.1", SHUT),
                Probe(inside, "198.51.100.1", SHUT),
                Probe(inside, "2001:db8:1::1", SHUT),
                Probe(inside, "198.51.100.2", SHUT),
                Probe(inside, "2001:db8:1::2", SHUT),
                Probe(inside, "10.77.2.7", OPEN),
                Probe(inside, "198.51.100.1", OPEN + 1),
                Probe(stranger, one.ipv4, SHUT),
                Probe(seg.neighbour, one.ipv4, SHUT),
                Probe(seg.neighbour, one.ipv6, SHUT),
            ]
        )
        assert {(probe.address, answer.split()[0]) for probe, answer in found.items()} == {
            (one.ipv4, "inside"),
            (one.ipv6, "inside"),
            ("10.77.1.1", "host"),
        }


def test_containers_of_a_network_that_may_not_talk(tmp_path):
    with lab(tmp_path) as (seg, host):
        options = {"com.docker.network.bridge.enable_icc": "false"}
        net = network("mute", 1, options=options)
        inside, one = host.join(net, 5)
        fellow, _ = host.join(net, 6)
        seg.serve(inside, "inside", SHUT)
        seg.serve(seg.client, "outside", SHUT)
        found = seg.ask([Probe(fellow, one.ipv4, SHUT), Probe(fellow, "198.51.100.2", SHUT)])
        assert list(found.values()) == ["outside 198.51.100.1"]


def test_the_host_becomes_no_router(tmp_path):
    with lab(tmp_path) as (seg, host):
        beyond = seg.space()
        with Plain() as netlink:
            netlink.run([links.new_veth("ext1", beyond.fd, "far1", 1500)])
            netlink.run([links.add_address(links.index_of("ext1"), ip_interface("203.0.113.1/24"))])
        with spaces.entered(beyond.fd):
            address = links.add_address(links.index_of("far1"), ip_interface("203.0.113.2/24"))
            route = links.default_route(links.index_of("far1"), ip_address("203.0.113.1"))
            beyond.netlink.run([links.change("far1", up=True), address, route])
        with spaces.entered(seg.client.fd):
            run("ip", "route", "add", "203.0.113.0/24", "via", "198.51.100.1")
        seg.serve(beyond, "beyond", SHUT)
        # As the end of a pair is that has left its bridge, a moment before it is gone.
        run("ip", "link", "add", links.new_name(), "type", "veth", "peer", links.new_name())
        spaces.set_sysctl("net/ipv4/ip_forward", "0")  # a new namespace has the host's value
        host.join(network("one", 1), 5)
        assert spaces.get_sysctl("net/ipv4/ip_forward") == "1"
        assert (tmp_path / "forwarding4").read_text().split() == ["ext0", "ext1"]
        uplinks = json.loads(run("nft", "-j", "list", "set", "inet", "sampan", "uplinks4"))
        assert uplinks["nftables"][1]["set"]["elem"] == ["ext0", "ext1"]
        assert seg.answer(seg.client, "203.0.113.2", SHUT) == ""
        assert seg.answer(seg.host, "203.0.113.2", SHUT) == "beyond 203.0.113.1"


def test_a_bridge_that_was_there_stays_as_it_was(tmp_path):
    """Somebody else's bridge may be a network's; it keeps its IPv6, and outlives the network."""
    with lab(tmp_path) as (_, host):
        run("ip", "link", "add", "theirs0", "type", "bridge")
        spaces.set_sysctl("net/ipv6/conf/theirs0/disable_ipv6", "0")
        run("ip", "address", "add", "fd99::1/64", "dev", "theirs0", "nodad")
        run("ip", "link", "set", "theirs0", "up")
        options = {"com.docker.network.bridge.name": "theirs0"}
        pools = (Pool(subnet="10.77.9.0/24", gateway="10.77.9.1"),)
        net = Network(id="09" * 32, name="nine", pools=pools, options=options)
        host.plumber.make_bridge(net)
        assert "10.77.9.1/24" in run("ip", "address", "show", "theirs0")
        host.plumber.remove_bridge(net)
        assert "fd99::1/64" in run("ip", "address", "show", "theirs0")


def test_an_interface_that_is_gone_does_not_keep_the_rules_from_being_made(tmp_path):
    """A restricted container that ends at the moment of a flush."""
    with lab(tmp_path) as (seg, host):
        net = network("one", 1)
        inside, one = host.join(net, 5)
        fellow, _ = host.join(net, 6)
        seg.serve(seg.client, "client", SHUT)
        host.plumber.restrict("c5", inside, [(one, net)], egress.parse([]))
        with spaces.entered(inside.fd):
            run("ip", "link", "del", "eth0")
        run("nft", "flush", "ruleset")
        host.plumber.reassert()
        assert seg.answer(fellow, "198.51.100.2", SHUT) == "client 198.51.100.1"


def test_what_is_idle_goes_at_the_end_and_foreign_tables_stay(tmp_path):
    with lab(tmp_path) as (_, host):
        spaces.set_sysctl("net/ipv4/ip_forward", "1")
        spaces.set_sysctl("net/ipv6/conf/all/forwarding", "1")
        run("nft", "add", "table", "inet", "theirs")
        busy, idle = network("busy", 1), network("idle", 2)
        host.join(busy, 5)
        host.plumber.make_bridge(idle)
        host.plumber.close([idle])
        assert "sb-0202" not in run("ip", "link")
        assert "sb-0101" in run("ip", "link")
        assert "table inet sampan" in run("nft", "list", "tables")
        again = Plumber(str(tmp_path / "forwarding"))
        assert again.restore([busy, idle], {busy.id}, [])
        again.close([busy])
        assert run("nft", "list", "tables") == "table inet theirs\n"
        assert "sb-" not in run("ip", "link")


@pytest.mark.parametrize("mode", ["bridge", "private"])
def test_macvlan_is_a_neighbour_of_its_own(tmp_path, mode):
    with lab(tmp_path) as (seg, host):
        pools = (Pool(subnet="198.51.100.0/24", gateway="198.51.100.1"),)
        options = {"parent": "ext0", "macvlan_mode": mode}
        net = Network(
            id="aa" * 32, name="wire", driver=Driver.MACVLAN, pools=pools, options=options
        )
        spaces_of = []
        for last in (50, 51):
            space = seg.space()
            one = Endpoint(
                id="", network=net.id, network_name="wire", owner="c", interface="eth0",
                ipv4=f"198.51.100.{last}", prefix4=24, gateway4="198.51.100.1",
            )  # fmt: skip
            host.plumber.attach(space, net, one, routed=True)
            spaces_of.append(space)
        seg.serve(spaces_of[0], "inside", SHUT)
        seg.serve(seg.client, "outside", SHUT)
        found = seg.ask(
            [
                Probe(seg.client, "198.51.100.50", SHUT),
                Probe(spaces_of[0], "198.51.100.2", SHUT),
                Probe(spaces_of[1], "198.51.100.50", SHUT),
                Probe(seg.host, "198.51.100.50", SHUT),  # macvlan's nature: not from its parent
            ]
        )
        among = {"inside 198.51.100.51"} if mode == "bridge" else set()
        assert set(found.values()) == {"inside 198.51.100.2", "outside 198.51.100.50", *among}
        gone = Network(id="bb" * 32, name="x", driver=Driver.MACVLAN, options={"parent": "nosuch"})
        with pytest.raises(FailedPrecondition, match="no interface 'nosuch' here"):
            host.plumber.attach(seg.space(), gone, one, routed=True)


def test_bandwidth_is_limited_both_ways(tmp_path):
    """Each way has a bucket of its own, and what is sent waits in it."""
    with lab(tmp_path) as (seg, host):
        net = network("one", 1)
        rates = shaping.parse({"sampan.rate-in": "80mbit", "sampan.rate-out": "40mbit",
                               "sampan.burst-in": "32k", "sampan.burst-out": "32k"})  # fmt: skip
        host.plumber.make_bridge(net)
        space = seg.space()
        one = Endpoint(
            id="", network=net.id, network_name="one", owner="c", interface="eth0",
            ipv4="10.77.1.5", prefix4=24, **asdict(rates),
        )  # fmt: skip
        link = host.plumber.attach(space, net, one, routed=False)

        def bucket(name):
            return json.loads(run("tc", "-s", "-j", "qdisc", "show", "dev", name))[0]

        with spaces.entered(space.fd):
            listening = socket.create_server(("10.77.1.5", SHUT))
        with socket.create_connection(("10.77.1.5", SHUT)) as near, listening:
            far, _ = listening.accept()
            with far:
                for sender, receiver in ((near, far), (far, near)):
                    sender.sendall(bytes(100_000))
                    left = 100_000
                    while left:
                        left -= len(receiver.recv(left))
        found = bucket(link)
        assert (found["kind"], found["options"]["rate"]) == ("tbf", 10_000_000)
        assert found["overlimits"] > 0
        with spaces.entered(space.fd):
            found = bucket("eth0")
        assert found["options"]["rate"] == 5_000_000
        assert abs(found["options"]["burst"] - (32 << 10)) < 64  # the kernel counts in ticks
        assert found["overlimits"] > 0


def test_a_restricted_container_cannot_pretend_or_go_round(tmp_path):
    """Not with a fellow's address, not past the bridge, not to the host."""
    with lab(tmp_path) as (seg, host):
        net = network("one", 1)
        inside, one = host.join(net, 5, published(OPEN, "0.0.0.0", "::"))
        fellow, other = host.join(net, 6)
        host.plumber.restrict("c5", inside, [(one, net)], egress.parse(["198.51.100.3"]))
        for space, name in ((seg.client, "client"), (seg.neighbour, "neighbour"),
                            (fellow, "fellow"), (seg.host, "host")):  # fmt: skip
            seg.serve(space, name, SHUT)
        seg.serve(inside, "inside", OPEN)
        expected = {
            Probe(inside, "198.51.100.3", SHUT): "neighbour 198.51.100.1",
            Probe(inside, "198.51.100.2", SHUT): "",
            Probe(inside, "2001:db8:1::3", SHUT): "",
            Probe(inside, "10.77.1.1", SHUT): "",
            Probe(inside, "fd77:1::1", SHUT): "",
            Probe(inside, other.ipv4, SHUT): "",
            Probe(inside, other.ipv6, SHUT): "",
            Probe(seg.client, "198.51.100.1", OPEN + 1): "inside 198.51.100.2",  # it may answer
            Probe(seg.client, "2001:db8:1::1", OPEN + 1): "inside 2001:db8:1::2",
            Probe(fellow, "198.51.100.2", SHUT): "client 198.51.100.1",
        }
        found = seg.ask(expected)
        assert {probe: found.get(probe, "") for probe in expected} == expected
        # A guest that is root in there takes the address of somebody who is not restricted.
        with spaces.entered(inside.fd):
            run("ip", "address", "del", "10.77.1.5/24", "dev", "eth0")
            run("ip", "address", "add", "10.77.1.99/24", "dev", "eth0")
            run("ip", "route", "replace", "default", "via", "10.77.1.1")
        assert seg.answer(inside, "198.51.100.2", SHUT) == ""
        host.plumber.restrict("c5", inside, [(one, net)], None)
        assert seg.answer(inside, "198.51.100.2", SHUT) == "client 198.51.100.1"
        assert "netdev" not in run("nft", "list", "tables")
