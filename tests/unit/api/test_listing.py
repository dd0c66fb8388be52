"""The lines of `ps` are kept, and told anew when something has changed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from sampan.api.docker import listing
from sampan.engine import model
from sampan.network.model import Endpoint, EndpointRequest, Published
from sampan.spec.digest import Digest

NETS = {"bridge": EndpointRequest()}
ENDPOINT = Endpoint(
    id="e1",
    network="b1",
    network_name="bridge",
    owner="",
    interface="eth0",
    ipv4="172.30.0.2",
)
PORT = Published(port=80, protocol="tcp", host="0.0.0.0", host_port=8080)


class Networks:
    """What the engine knows of networks."""

    def __init__(self):
        self.known = {"bridge": "b1"}
        self.of = {}
        self.ports = {}

    def ids(self):
        return dict(self.known)

    def endpoints(self, owner):
        return self.of.get(owner, ())

    def published(self, owner):
        return self.ports.get(owner, ())


@pytest.fixture
def engine():
    linked = {}
    return SimpleNamespace(networks=Networks(), linked=linked, link_names=lambda: linked)


def asked(lines, engine, *found, minor=50, moved=()):
    return lines.told(engine, found, minor, moved)


def test_an_image_whose_name_moved_is_told_by_its_id(engine, make_container):
    lines, one = listing.Lines(), replace(make_container(), image_id=Digest.of(b"a"))
    [line] = asked(lines, engine, one)
    assert line.image == "alpine:3.10"
    [line] = asked(lines, engine, one, moved={one.id})
    assert type(line.image) is str
    assert line.image == str(Digest.of(b"a"))


def test_a_link_is_seen(engine, make_container):
    lines, one = listing.Lines(), make_container()
    assert asked(lines, engine, one)[0].names == [f"/{one.name}"]
    engine.linked[one.name] = ("app/store",)
    assert asked(lines, engine, one)[0].names == [f"/{one.name}", "/app/store"]


def test_what_has_not_changed_is_not_made_again(engine, make_container):
    lines, one = listing.Lines(), make_container()
    [first] = asked(lines, engine, one)
    assert asked(lines, engine, one) == [first]
    assert asked(lines, engine, one)[0] is first
    assert asked(lines, engine) == []
    assert asked(lines, engine, one)[0] is not first  # what is not listed is not kept


def test_a_change_of_the_container_is_seen(engine, make_container):
    lines, one = listing.Lines(), make_container()
    assert asked(lines, engine, one)[0].names == ["/c1"]
    ended = replace(one.state, status=model.Status.EXITED, exit_code=3, finished_at=1)
    [line] = asked(lines, engine, replace(one, name="other", state=ended))
    assert (line.names, line.state, line.status[:10]) == (["/other"], "exited", "Exited (3)")


def test_the_age_is_told_anew(engine, make_container, monkeypatch):
    lines, one = listing.Lines(), make_container()
    for seconds in (5, 7):
        now = one.state.started_at + seconds * 10**9
        monkeypatch.setattr(listing.time, "time_ns", lambda now=now: now)
        assert asked(lines, engine, one)[0].status == f"Up {seconds} seconds"


def test_networks_and_ports_are_seen(engine, make_container):
    lines = listing.Lines()
    one = make_container(host=model.HostConfig(network_mode="bridge"), networks=NETS)
    [line] = asked(lines, engine, one)
    assert line.network_settings.networks["bridge"].ip_address == ""
    engine.networks.of[one.id] = (ENDPOINT,)
    engine.networks.ports[one.id] = (PORT,)
    [line] = asked(lines, engine, one)
    assert line.network_settings.networks["bridge"].ip_address == "172.30.0.2"
    assert line.ports[0].public_port == 8080
    engine.networks.known = {"bridge": "b2"}
    [line] = asked(lines, engine, one)
    assert line.network_settings.networks["bridge"].network_id == "b2"


def test_each_version_has_its_shape(engine, make_container):
    lines, one = listing.Lines(), make_container()
    assert asked(lines, engine, one, minor=52)[0].health
    assert not asked(lines, engine, one, minor=50)[0].health
