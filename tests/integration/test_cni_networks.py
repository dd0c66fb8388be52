"""Networks of CNI plugins from outside: Debian's own plugins, docker's CLI, a real daemon."""

from __future__ import annotations

import json
import os
import stat

import pytest
from tests import netdocker
from tests.netdocker import eventually, fetch, inspect, run, sampan, serve
from tests.netlab import needs_cni, needs_net

import dockerlab

pytestmark = [
    needs_net,
    needs_cni,
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI"),
]
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


@pytest.fixture(scope="module")
def daemon():
    with netdocker.daemon() as made:
        yield made


@pytest.fixture
def docker(daemon):
    with netdocker.docker(daemon) as call:
        yield call


class Wire:
    """A configuration list of the host: a bridge of the plugins, and what comes behind it."""

    def __init__(self, directory, name, number):
        self.name, self.bridge = name, f"cni-{name}"
        self.path = directory / f"10-{name}.conflist"
        self.leases = directory / "leases" / name
        self.option = f"conflist={self.path}"
        ranges = [[{"subnet": f"10.{number}.0.0/24"}]]
        routes = [{"dst": "0.0.0.0/0"}]
        self.ipam = {
            "type": "host-local", "dataDir": str(directory / "leases"), "ranges": ranges,
            "routes": routes,
        }  # fmt: skip

    def write(self, *plugins, **more):
        """The list with these plugins behind the bridge; `more` are members of the bridge's."""
        first = {"type": "bridge", "bridge": self.bridge, "isGateway": True, "ipam": self.ipam}
        document = {"cniVersion": "1.0.0", "name": self.name, "plugins": [{**first, **more}]}
        document["plugins"] += plugins
        self.path.write_text(json.dumps(document))

    def leased(self):
        """The addresses that somebody has."""
        found = os.listdir(self.leases) if self.leases.exists() else []
        return sorted(name for name in found if name.startswith("10."))


@pytest.fixture
def wire(tmp_path):
    made = Wire(tmp_path, "wire", 98)
    yield made
    remove_link(made.bridge)


@pytest.fixture
def other(tmp_path):
    made = Wire(tmp_path, "other", 99)
    yield made
    remove_link(made.bridge)


def remove_link(name):
    if f" {name}:" in run("ip", "link"):
        run("ip", "link", "del", name)


def address(docker, container, network):
    return inspect(docker, container)["Networks"][network]["IPAddress"]


def test_the_whole_chain_as_a_network(daemon, docker, wire):
    """bridge, host-local, portmap, firewall, tuning, bandwidth; a start, a restart, an end."""
    bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    tuning = {"type": "tuning", "mtu": 1400, "capabilities": {"mac": True}}
    firewall = {"type": "firewall", "backend": "iptables"}
    wire.write(PORTMAP, firewall, tuning, bandwidth)
    docker("network", "create", "-d", "cni", "-o", wire.option, "wire")
    wish = (
        "name=wire,mac-address=02:42:0a:62:00:99,driver-opt=sampan.rate-in=20mbit,"
        "driver-opt=sampan.rate-out=10mbit"
    )
    serve(docker, "web", "--hostname", "h8", "--network", wish, "-p", "18090:80")
    found = inspect(docker, "web")["Networks"]["wire"]
    assert (found["IPAddress"], found["Gateway"]) == ("10.98.0.2", "10.98.0.1")
    assert found["MacAddress"] == "02:42:0a:62:00:99"
    assert "10.98.0.2" in docker("exec", "web", "cat", "/etc/hosts")
    assert docker("exec", "web", "cat", "/sys/class/net/eth0/mtu") == "1400"
    assert fetch("192.0.2.1", 18090) == "h8"
    rules = run("tc", "qdisc", "show")
    assert "rate 20Mbit" in rules
    assert "rate 10Mbit" in rules
    daemon.stop(9)
    daemon.start()
    assert "10.98.0.2" in docker("inspect", "web")
    docker("restart", "-t", "0", "web")
    eventually(lambda: fetch("192.0.2.1", 18090) == "h8")
    docker("rm", "-f", "web")
    eventually(lambda: wire.leased() == [])
    eventually(lambda: "18090" not in run("iptables-save", "-t", "nat"))


