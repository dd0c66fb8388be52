"""Networks from outside: a real daemon, docker's own CLI, and real connections."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import contextmanager

import pytest
from tests import netdocker
from tests.netdocker import eventually, fetch, run, serve
from tests.netlab import needs_net

import dockerlab
from sampan.network import dns

pytestmark = [
    needs_net,
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI"),
]


@pytest.fixture(scope="module")
def daemon():
    with netdocker.daemon() as made:
        yield made


@pytest.fixture
def docker(daemon):
    with netdocker.docker(daemon) as call:
        yield call


@contextmanager
def web_server():
    """Somebody outside, who says what address he sees; the port."""
    with socket.create_server(("0.0.0.0", 0)) as listening:
        yield listening, listening.getsockname()[1]


def test_the_default_is_a_bridge_with_a_way_out(docker):
    with web_server() as (listening, port):
        bridge = json.loads(docker("network", "inspect", "bridge"))[0]
        gateway = bridge["IPAM"]["Config"][0]["Gateway"]
        docker("run", "-d", "--name", "one", "bb:1", "busybox", "nc", gateway, str(port))
        listening.settimeout(30)
        peer, address = listening.accept()
        with peer:
            found = json.loads(docker("inspect", "one"))[0]["NetworkSettings"]
            assert address[0] == found["IPAddress"] == found["Networks"]["bridge"]["IPAddress"]
            assert found["Gateway"] == gateway
    docker("wait", "one")
    stopped = json.loads(docker("inspect", "one"))[0]["NetworkSettings"]
    assert stopped["IPAddress"] == ""
    assert stopped["Ports"] == {}


def test_ports_and_pings_are_everybody_s(docker):
    words = ("--user", "1000:1000", "--cap-drop", "all", "bb:1", "sh", "-c")
    script = "cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range"
    assert docker("run", "--rm", *words, script).split() == ["0", "0", "2147483647"]
    given = ("--sysctl", "net.ipv4.ip_unprivileged_port_start=1024")
    assert docker("run", "--rm", *given, *words, script).split()[0] == "1024"


def test_a_published_port_answers_while_the_container_runs(docker):
    serve(docker, "web", "--hostname", "h1", "-p", "18080:80", "-p", "127.0.0.1::80")
    assert fetch("127.0.0.1", 18080) == fetch("192.0.2.1", 18080) == "h1"
    ports = docker("port", "web").splitlines()
    assert [ports[0], ports[2]] == ["80/tcp -> 0.0.0.0:18080", "80/tcp -> [::]:18080"]
    ephemeral = int(ports[1].rpartition(":")[2])
    assert fetch("127.0.0.1", ephemeral) == "h1"
    assert f"127.0.0.1:{ephemeral}->80/tcp" in docker("ps")
    said = docker("run", "-d", "-p", "18080:80", "bb:1", "true", code=125)
    assert "Bind for 0.0.0.0:18080 failed: port is already allocated" in said
    docker("stop", "-t", "0", "web")
    assert fetch("127.0.0.1", 18080) == ""
    docker("start", "web")
    eventually(lambda: fetch("127.0.0.1", 18080) == "h1")
    docker("rm", "-f", "web")
    with socket.create_server(("127.0.0.1", 18080)):
        pass  # it is free again


def test_a_port_that_another_program_has_is_not_taken(docker):
    with socket.create_server(("127.0.0.1", 18081)):
        said = docker("run", "-p", "18081:80", "bb:1", "true", code=125)
        assert "port is already allocated" in said
        docker("run", "--rm", "-p", "18081-18082:80", "bb:1", "true")


def test_the_engine_makes_its_rules_again_after_a_foreign_flush(docker):
    serve(docker, "web", "--hostname", "h2", "-p", "18083:80")
    run("nft", "add", "table", "inet", "theirs")
    for _ in range(2):
        run("nft", "flush", "ruleset")
        eventually(lambda: "sampan" in run("nft", "list", "tables"))
        assert fetch("127.0.0.1", 18083) == "h2"
    before = run("nft", "-a", "list", "ruleset")
    docker("run", "--rm", "bb:1", "true")
    assert run("nft", "-a", "list", "ruleset") == before  # and not again and again


def test_connect_and_disconnect_while_it_runs(docker):
    docker("network", "create", "--subnet", "10.91.0.0/24", "back")
    docker("run", "-d", "--name", "one", "bb:1", "sleep", "1000")
    serve(docker, "two", "--network", "back", "--ip", "10.91.0.9", "--hostname", "h3")
    get = ["exec", "one", "busybox", "wget", "-q", "-O-", "http://10.91.0.9/hostname"]
    docker("network", "connect", "--ip", "10.91.0.7", "back", "one")
    assert docker(*get) == "h3"
    assert "10.91.0.7" in docker("exec", "one", "cat", "/etc/hosts")
    found = json.loads(docker("network", "inspect", "back"))[0]["Containers"]
    assert sorted(one["Name"] for one in found.values()) == ["one", "two"]
    assert "10.91.0.7" in docker("inspect", "one")
    docker("network", "disconnect", "back", "one")
    assert "10.91.0.7" not in docker("exec", "one", "cat", "/etc/hosts")
    assert "eth1" not in docker("exec", "one", "cat", "/proc/net/dev")
    assert "not connected" in docker("network", "disconnect", "back", "one", code=1)
    words = ["--link-local-ip", "169.254.9.9", "back", "one"]
    assert netdocker.sampan(docker.daemon, "network", "connect", *words) == (0, "")
    assert "169.254.9.9" in docker("exec", "one", "busybox", "ip", "address", "show", "eth1")
    docker("restart", "-t", "0", "two")
    assert "10.91.0.9" in docker("inspect", "two")


def test_a_container_that_was_taken_out_of_every_network(docker):
    docker("run", "-d", "--name", "one", "bb:1", "sleep", "1000")
    docker("network", "disconnect", "bridge", "one")
    docker("restart", "-t", "0", "one")
    assert "eth0" not in docker("exec", "one", "cat", "/proc/net/dev")
    docker("network", "connect", "bridge", "one")
    assert "eth0" in docker("exec", "one", "cat", "/proc/net/dev")


def test_what_a_network_was_asked_for(docker):
    docker("network", "create", "--ipv6", "--subnet", "10.92.0.0/24", "--subnet", "fd92::/64",
           "-o", "com.docker.network.driver.mtu=1400", "--internal", "n6")  # fmt: skip
    out = docker("run", "--rm", "--network", "n6", "--ip6", "fd92::9", "--mac-address",
                 "02:42:0a:63:00:60", "bb:1", "sh", "-c",
                 "cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address /proc/net/if_inet6; "
                 "cat /proc/net/route")  # fmt: skip
    assert out.split()[:2] == ["1400", "02:42:0a:63:00:60"]
    assert "fd920000000000000000000000000009" in out
    assert "00000000" not in [line.split("\t")[1] for line in out.splitlines() if "\t" in line]


def test_a_container_shares_the_network_of_another(docker):
    serve(docker, "web", "--hostname", "h4")
    assert docker("run", "--rm", "--network", "container:web", "bb:1", "hostname") == "h4"
    out = docker("run", "--rm", "--network", "container:web", "bb:1", "busybox", "wget", "-q",
                 "-O-", "http://127.0.0.1/hostname")  # fmt: skip
    assert out == "h4"
    said = docker("run", "--network", "container:web", "-p", "80:80", "bb:1", "true", code=125)
    assert "port publishing and the container type network mode" in said
    docker("stop", "-t", "0", "web")
    said = docker("run", "--network", "container:web", "bb:1", "true", code=125)
    assert "non running container" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["network", "create", "bridge"], "not permitted on predefined bridge network"),
        (["network", "create", "-d", "nosuch", "x"], "could not find driver 'nosuch'"),
        (["network", "create", "--subnet", "10.93.0.0/33", "x"], "invalid subnet"),
        (["network", "create", "--subnet", "10.93.0.0/24", "--gateway", "10.94.0.1", "x"],
         "no matching subnet for gateway"),
        (["network", "create", "-o", "com.docker.network.bridge.name=a/b", "x"], "a/b"),
        (["network", "create", "--config-only", "x"], "ConfigOnly is of swarm"),
        (["network", "rm", "host"], "pre-defined network"),
        (["network", "rm", "nosuch"], "network nosuch not found"),
        (["network", "connect", "nosuch", "nosuch"], "No such container: nosuch"),
    ],
)  # fmt: skip
def test_what_is_refused(docker, words, sentence):
    before = docker("network", "ls", "-q")
    assert sentence in docker(*words, code=1)
    assert docker("network", "ls", "-q") == before


def test_a_network_in_use_stays(docker):
    docker("network", "create", "busy")
    docker("run", "-d", "--name", "one", "--network", "busy", "bb:1", "sleep", "1000")
    assert "has active endpoints" in docker("network", "rm", "busy", code=1)
    docker("stop", "-t", "0", "one")
    assert docker("network", "prune", "-f") == ""
    docker("rm", "one")
    assert docker("network", "prune", "-f") == "Deleted Networks:\nbusy"


def test_nothing_is_lost_when_the_daemon_is_killed(daemon, docker):
    docker("network", "create", "kept")
    serve(docker, "web", "--hostname", "h5", "--network", "kept", "-p", "18084:80")
    before = json.loads(docker("inspect", "web"))[0]["NetworkSettings"]
    docker("run", "-d", "--name", "short", "bb:1", "sleep", "1000")
    pid = json.loads(docker("inspect", "short"))[0]["State"]["Pid"]
    daemon.process.kill()
    daemon.process.wait()
    assert fetch("127.0.0.1", 18084) == "h5"
    os.kill(pid, 9)  # one ends while nobody looks
    daemon.start()
    after = json.loads(docker("inspect", "web"))[0]["NetworkSettings"]
    assert after == before
    assert fetch("127.0.0.1", 18084) == fetch("::1", 18084) == "h5"
    eventually(lambda: docker("ps", "-q", "-f", "name=short") == "")
    assert json.loads(docker("network", "inspect", "bridge"))[0]["Containers"] == {}
    assert "already allocated" in docker("run", "-p", "18084:80", "bb:1", "true", code=125)
    docker("run", "--rm", "bb:1", "true")
    docker("rm", "-f", "web")
    assert fetch("127.0.0.1", 18084) == ""


def resolve(docker, name, wanted, kind="a"):
    """The addresses that a container gets for a name."""
    words = ["exec", name, "busybox", "nslookup", f"-type={kind}", wanted]
    done = docker.daemon.docker(*words)
    found = [line.split()[-1] for line in done.lines if line.startswith("Address")]
    return found[1:] if done.code == 0 else []


def test_names_are_known_within_a_network_and_not_across(docker):
    for name, number in (("front", 94), ("back", 95)):
        docker("network", "create", "--ipv6", "--subnet", f"10.{number}.0.0/24", "--subnet",
               f"fd{number}::/64", name)  # fmt: skip
    sleep = ["bb:1", "sleep", "1000"]
    docker("run", "-d", "--name", "web", "--network", "front", "--network-alias", "www",
           "--ip", "10.94.0.5", "--ip6", "fd94::5", *sleep)  # fmt: skip
    docker("run", "-d", "--name", "db", "--network", "back", "--ip", "10.95.0.6", *sleep)
    docker("run", "-d", "--name", "me", "--network", "front", *sleep)
    docker("run", "-d", "--name", "plain", "--dns", "192.0.2.1", *sleep)  # nobody answers there
    assert "nameserver 127.0.0.11" in docker("exec", "me", "cat", "/etc/resolv.conf")
    short = docker("inspect", "web", "--format", "{{.Id}}")[:12]
    for name in ("web", "WWW", "web.front", short):
        assert resolve(docker, "me", name) == ["10.94.0.5"]
    assert resolve(docker, "me", "web", "aaaa") == ["fd94::5"]
    assert "web.front" in docker("exec", "me", "busybox", "nslookup", "10.94.0.5")
    assert resolve(docker, "me", "db") == []
    assert resolve(docker, "plain", "web") == []
    docker("network", "connect", "--alias", "store", "back", "me")
    assert resolve(docker, "me", "db") == ["10.95.0.6"]
    assert resolve(docker, "db", "store") != []
    docker("network", "connect", "front", "plain")
    assert resolve(docker, "plain", "www") == ["10.94.0.5"]  # its resolv.conf has followed
    docker("rename", "web", "site")
    assert resolve(docker, "me", "site") == ["10.94.0.5"]
    assert resolve(docker, "me", "web") == []
    docker("stop", "-t", "0", "site")
    assert resolve(docker, "me", "site") == []
    docker.daemon.stop(9)
    docker.daemon.start()
    assert resolve(docker, "me", "db") == ["10.95.0.6"]


@contextmanager
def name_server():
    """A name server of the host; the names that it was asked for."""
    asked = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("192.0.2.1", 53))

        def serve():
            while True:
                data, peer = sock.recvfrom(512)
                if data == b"end":
                    return
                query = dns.parse(data)
                asked.append(query.name)
                sock.sendto(dns.answer(query, ["203.0.113.9"]), peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", ("192.0.2.1", 53))
            thread.join()


def test_other_names_are_asked_where_the_container_may_ask(docker):
    docker("network", "create", "open")
    docker("network", "create", "--internal", "closed")
    sleep = ["--dns", "192.0.2.1", "bb:1", "sleep", "1000"]
    docker("run", "-d", "--name", "out", "--network", "open", *sleep)
    docker("run", "-d", "--name", "in", "--network", "closed", *sleep)
    with name_server() as asked:
        assert resolve(docker, "out", "example.org") == ["203.0.113.9"]
        assert resolve(docker, "in", "secret.example.org") == []
        assert asked == ["example.org"]


def test_port_53_is_free_for_a_name_server_of_the_containers_own(docker):
    docker("network", "create", "open")
    docker("run", "-d", "--name", "ns", "--network", "open", "bb:1", "busybox", "nc", "-l", "-p",
           "53")  # fmt: skip
    eventually(lambda: ":0035 " in docker("exec", "ns", "cat", "/proc/net/tcp", "/proc/net/tcp6"))
    assert resolve(docker, "ns", "ns") != []


def test_links(docker):
    docker("network", "create", "open")
    docker("run", "-d", "--name", "db", "--network", "open", "bb:1", "sleep", "1000")
    docker("run", "-d", "--name", "me", "--network", "open", "--link", "db:store", "bb:1",
           "sleep", "1000")  # fmt: skip
    assert resolve(docker, "me", "store") == resolve(docker, "me", "db") != []
    assert resolve(docker, "db", "store") == []
    docker("run", "-d", "--name", "old", "bb:1", "sleep", "1000")
    hosts = docker("run", "--rm", "--link", "old:store", "bb:1", "cat", "/etc/hosts")
    address = json.loads(docker("inspect", "old"))[0]["NetworkSettings"]["IPAddress"]
    assert f"{address}\tstore " in hosts
    said = docker("run", "--link", "nosuch", "bb:1", "true", code=125)
    assert "could not get container for nosuch" in said


def test_ports_of_a_running_container_come_and_go(daemon, docker):
    def sampan(*words):
        return netdocker.sampan(daemon, *words)[1]

    serve(docker, "web", "--hostname", "h6", "-p", "18085:80")
    assert sampan("publish", "web", "18086:80", "127.0.0.1:18087:80") == ""
    assert [fetch("127.0.0.1", port) for port in (18085, 18086, 18087)] == ["h6"] * 3
    assert "18086->80/tcp" in docker("ps")
    run("nft", "add", "table", "inet", "fw")
    run("nft", "add chain inet fw input { type filter hook input priority 0; policy drop; }")
    run("nft", "add rule inet fw input iifname lo accept")
    run("nft", "add rule inet fw input tcp dport 18086 accept")
    try:
        table = [line.split(None, 3) for line in sampan("ports").splitlines()[1:]]
    finally:
        run("nft", "delete", "table", "inet", "fw")
    by_ipv6 = [row for row in table if "[" in row[2]]
    assert [row[2] for row in by_ipv6] == ["[::]:18085", "[::]:18086"]
    assert ["firewall closes it" in row[3] for row in by_ipv6] == [True, False]
    assert "carried by the engine" in by_ipv6[1][3]
    table = [row for row in table if row not in by_ipv6]
    assert [row[2] for row in table] == ["0.0.0.0:18085", "0.0.0.0:18086", "127.0.0.1:18087"]
    assert [row[3].split("  ")[0] for row in table] == ["everyone", "everyone", "this host"]
    assert ["closes it" in row[3] for row in table] == [True, False, False]
    assert "port is already allocated" in sampan("publish", "web", "18086:80")
    assert sampan("unpublish", "web", "18086:80") == ""
    assert fetch("127.0.0.1", 18086) == ""
    assert "is not published there" in sampan("unpublish", "web", "18086:80")
    docker("restart", "-t", "0", "web")
    eventually(lambda: fetch("127.0.0.1", 18087) == "h6")
    found = ["0.0.0.0:18085", "127.0.0.1:18087", "[::]:18085"]
    assert docker("port", "web", "80").splitlines() == found


def test_bandwidth_is_an_option_of_a_network(docker):
    wish = "name=bridge,driver-opt=sampan.rate-out=10mbit,driver-opt=sampan.rate-in=20mbit"
    docker("run", "-d", "--name", "slow", "--network", wish, "bb:1", "sleep", "1000")
    pid = docker("inspect", "slow", "--format", "{{.State.Pid}}")
    assert "rate 10Mbit" in run("nsenter", f"--net=/proc/{pid}/ns/net", "tc", "qdisc", "show")
    assert "rate 20Mbit" in run("tc", "qdisc", "show")
    said = docker("run", "--network", "name=bridge,driver-opt=sampan.rate=1", "bb:1", "true",
                  code=125)  # fmt: skip
    assert "unknown option sampan.rate" in said


def test_a_restricted_container_reaches_what_its_rules_allow(daemon, docker):
    """A name's address is reached when our name server has given it, and not before."""
    run("ip", "address", "add", "203.0.113.9/32", "dev", "lo")
    with name_server() as asked, web_server() as (listening, port):
        answering = threading.Thread(target=greet, args=[listening])
        answering.start()
        try:
            docker("network", "create", "shut")
            body = {
                "Image": "bb:1",
                "Cmd": ["sleep", "1000"],
                "HostConfig": {
                    "NetworkMode": "shut",
                    "Dns": ["192.0.2.1"],
                    "Egress": ["*.good.example"],
                },
            }
            made = daemon.ask("POST", "/containers/create?name=box", body)
            assert made[0] == 201, made
            docker("start", "box")

            def reaches(address):
                words = ["exec", "box", "busybox", "nc", "-w", "1", address, str(port)]
                return "hello" in daemon.docker(*words, stdin=b"x").out

            def restrict(*rules):
                allow = {"Allow": None if rules == ("all",) else list(rules)}
                assert daemon.ask("POST", "/containers/box/egress", allow)[0] == 200

            assert not reaches("203.0.113.9")
            assert resolve(docker, "box", "www.bad.example") == []
            assert resolve(docker, "box", "www.good.example") == ["203.0.113.9"]
            assert asked == ["www.good.example"]
            assert reaches("203.0.113.9")
            assert not reaches("192.0.2.1")
            run("nft", "flush", "ruleset")
            eventually(lambda: "sampan" in run("nft", "list", "tables"))
            assert not reaches("192.0.2.1")
            assert reaches("203.0.113.9")
            restrict("192.0.2.0/24")
            assert reaches("192.0.2.1")
            assert not reaches("203.0.113.9")
            daemon.stop(9)
            daemon.start()
            assert not reaches("203.0.113.9")
            restrict()
            assert not reaches("192.0.2.1")
            restrict("all")
            assert reaches("203.0.113.9")
            log = daemon.log
            assert f"denied: tcp to 203.0.113.9 port {port}" in log
            assert "denied: name www.bad.example" in log
            assert docker("inspect", "box", "--format", "{{.HostConfig.NetworkMode}}") == "shut"
            status, said = daemon.ask("POST", "/containers/box/egress", {"Allow": ["a b"]})
            assert status == 400
            assert "invalid egress rule 'a b'" in said["message"]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            answering.join()
            run("ip", "address", "del", "203.0.113.9/32", "dev", "lo")


