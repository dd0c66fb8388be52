"""Debian's CNI plugins, driven for real in network namespaces of our own."""

import asyncio
import json
import os

import pytest

from netlab import CNI_BIN, links, needs_cni, output, space
from sampan.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound
from sampan.network import cni

pytestmark = needs_cni


def chain(tmp_path, *plugins, version="1.0.0"):
    ipam = {
        "type": "host-local",
        "dataDir": str(tmp_path / "leases"),
        "ranges": [[{"subnet": "10.211.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cnitest0", "isGateway": True, "ipMasq": True}
    return cni.parse(
        json.dumps(
            {"cniVersion": version, "name": "lab", "plugins": [{**bridge, "ipam": ipam}, *plugins]}
        )
    )


def plugins_of(tmp_path, **more):
    return cni.Plugins([CNI_BIN], str(tmp_path / "cache"), **more)


def leases(tmp_path):
    return [name for name in os.listdir(tmp_path / "leases/lab") if name.startswith("10.")]


@pytest.fixture(autouse=True)
def _no_bridge_left():
    yield
    if "cnitest0" in links():
        output("ip", "link", "delete", "cnitest0")


def test_the_whole_chain(tmp_path):
    """bridge, host-local, portmap, firewall, tuning, bandwidth: ADD and DEL.

    Debian's portmap looks for a chain of IPv6 in its CHECK, also where no address is one.
    """
    conf = chain(
        tmp_path,
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall", "backend": "iptables"},
        {"type": "tuning", "mtu": 1400},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    )
    plugins = plugins_of(tmp_path)
    wishes = {
        "portMappings": [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000},
    }

    async def main(pod):
        result = await plugins.add(
            conf, pod.path, "pod1", "eth0", {"IgnoreUnknown": "1", "A": "b"}, wishes
        )
        assert result.ips == tuple(pod.addresses("eth0"))
        assert result.gateways == ("10.211.0.1",)
        assert "mtu 1400" in pod.run("ip", "link", "show", "eth0")
        pod.run("busybox", "ping", "-c1", "-W2", "10.211.0.1")
        assert "18080" in output("iptables-save", "-t", "nat")
        with pytest.raises(Conflict):
            await plugins.add(conf, pod.path, "pod1")
        assert leases(tmp_path) == ["10.211.0.2"]
        await plugins.delete(conf, pod.path, "pod1")
        await plugins.delete(conf, pod.path, "pod1")  # again, to no effect
        assert leases(tmp_path) == []
        assert plugins.attachments() == []
        assert "18080" not in output("iptables-save", "-t", "nat")
        assert "eth0" not in pod.run("ip", "link")

    with space() as pod:
        asyncio.run(main(pod))


def test_a_check_sees_what_is_broken(tmp_path):
    conf = chain(tmp_path, {"type": "firewall"}, {"type": "tuning", "mtu": 1400})
    plugins = plugins_of(tmp_path)

    async def main(pod):
        with pytest.raises(NotFound):
            await plugins.check(conf, pod.path, "pod1")
        await plugins.add(conf, pod.path, "pod1")
        await plugins.check(conf, pod.path, "pod1")
        pod.run("ip", "address", "flush", "dev", "eth0")
        with pytest.raises(cni.CniError, match="CHECK by CNI plugin bridge"):
            await plugins.check(conf, pod.path, "pod1")
        await plugins.delete(conf, pod.path, "pod1")
        with pytest.raises(FailedPrecondition):
            await plugins.check(chain(tmp_path, version="0.3.1"), pod.path, "pod1")

    with space() as pod:
        asyncio.run(main(pod))


def test_a_failing_plugin_undoes_the_ones_before_it(tmp_path):
    conf = chain(tmp_path, {"type": "tuning", "sysctl": {"no.such": "1"}})
    plugins = plugins_of(tmp_path)

    async def main(pod):
        with pytest.raises(cni.CniError, match="ADD by CNI plugin tuning"):
            await plugins.add(conf, pod.path, "pod1")
        assert leases(tmp_path) == []
        assert plugins.attachments() == []
        assert "eth0" not in pod.run("ip", "link")
        with pytest.raises(NotFound, match="not in"):
            await plugins.add(chain(tmp_path, {"type": "nothere"}), pod.path, "pod2")
        assert leases(tmp_path) == []

    with space() as pod:
        asyncio.run(main(pod))


def test_gc_releases_what_nobody_has(tmp_path):
    """As after a restart: the namespace is gone, the lease is there."""
    conf, plugins = chain(tmp_path), plugins_of(tmp_path)

    async def main():
        with space() as gone:
            await plugins.add(conf, gone.path, "gone")
        with space() as kept:
            await plugins.add(conf, kept.path, "kept")
            assert len(leases(tmp_path)) == 2
            await plugins.gc(conf, [("kept", "eth0")])
            assert leases(tmp_path) == ["10.211.0.3"]
            assert [one.id for one in plugins.attachments("lab")] == ["kept"]
            await plugins.delete(conf, kept.path, "kept")
        assert leases(tmp_path) == []

    asyncio.run(main())


def test_a_namespace_that_is_gone_can_be_deleted(tmp_path):
    conf, plugins = chain(tmp_path), plugins_of(tmp_path)

    async def main():
        with space() as pod:
            await plugins.add(conf, pod.path, "pod1")
            path = pod.path
        await plugins_of(tmp_path).delete(conf, path, "pod1")  # another engine
        assert leases(tmp_path) == []

    asyncio.run(main())


def test_loopback_and_bad_words(tmp_path):
    conf = cni.parse('{"cniVersion": "0.4.0", "name": "lo", "type": "loopback"}')
    plugins = plugins_of(tmp_path)

    async def main(pod):
        assert await plugins.add(conf, pod.path, "pod1", "lo")
        await plugins.delete(conf, pod.path, "pod1", "lo")
        for bad in ("../x", "a/b", ".x"):
            with pytest.raises(InvalidArgument):
                await plugins.add(conf, pod.path, bad, "lo")
        with pytest.raises(InvalidArgument):
            await plugins.add(conf, pod.path, "pod1", "../lo")
        with pytest.raises(InvalidArgument):
            await plugins.add(conf, pod.path, "pod1", "lo", {"A": "b;C=d"})
        await plugins.status(conf)

    with space() as pod:
        asyncio.run(main(pod))


def test_answers_of_a_bad_plugin(tmp_path):
    """No JSON, too slow, no word: each is said, and nothing is kept."""
    (tmp_path / "bin").mkdir()
    scripts = {
        "garbage": "echo hello",
        "silent": "exit 3",
        "slow": '[ "$CNI_COMMAND" = DEL ] || exec sleep 100',
    }
    for name, script in scripts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    plugins = cni.Plugins([str(tmp_path / "bin")], str(tmp_path / "cache"), patience=0.3)

    async def main():
        for name, part in (
            ("garbage", "no JSON"),
            ("silent", "ended with 3"),
            ("slow", "not done"),
        ):
            conf = cni.parse(json.dumps({"cniVersion": "1.0.0", "name": "x", "type": name}))
            with pytest.raises(Exception, match=part):
                await plugins.add(conf, "/proc/self/ns/net", "pod1")
        assert plugins.attachments() == []

    asyncio.run(main())