def test_it_is_joined_and_left_while_a_container_runs(daemon, docker, wire, other):
    wire.write(PORTMAP)
    other.write(isDefaultGateway=False)
    for one in (wire, other):
        docker("network", "create", "-d", "cni", "-o", one.option, one.name)
    serve(docker, "web", "--hostname", "h9", "-p", "18091:80")
    docker("network", "connect", "wire", "web")
    docker("network", "connect", "other", "web")
    assert address(docker, "web", "wire") == "10.98.0.2"
    assert address(docker, "web", "other") == "10.99.0.2"
    assert fetch("10.98.0.2", 80) == fetch("10.99.0.2", 80) == "h9"
    assert fetch("192.0.2.1", 18091) == "h9"  # still by the bridge
    for each in ("10.98.0.2", "10.99.0.2"):
        assert each in docker("exec", "web", "cat", "/etc/hosts")
    docker("network", "disconnect", "wire", "web")
    assert wire.leased() == []
    names = docker("exec", "web", "cat", "/proc/net/dev")
    assert "eth0" in names
    assert "eth1" not in names
    assert "eth2" in names
    docker("network", "connect", "wire", "web")
    assert fetch("10.98.0.3", 80) == "h9"  # host-local goes round
    docker("restart", "-t", "0", "web")
    eventually(lambda: len(wire.leased()) == len(other.leased()) == 1)
    eventually(lambda: fetch(address(docker, "web", "other"), 80) == "h9")
    docker("rm", "-f", "web")
    eventually(lambda: wire.leased() == other.leased() == [])


def test_the_plugins_see_what_is_broken(daemon, docker, wire):
    wire.write({"type": "tuning", "mtu": 1400})
    docker("network", "create", "-d", "cni", "-o", wire.option, "wire")
    docker("run", "-d", "--name", "one", "--network", "wire", "bb:1", "sleep", "1000")
    code, said = sampan(daemon, "network", "check", "wire")
    assert (code, said.split()) == (0, ["NETWORK", "CONTAINER", "PROBLEM", "wire", "one"])
    pid = docker("inspect", "one", "--format", "{{.State.Pid}}")
    run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "address", "flush", "dev", "eth0")
    code, said = sampan(daemon, "network", "check", "wire")
    assert code == 1
    assert "CHECK by CNI plugin bridge: " in said
    code, said = sampan(daemon, "network", "check", "bridge")
    assert code == 1
    assert "check network bridge: it has no CNI plugins to be asked" in said


def test_what_was_added_is_undone_whatever_becomes_of_the_list(docker, wire):
    wire.write(PORTMAP)
    docker("network", "create", "-d", "cni", "-o", wire.option, "wire")
    run_one = ["run", "-d", "--network", "wire", "-p", "18092:80", "--name"]
    docker(*run_one, "one", "bb:1", "sleep", "1000")
    wire.path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "else", "type": "nosuch"}))
    docker("rm", "-f", "one")
    eventually(lambda: wire.leased() == [])
    wire.write(PORTMAP)
    docker(*run_one, "two", "bb:1", "sleep", "1000")
    wire.path.unlink()
    docker("network", "disconnect", "wire", "two")
    assert wire.leased() == []
    assert "18092" not in run("iptables-save", "-t", "nat")
    said = docker("network", "connect", "wire", "two", code=1)
    assert f"read CNI configuration {wire.path}: No such file" in said


def test_what_nobody_has_any_more_is_released_by_the_next_engine(daemon, docker, wire, other):
    """A container that ended while no engine ran, and a network of which the list is gone."""
    for one in (wire, other):
        one.write()
        docker("network", "create", "-d", "cni", "-o", one.option, one.name)
        docker("run", "-d", "--name", one.name, "--network", one.name, "bb:1", "sleep", "1000")
    docker("run", "-d", "--name", "kept", "--network", "wire", "bb:1", "sleep", "1000")
    pids = [int(docker("inspect", one, "--format", "{{.State.Pid}}")) for one in ("wire", "other")]
    daemon.stop(9)
    for pid in pids:
        os.kill(pid, 9)
    other.path.unlink()
    daemon.start()
    eventually(lambda: wire.leased() == ["10.98.0.3"] and other.leased() == [])
    assert fetch_dead(docker, "kept") == "10.98.0.3"