def greet(listening):
    """Say hello to everybody, until the end."""
    while True:
        try:
            peer, _ = listening.accept()
        except OSError:
            return
        with peer:
            peer.sendall(b"hello")


def test_a_port_is_reached_by_the_hosts_own_ipv6_loopback(docker):
    docker(
        "network", "create", "--ipv6", "--subnet", "10.97.0.0/24", "--subnet", "fd97::/64", "six"
    )
    serve(docker, "web", "--hostname", "h7", "--network", "six", "-p", "18088:80")
    assert "[::]:18088->80/tcp" in docker("ps")
    for address in ("127.0.0.1", "::1", "localhost"):
        assert [fetch(address, 18088) for _ in range(3)] == ["h7"] * 3
    docker("stop", "-t", "0", "web")
    assert fetch("::1", 18088) == ""


def test_a_container_without_ipv6_is_reached_by_it(docker):
    """The engine carries it; internal networks, for which the port is closed, get nowhere."""
    docker("network", "create", "--internal", "--ipv6", "--subnet", "fd98::/64", "closed")
    docker("run", "-d", "--name", "inside", "--network", "closed", "bb:1", "sleep", "1000")
    serve(docker, "web", "--hostname", "h8", "-p", "18089:80", "-p", "[::1]:18090:80")
    run("ip", "address", "add", "2001:db8:9::1/64", "dev", "lo", "nodad")
    try:
        found = [fetch(host, 18089) for host in ("127.0.0.1", "::1", "2001:db8:9::1")]
        assert found == ["h8"] * 3
        assert (fetch("::1", 18090), fetch("2001:db8:9::1", 18090)) == ("h8", "")
    finally:
        run("ip", "address", "del", "2001:db8:9::1/64", "dev", "lo")
    gateway = json.loads(docker("network", "inspect", "closed"))[0]["IPAM"]["Config"][1]["Gateway"]
    get = ["busybox", "wget", "-q", "-T", "1", "-O-", f"http://[{gateway}]:18089/hostname"]
    assert docker("exec", "inside", "busybox", "ping", "-6", "-c", "1", gateway)
    assert docker.daemon.docker("exec", "inside", *get).out == ""
    docker("stop", "-t", "0", "web")
    assert fetch("::1", 18089) == ""
