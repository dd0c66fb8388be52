"""The functions that answer the Kubernetes runtime interface: the request, and nothing of gRPC."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sampan.api import rpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    import grpc
    from google.protobuf.descriptor import ServiceDescriptor

    Unary = Callable[[Any], Awaitable[rpc.Answer]]
    Stream = Callable[[Any], AsyncIterator[rpc.Answer]]

_log = logging.getLogger("sampan.cri")


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
    return lambda _context, request: answer(request)


def _stream(answer: Stream) -> rpc.Stream:
    return lambda _context, request: answer(request)
