from __future__ import annotations

import json

import pytest

from sampan.engine import records
from sampan.engine.model import (
    Container,
    ContainerConfig,
    Device,
    Event,
    HostConfig,
    LogConfig,
    RestartName,
    RestartPolicy,
    State,
    Status,
)
from sampan.errors import DataLoss, FailedPrecondition
from sampan.store.containers import ContainerRow
from sampan.store.events import EventRow

CONTAINER = Container(
    id="a" * 64,
    name="one",
    created_at=5,
    config=ContainerConfig(image="x", env=("A=é",), labels={"k": "v"}, entrypoint=None),
    host=HostConfig(
        restart=RestartPolicy(name=RestartName.ON_FAILURE, max_retries=3),
        devices=(Device(host_path="/dev/null", container_path="/dev/x"),),
        log=LogConfig(max_size=5),
        masked_paths=(),
    ),
    path="/bin/sh",
    args=("-c",),
    state=State(status=Status.PAUSED, pid=7),
)


def row(record: str) -> ContainerRow:
    return ContainerRow(CONTAINER.id, CONTAINER.name, record, None, None, 5)


def test_a_record_comes_back_whole():
    assert records.decode(row(records.encode(CONTAINER))) == CONTAINER


def test_fields_that_are_missing_take_their_defaults_and_others_are_passed_over():
    content = json.loads(records.encode(CONTAINER))
    assert content["v"] == 1
    del content["container"]["host"]
    content["container"]["host"] = {"memory": 5, "field_of_tomorrow": 1}
    assert records.decode(row(json.dumps(content))).host == HostConfig(memory=5)


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"v":1}', '{"v":1,"container":{"id":5}}'])
def test_what_is_no_record(record):
    with pytest.raises(DataLoss):
        records.decode(row(record))


def test_a_newer_record_is_refused():
    with pytest.raises(FailedPrecondition, match="version 2"):
        records.decode(row('{"v":2,"container":{}}'))


def test_events():
    event = Event(
        id=3, time_ns=4, type="container", action="die", actor_id="x", attributes={"a": "b"}
    )
    assert records.decode_event(EventRow(3, 4, records.encode_event(event))) == event
