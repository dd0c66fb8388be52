"""Events: what happens to images, containers and tasks, to whoever listens now."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from google.protobuf.any_pb2 import Any as WireAny
from google.protobuf.empty_pb2 import Empty

from sampan.api.containerd.filters import matcher
from sampan.api.containerd.moments import moment
from sampan.errors import ResourceExhausted
from sampan.wire.containerd.types_pb2 import Envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from sampan.api.containerd.calls import Caller, Stream, Unary
    from sampan.wire.containerd import events_pb2 as pb

MAX_WAITING: Final = 1000
"""Events that a listener may leave unread before it is sent away."""


class Bus:
    """The events service. Nothing is kept for those who come later."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Envelope | None]] = set()

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {"Publish": self._publish}

    def streams(self) -> dict[str, Stream]:
        """Method -> answers."""
        return {"Subscribe": self._subscribe}

    def tell(self, namespace: str, topic: str, event: Message) -> None:
        """Tell everybody."""
        packed = WireAny(type_url=event.DESCRIPTOR.full_name, value=event.SerializeToString())
        self._send(namespace, topic, packed)

    def _send(self, namespace: str, topic: str, event: WireAny) -> None:
        envelope = Envelope(
            timestamp=moment(time.time_ns()), namespace=namespace, topic=topic, event=event
        )
        for queue in self._queues:
            try:
                queue.put_nowait(envelope)
            except asyncio.QueueFull:
                queue.get_nowait()
                queue.put_nowait(None)  # it is told that it lost some

    async def _publish(self, caller: Caller, request: pb.PublishRequest) -> Empty:
        self._send(caller.namespace, request.topic, request.event)
        return Empty()

    async def _subscribe(
        self, _caller: Caller, request: pb.SubscribeRequest
    ) -> AsyncIterator[Envelope]:
        passes = matcher(request.filters)
        queue: asyncio.Queue[Envelope | None] = asyncio.Queue(MAX_WAITING)
        self._queues.add(queue)
        try:
            while True:
                envelope = await queue.get()
                if envelope is None:
                    raise ResourceExhausted(f"more than {MAX_WAITING} events were not read")
                if passes({"topic": envelope.topic, "namespace": envelope.namespace}):
                    yield envelope
        finally:
            self._queues.discard(queue)
