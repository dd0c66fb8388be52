from __future__ import annotations

import pytest

from sampan.engine import filters
from sampan.engine.model import Container, ContainerConfig, Event, HostConfig, State, Status
from sampan.errors import InvalidArgument

ONE = Container(
    id="a1" * 32,
    name="web-1",
    created_at=100 * 10**9,
    config=ContainerConfig(image="busybox:latest", labels={"tier": "front"}),
    host=HostConfig(),
    path="sh",
    image_id="sha256:" + "c" * 64,
    image_name="busybox:latest",
    image_labels={"maker": "us"},
    state=State(status=Status.EXITED, exit_code=3),
)


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
    assert filters.container_filter(wanted, lambda _: ONE)(ONE) is fits


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
