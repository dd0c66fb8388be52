"""Networks that change while a container runs and is used: nothing that goes on is disturbed."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

import pytest
from tests import netdocker
from tests.netdocker import eventually, fetch, inspect, run, serve
from tests.netlab import links, needs_net

import dockerlab
from enginelab import Lab
from sampan.network import spaces
from sampan.network.model import NetworkConfig

pytestmark = [
    needs_net,
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI"),
]
BLOCK = 64 << 10
PATIENCE = 30


@pytest.fixture(scope="module")
def daemon():
    with netdocker.daemon() as made:
        yield made


@pytest.fixture
def docker(daemon):
    with netdocker.docker(daemon) as call:
        yield call


class Flow:
    """A stream that is echoed without a pause, each byte compared."""

    def __init__(self, sock):
        self._sock = sock
        self._sock.settimeout(PATIENCE)
        self._passed = 0
        self._moved = threading.Condition()
        self._error = None
        self._ending = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            while not self._ending:
                block = os.urandom(BLOCK)
                self._sock.sendall(block)
                left = memoryview(bytearray(BLOCK))
                whole = left
                while left:
                    count = self._sock.recv_into(left)
                    assert count, "the stream has ended"
                    left = left[count:]
                assert whole == block, "other bytes came back"
                with self._moved:
                    self._passed += 1
                    self._moved.notify_all()
        except (OSError, AssertionError) as error:
            with self._moved:
                self._error = error
                self._moved.notify_all()

    def goes_on(self, blocks=3):
        """Wait until some more has passed."""
        with self._moved:
            wanted = self._passed + blocks
            assert self._moved.wait_for(lambda: self._error or self._passed >= wanted, PATIENCE)
            assert self._error is None, self._error

    def close(self):
        self._ending = True
        self._thread.join()
        self._sock.close()


@contextmanager
def flows(*socks):
    made = [Flow(sock) for sock in socks]
    try:
        yield made
    finally:
        for one in made:
            one.close()


def echo(docker, name, port, *words):
    """A container that gives back what it gets."""
    command = ["busybox", "nc", "-ll", "-p", str(port), "-e", "cat"]
    docker("run", "-d", "--name", name, *words, "bb:1", *command)


@contextmanager
def inside(docker, name):
    """This thread in a container's network namespace."""
    pid = docker("inspect", name, "--format", "{{.State.Pid}}")
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        with spaces.entered(fd):
            yield
    finally:
        os.close(fd)