def fetch_dead(docker, name):
    """The address that a container has in itself."""
    words = docker("exec", name, "busybox", "ip", "-4", "address", "show", "eth0").split()
    return words[words.index("inet") + 1].partition("/")[0]


def test_errors(daemon, docker, wire, tmp_path):
    wire.write()
    docker("network", "create", "-d", "cni", "-o", wire.option, "wire")
    before = docker("network", "ls", "-q")
    for words, sentence in (
        (["network", "create", "-d", "cni", "x"], "needs the path of its configuration"),
        (["network", "create", "-d", "cni", "-o", "conflist=/nosuch", "x"],
         "read CNI configuration /nosuch: No such file"),
        (["network", "create", "-d", "cni", "-o", wire.option, "--subnet", "10.9.0.0/24", "x"],
         "has the subnets of its configuration"),
    ):  # fmt: skip
        assert sentence in docker(*words, code=1)
    run_it = ["run", "--rm", "--network"]
    for word, sentence in (
        ("name=wire,ip=10.98.0.9", "no configured subnet contains IP address 10.98.0.9"),
        (
            "name=wire,mac-address=02:42:0a:62:00:99",
            "set a MAC address: network wire has no",
        ),
        ("name=wire,driver-opt=sampan.rate-out=1mbit", "limit bandwidth: network wire has no"),
    ):
        assert sentence in docker(*run_it, word, "bb:1", "true", code=125)
    said = docker(*run_it, "wire", "-p", "80", "bb:1", "true", code=125)
    assert "publish ports: network wire has no plugin that does it" in said
    wire.write({"type": "nosuch"})
    assert "find CNI plugin nosuch" in docker(*run_it, "wire", "bb:1", "true", code=125)
    wire.write({"type": "tuning", "sysctl": {"no.such": "1"}})
    said = docker(*run_it, "wire", "bb:1", "true", code=125)
    assert "ADD by CNI plugin tuning: " in said
    docker("run", "-d", "--name", "one", "bb:1", "sleep", "1000")
    assert "ADD by CNI plugin tuning: " in docker("network", "connect", "wire", "one", code=1)
    assert "eth1" not in docker("exec", "one", "cat", "/proc/net/dev")
    assert list(inspect(docker, "one")["Networks"]) == ["bridge"]
    assert wire.leased() == []
    assert docker("network", "ls", "-q") == before


def test_a_plugin_that_could_not_disconnect_is_asked_again(daemon, docker, tmp_path):
    """Its failure is told in the log, and a new start is not refused because of it."""
    bad = tmp_path / "10-bad.conflist"
    mark = tmp_path / "fails"
    script = dockerlab.Path("/opt/cni/bin/sampan-test-stubborn")
    made = [one for one in (script.parent.parent, script.parent) if not one.exists()]
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(
        f'#!/bin/sh\ncat >/dev/null\n[ "$CNI_COMMAND" = DEL ] && [ -e {mark} ] && '
        """{ echo '{"code": 11, "msg": "not now"}'; exit 1; }\n"""
        """[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion": "1.0.0"}'\nexit 0\n"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    try:
        bad.write_text(json.dumps({"cniVersion": "1.0.0", "name": "bad", "type": script.name}))
        docker("network", "create", "-d", "cni", "-o", f"conflist={bad}", "bad")
        docker("run", "-d", "--name", "one", "--network", "bad", "bb:1", "sleep", "1000")
        mark.touch()
        assert "not now" in docker("network", "disconnect", "bad", "one", code=1)
        docker("stop", "-t", "0", "one")
        eventually(lambda: "leave network bad: DEL by CNI plugin" in daemon.log)
        assert "not now" in docker("start", "one", code=1)
        mark.unlink()
        docker("start", "one")
        docker("network", "disconnect", "bad", "one")
    finally:
        script.unlink()
        for one in reversed(made):
            one.rmdir()
