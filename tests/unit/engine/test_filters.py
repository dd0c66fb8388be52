from __future__ import annotations

import pytest

from sampan.engine import ancestry, filters
from sampan.engine.model import (
    Container,
    ContainerConfig,
    Event,
    HostConfig,
    Mount,
    MountType,
    State,
    Status,
)
from sampan.errors import InvalidArgument
from sampan.network.model import Binding, Published
from sampan.spec.digest import Digest
from sampan.spec.image import History, ImageConfig

ONE = Container(
    id="a1" * 32,
    name="web-1",
    created_at=100 * 10**9,
    config=ContainerConfig(
        image="busybox:latest", labels={"tier": "front"}, exposed_ports=("53/udp",)
    ),
    host=HostConfig(ports=(Binding(port=80, protocol="tcp"),)),
    mounts=(Mount(type=MountType.VOLUME, target="/data", source="files"),),
    path="sh",
    image_id="sha256:" + "c" * 64,
    image_name="busybox:latest",
    image_labels={"maker": "us"},
    state=State(status=Status.EXITED, exit_code=3),
)
PORTS = (Published(port=80, protocol="tcp", host="0.0.0.0", host_port=8080),)


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({}, True),
        ({"name": ["web"]}, True),
        ({"name": ["^/web-1$"]}, True),
        ({"name": ["^eb"]}, False),
        ({"id": ["a1a1"]}, True),
        ({"id": ["b"]}, False),
        ({"label": ["tier"]}, True),
        ({"label": ["tier=front", "maker=us"]}, True),
        ({"label": ["tier=front", "maker=them"]}, False),
        ({"status": ["running", "exited"]}, True),
        ({"status": ["running"]}, False),
        ({"exited": ["3"]}, True),
        ({"exited": ["0"]}, False),
        ({"ancestor": ["busybox"]}, True),
        ({"ancestor": ["cccccccccccc"]}, True),
        ({"ancestor": ["alpine"]}, False),
        ({"network": ["none"]}, True),
        ({"volume": ["files"]}, True),
        ({"volume": ["/data"]}, True),
        ({"volume": ["data"]}, False),
        ({"expose": ["53/udp"]}, True),
        ({"expose": ["53"]}, False),
        ({"expose": ["70-90"]}, True),
        ({"publish": ["8080"]}, True),
        ({"publish": ["8000-8100/tcp"]}, True),
        ({"publish": ["8080/udp", "80"]}, False),
        ({"until": ["100"]}, True),
        ({"until": ["99"]}, False),
        ({"until": ["1h30m"]}, True),
        ({"until": ["99999d"]}, False),
        ({"until": ["1970-01-01T00:01:40Z"]}, True),
        ({"until": ["1970-01-01T02:01:39+02:00"]}, False),
        ({"health": ["none"]}, True),
        ({"health": ["healthy", "starting"]}, False),
        ({"name": ["web"], "status": ["created"]}, False),
    ],
)
def test_containers(wanted, fits):
    assert filters.container_filter(wanted, lambda _: ONE, lambda _: PORTS)(ONE) is fits


def test_an_image_descends_from_what_it_was_made_of():
    base = _image(["a"], "ADD")
    labelled, other = _image(["a"], "ADD", "LABEL 1"), _image(["a"], "ADD", "LABEL 2")
    grown = _image(["a", "b"], "ADD", "LABEL 1", "COPY")
    assert [ancestry.descends(one, base) for one in (base, labelled, grown)] == [True] * 3
    assert ancestry.descends(grown, labelled)
    assert not ancestry.descends(other, labelled)
    assert not ancestry.descends(base, labelled)
    assert not ancestry.descends(_image(["b"], "ADD"), base)


def _image(layers, *steps):
    return ImageConfig(
        architecture="amd64",
        os="linux",
        rootfs_diff_ids=tuple(Digest.of(layer.encode()) for layer in layers),
        history=tuple(History(created_by=step) for step in steps),
    )


@pytest.mark.parametrize(
    "wanted",
    [
        {"nonsense": ["x"]},
        {"status": ["x"]},
        {"exited": ["x"]},
        {"until": ["x"]},
        {"until": ["1h x"]},
        {"health": ["x"]},
        {"name": ["("]},
        {"publish": ["x"]},
        {"expose": ["9-8"]},
    ],
)
def test_what_is_refused(wanted):
    with pytest.raises(InvalidArgument):
        filters.container_filter(wanted, lambda _: ONE)


def test_events():
    event = Event(
        id=1,
        time_ns=1,
        type="container",
        action="exec_create: sh",
        actor_id="abc",
        attributes={"image": "busybox:1", "name": "one", "k": "v"},
    )
    for wanted, fits in (
        ({"type": ["container"]}, True),
        ({"type": ["image"]}, False),
        ({"event": ["exec_create"]}, True),
        ({"event": ["exec"]}, False),
        ({"container": ["one"]}, True),
        ({"container": ["ab"]}, True),
        ({"container": ["two"]}, False),
        ({"image": ["busybox"]}, True),
        ({"label": ["k=v"]}, True),
        ({"label": ["k=w"]}, False),
    ):
        assert filters.event_filter(wanted)(event) is fits
    with pytest.raises(InvalidArgument):
        filters.event_filter({"nonsense": ["x"]})