@contextmanager
def datagram_server(docker, name, port):
    """Somebody in a container who answers datagrams with its name and what they say."""
    with inside(docker, name):
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))

    def serve():
        while True:
            data, peer = sock.recvfrom(1000)
            if not data:
                return
            sock.sendto(name.encode() + b" " + data, peer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        with inside(docker, name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", port))
        thread.join()
        sock.close()


@contextmanager
def greeter():
    """Somebody outside who says hello to everybody; the port."""

    def greet():
        with listening:
            while True:
                peer, _ = listening.accept()
                with peer:
                    if peer.recv(3) == b"end":
                        return
                    peer.sendall(b"hello")

    with socket.create_server(("192.0.2.1", 0)) as listening:
        address = listening.getsockname()
        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield address[1]
        finally:
            with socket.create_connection(address, PATIENCE) as last:
                last.sendall(b"end")
            thread.join()


def dial(address, port):
    """A connection, as soon as somebody answers with what was said."""
    found = []

    def tried():
        sock = socket.create_connection((address, port), PATIENCE)
        sock.settimeout(PATIENCE)
        try:
            sock.sendall(b"x")
            if sock.recv(1) == b"x":
                found.append(sock)
                return True
        except OSError:
            pass
        sock.close()
        return False

    eventually(tried)
    return found[0]


def test_traffic_goes_on_while_networks_are_joined_and_left(docker):
    """Through a published port, and from a fellow of a network that stays."""
    docker("network", "create", "--subnet", "10.93.0.0/24", "stays")
    docker("network", "create", "--subnet", "10.94.0.0/24", "comes")
    echo(docker, "one", 7, "--network", "stays", "--ip", "10.93.0.9", "-p", "18100:7")
    docker("run", "-d", "--name", "fellow", "--network", "stays", "bb:1", "sleep", "1000")
    with inside(docker, "fellow"):
        inner = dial("10.93.0.9", 7)
    with flows(dial("127.0.0.1", 18100), inner) as going:
        for turn in range(6):
            # In every second turn the new network takes the default route.
            priority = ["--gw-priority", "5"] if turn % 2 else []
            docker("network", "connect", "--ip", "10.94.0.7", *priority, "comes", "one")
            assert "10.94.0.7" in docker("exec", "one", "cat", "/etc/hosts")
            for flow in going:
                flow.goes_on()
            docker("network", "disconnect", "comes", "one")
            assert "10.94.0.7" not in docker("exec", "one", "cat", "/etc/hosts")
            for flow in going:
                flow.goes_on()


def test_published_ports_go_to_a_network_that_is_left(docker):
    """Whoever comes behind the end of the network that they led to is answered by the next one."""
    docker("network", "create", "first")
    docker("network", "create", "second")
    serve(docker, "web", "--hostname", "h10", "--network", "first", "-p", "18101:80")
    docker("network", "connect", "second", "web")
    for network in ("first", "second") * 3:
        docker("network", "disconnect", network, "web")
        assert [fetch(host, 18101) for host in ("127.0.0.1", "192.0.2.1")] == ["h10"] * 2
        docker("network", "connect", network, "web")
        assert fetch("127.0.0.1", 18101) == "h10"


def test_ports_of_a_container_without_a_network_are_closed_and_not_silent(docker):
    serve(docker, "web", "--hostname", "h11", "-p", "18102:80", "-p", "18102:53/udp")
    docker("network", "disconnect", "bridge", "web")
    with socket.create_connection(("127.0.0.1", 18102), PATIENCE) as sock:
        sock.settimeout(PATIENCE)
        assert sock.recv(1) == b""
    assert "port is already allocated" in docker("run", "-p", "18102:80", "bb:1", "true", code=125)
    docker("network", "connect", "bridge", "web")
    assert fetch("127.0.0.1", 18102) == "h11"
    docker("network", "create", "--internal", "inner")
    docker("network", "disconnect", "bridge", "web")
    docker("network", "connect", "inner", "web")
    assert list(inspect(docker, "web")["Networks"]) == ["inner"]
    with socket.create_connection(("127.0.0.1", 18102), PATIENCE) as sock:
        sock.settimeout(PATIENCE)
        assert sock.recv(1) == b""  # an internal network publishes nothing


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_reach_a_published_port_by_the_hosts_own_ipv6_loopback(docker, version):
    """Also a container that has no IPv6 itself."""
    options = ["--ipv6", "--subnet", "fd96::/64"] if version == 6 else []
    docker("network", "create", *options, "six")
    sleep = ["bb:1", "sleep", "1000"]
    docker("run", "-d", "--name", "echo", "--network", "six", "-p", "18103:9/udp", *sleep)
    client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with datagram_server(docker, "echo", 9), client as sock:
        sock.settimeout(PATIENCE)
        sock.connect(("::1", 18103))
        for word in (b"one", b"two"):
            sock.send(word)
            assert sock.recv(100) == b"echo " + word


def test_a_client_that_never_pauses_is_heard_by_the_next_container(docker):
    """Its flow was decided when another address was behind the port, or none at all."""
    words = ["-p", "18104:9/udp", "bb:1", "sleep", "1000"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("192.0.2.1", 18104))

        def is_answered_by(name):
            try:
                sock.send(b"hello")
                return sock.recv(100) == f"{name} hello".encode()
            except OSError:
                return False

        assert not is_answered_by("nobody")
        docker("run", "-d", "--name", "one", *words)
        with datagram_server(docker, "one", 9):
            eventually(lambda: is_answered_by("one"))
        docker("rm", "-f", "one")
        docker("run", "-d", "--name", "takes-its-address", "bb:1", "sleep", "1000")
        docker("run", "-d", "--name", "two", *words)
        with datagram_server(docker, "two", 9):
            eventually(lambda: is_answered_by("two"))


def test_a_restricted_container_that_leaves_a_network_stays_restricted(daemon, docker):
    """Its rules name its interfaces; one that is gone must not keep the others from holding."""
    docker("network", "create", "first")
    docker("network", "create", "second")
    docker("run", "-d", "--name", "box", "--network", "first", "bb:1", "sleep", "1000")
    docker("network", "connect", "second", "box")
    status, _ = daemon.ask("POST", "/containers/box/egress", {"Allow": []})
    assert status == 200
    docker("network", "disconnect", "second", "box")
    run("nft", "flush", "ruleset")
    eventually(lambda: "netdev" in run("nft", "list", "tables"))
    with greeter() as port:
        words = ["exec", "box", "busybox", "nc", "-w", "1", "192.0.2.1", str(port)]
        assert "hello" not in daemon.docker(*words).out
        assert daemon.ask("POST", "/containers/box/egress", {"Allow": None})[0] == 200
        assert "hello" in daemon.docker(*words).out


def test_a_subnet_that_somebody_else_has_taken_meanwhile(tmp_path):
    """Another engine on this host, started later, while ours had no bridge to be seen."""
    lab = Lab(tmp_path)

    async def subnet():
        async with lab.engine() as engine:
            return engine.networks.find("bridge").pools[0]

    first = asyncio.run(subnet())
    assert asyncio.run(subnet()) == first
    run("ip", "link", "add", "theirs0", "type", "bridge")
    try:
        run("ip", "address", "add", first.subnet.replace(".0.0/", ".0.1/"), "dev", "theirs0")
        second = asyncio.run(subnet())
        assert not ip_network(second.subnet).overlaps(ip_network(first.subnet))
        assert ip_address(second.gateway) in ip_network(second.subnet)
        assert asyncio.run(subnet()) == second
    finally:
        run("ip", "link", "del", "theirs0")
    lab.close()


def bridges():
    return {name for name in links() if name.startswith("sb-")}


def test_a_create_that_is_cancelled_leaves_no_bridge(tmp_path):
    """Wherever it is at that moment: each turn of the loop is tried."""
    lab = Lab(tmp_path)
    before = bridges()

    async def main():
        async with lab.engine() as engine:
            await engine.networks.create(NetworkConfig(name="first"))
            for turns in range(40):
                task = asyncio.ensure_future(engine.networks.create(NetworkConfig(name="x")))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                done = await asyncio.gather(task, return_exceptions=True)
                if isinstance(done[0], asyncio.CancelledError):
                    assert [one.name for one in engine.networks.list() if one.name == "x"] == []
                else:
                    await engine.networks.remove("x")

    asyncio.run(main())
    lab.check_clean()
    lab.close()
    assert bridges() == before
