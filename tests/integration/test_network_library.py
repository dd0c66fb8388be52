"""Networks by the library, blocking and awaited, against a real daemon."""

from __future__ import annotations

import asyncio

import pytest
from tests import netdocker
from tests.netdocker import run
from tests.netlab import needs_net

import dockerlab
import sampan
from sampan import errors

pytestmark = [
    needs_net,
    pytest.mark.skipif(not dockerlab.BUSYBOX, reason="needs a static busybox"),
    pytest.mark.skipif(not dockerlab.DOCKER, reason="needs the docker CLI"),
]
SLEEP = ["sleep", "1000"]


@pytest.fixture(scope="module")
def daemon():
    with netdocker.daemon() as made:
        yield made


def facts(container):
    return container.inspect().raw["NetworkSettings"]["Networks"]


def test_networks(daemon):
    with sampan.Engine.open(host=daemon.host) as engine:
        made = engine.networks.create(
            "lib",
            subnets=["10.87.0.0/24"],
            gateways=["10.87.0.9"],
            ip_ranges=["10.87.0.128/25"],
            reserved={"router": "10.87.0.128"},
            labels={"a": "b"},
            options={"com.docker.network.driver.mtu": "1400"},
        )
        assert (made.subnets, made.gateways) == (("10.87.0.0/24",), ("10.87.0.9",))
        assert made.raw["IPAM"]["Config"][0]["AuxiliaryAddresses"] == {"router": "10.87.0.128"}
        wish = {"aliases": ["db"], "options": {"sampan.rate-out": "5mbit"}}
        one = engine.create("bb:1", command=SLEEP, name="one", network={"lib": wish, "bridge": {}})
        one.start()
        assert facts(one)["lib"]["IPAddress"] == "10.87.0.129"
        pid = one.inspect().pid
        assert "rate 5Mbit" in run("nsenter", f"--net=/proc/{pid}/ns/net", "tc", "qdisc", "show")
        two = engine.create("bb:1", command=SLEEP, name="two")
        two.start()
        engine.networks.connect("lib", "two", ip="10.87.0.200", aliases=["x"], links=["one:w"],
                                gateway_priority=7)  # fmt: skip
        said = two.exec(["busybox", "nslookup", "-type=a", "w"])
        assert b"10.87.0.129" in said.stdout
        routes = two.exec(["cat", "/proc/net/route"]).stdout
        assert b"eth1\t00000000" in routes
        assert set(engine.networks.get("lib").containers) == {"one", "two"}
        two.publish("18110:80")
        assert "18110" in str(two.inspect().raw["NetworkSettings"]["Ports"])
        two.unpublish("18110:80")
        engine.networks.disconnect("lib", "two")
        assert list(facts(two)) == ["bridge"]
        for each in (one, two):
            each.remove(force=True)
        assert [one.name for one in engine.networks.list({"label": ["a=b"]})] == ["lib"]
        assert engine.networks.prune() == ("lib",)


def test_what_is_refused(daemon):
    with sampan.Engine.open(host=daemon.host) as engine:
        for words, sentence in (
            ({"gateways": ["10.1.1.1"]}, "create network: no matching subnet for gateway 10.1.1.1"),
            ({"nosuch": 1}, "create network: unknown option 'nosuch'"),
            ({"subnets": ["10.1.1.0/33"]}, "invalid subnet"),
            ({"driver": "overlay"}, "could not find driver 'overlay'"),
        ):
            with pytest.raises(errors.SampanError, match=sentence):
                engine.networks.create("x", **words)
        with pytest.raises(errors.SampanError, match="join network: unknown option 'nosuch'"):
            engine.networks.connect("bridge", "x", nosuch=1)
        with pytest.raises(errors.SampanError, match="check network bridge"):
            engine.networks.check("bridge")


def test_awaited(daemon):
    async def main():
        async with await sampan.AsyncEngine.open(host=daemon.host) as engine:
            made = await engine.networks.create("later", internal=True, ipv6=True)
            assert made.internal
            assert len(made.subnets) == 2
            box = await engine.create("bb:1", command=SLEEP, name="box")
            await box.start()
            await engine.networks.connect(
                "later", "box", aliases=["b"], mac_address="02:42:0a:00:00:77"
            )
            found = (await box.inspect()).raw["NetworkSettings"]["Networks"]
            assert found["later"]["MacAddress"] == "02:42:0a:00:00:77"
            assert (await engine.networks.get("later")).containers == ("box",)
            await engine.networks.disconnect("later", "box")
            with pytest.raises(errors.SampanError, match="check network later"):
                await engine.networks.check("later")
            await box.remove(force=True)
            assert await engine.networks.prune() == ("later",)
            assert "later" not in [one.name for one in await engine.networks.list()]

    asyncio.run(main())
