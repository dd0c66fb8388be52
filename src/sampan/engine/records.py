"""Containers and events as the store keeps them: versioned JSON, encoded in C.

The row of a container is `{"v": 1, "container": {...}}`. A newer version is refused rather than
half understood; fields that a record lacks take the model's defaults, so that fields may be added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sampan.engine.model import Container, Event
from sampan.errors import DataLoss, FailedPrecondition

if TYPE_CHECKING:
    from sampan.store.containers import ContainerRow
    from sampan.store.events import EventRow

VERSION = 1


class _Record(msgspec.Struct):
    v: int
    container: Container


class _Body(msgspec.Struct, omit_defaults=True):
    type: str
    action: str
    id: str
    attributes: dict[str, str]
    owner: str = ""


def _plain(value: object) -> str:
    """A digest is a `str` of a class of its own, which the encoder does not take for one."""
    if isinstance(value, str):
        return str(value)
    raise NotImplementedError


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
_decode_record = msgspec.json.Decoder(_Record).decode
_decode_version = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_body = msgspec.json.Decoder(_Body).decode


def encode(container: Container) -> str:
    """The record of a container."""
    return _encode(_Record(VERSION, container)).decode()


def decode(row: ContainerRow) -> Container:
    """The container of a row.

    Raises:
        FailedPrecondition: a newer version of Sampan wrote it.
        DataLoss: it is no record of ours.
    """
    try:
        version = msgspec.json.decode(_decode_version(row.record)["v"], type=int)
        if version > VERSION:
            raise FailedPrecondition(f"read container {row.id}: its record has version {version}")
        return _decode_record(row.record).container
    except (KeyError, msgspec.MsgspecError) as error:
        raise DataLoss(f"read container {row.id}: {error}") from error


def encode_event(event: Event) -> str:
    """The body of an event; number and time have columns of their own."""
    body = _Body(event.type, event.action, event.actor_id, dict(event.attributes), event.owner)
    return _encode(body).decode()


def decode_event(row: EventRow) -> Event:
    """The event of a row."""
    body = _decode_body(row.body)
    return Event(
        id=row.id,
        time_ns=row.time_ns,
        type=body.type,
        action=body.action,
        actor_id=body.id,
        attributes=body.attributes,
        owner=body.owner,
    )
