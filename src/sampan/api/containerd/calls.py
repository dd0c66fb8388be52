"""The functions that answer containerd's interface: the request, and who asks.

That is the namespace and the lease which the client named in the metadata.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampan.api import rpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    import grpc
    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message

    Unary = Callable[["Caller", Any], Awaitable[Message]]
    Stream = Callable[["Caller", Any], AsyncIterator[Message]]

NAMESPACE = "containerd-namespace"
LEASE = "containerd-lease"
_log = logging.getLogger("sampan.containerd")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is. `lease` is "" where none was named."""

    namespace: str
    lease: str


def handler(
    service: ServiceDescriptor, table: Mapping[str, Unary], streams: Mapping[str, Stream]
) -> grpc.GenericRpcHandler[Any, Any]:
    """The handler of a service, as `rpc.handler`."""
    return rpc.handler(
        service,
        {name: _unary(answer) for name, answer in table.items()},
        {name: _stream(answer) for name, answer in streams.items()},
        _log,
    )


def _unary(answer: Unary) -> rpc.Unary:
    return lambda context, request: answer(_caller(context), request)


def _stream(answer: Stream) -> rpc.Stream:
    return lambda context, request: answer(_caller(context), request)


def _caller(context: rpc.Context) -> Caller:
    said = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
    return Caller(said.get(NAMESPACE, "default"), said.get(LEASE, ""))
