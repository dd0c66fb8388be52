"""Bodies of the Docker Engine API: one line of GET /events.

See `docker.py` for how these structs are meant.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType, field

from sampan.wire.docker import Body


class Actor(Body, kw_only=True):
    """What an event is about."""

    id: str = field(name="ID")
    attributes: dict[str, str]


class Event(msgspec.Struct, kw_only=True):
    """One line of GET /events, with the older members beside the newer ones."""

    status: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    source: str | UnsetType = field(default=UNSET, name="from")
    type: str = field(name="Type")
    action: str = field(name="Action")
    actor: Actor = field(name="Actor")
    scope: str = "local"
    time: int
    time_nano: int = field(name="timeNano")
