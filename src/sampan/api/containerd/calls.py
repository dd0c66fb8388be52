"""From a gRPC call of containerd's interface to one of our functions.

A service is a table, as for the Kubernetes interface; here every function is also told who calls:
the namespace and the lease that the client named in the metadata. A client finds its errors by the
gRPC code alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from sampan.api.cri.calls import code_of, coders
from sampan.errors import SampanError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    Unary = Callable[["Caller", Any], Awaitable[Message]]
    Stream = Callable[["Caller", Any], AsyncIterator[Message]]
    Context = grpc.aio.ServicerContext[Any, Any]

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
    """The handler of a service; methods that are in neither table are answered UNIMPLEMENTED.

    A stream's function gets the request, or the iterator of requests where those are a stream too.
    """
    methods = {}
    for method in service.methods:
        if method.name in table:
            methods[method.name] = _unary(method, table[method.name])
        elif method.name in streams:
            methods[method.name] = _stream(method, streams[method.name])
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _unary(method: MethodDescriptor, answer: Unary) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(request: Message, context: Context) -> Message:
        try:
            return await answer(_caller(context), request)
        except Exception as error:  # the edge
            await _refuse(context, method.name, error)
        raise AssertionError("unreachable")

    return grpc.unary_unary_rpc_method_handler(call, *coders(method))


def _stream(method: MethodDescriptor, answer: Stream) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(request: Any, context: Context) -> AsyncIterator[Message]:
        try:
            messages = answer(_caller(context), request)
            await context.send_initial_metadata(())  # from here on nothing is missed
            async for message in messages:
                yield message
        except Exception as error:  # the edge
            await _refuse(context, method.name, error)

    both = grpc.stream_stream_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return both[0 if method.client_streaming else 1](call, *coders(method))


def _caller(context: Context) -> Caller:
    said = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
    return Caller(said.get(NAMESPACE, "default"), said.get(LEASE, ""))


async def _refuse(context: Context, name: str, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, SampanError):
        _log.info("%s: %s", name, error)
        await context.abort(code_of(error), str(error))
    if isinstance(error, OSError):
        _log.warning("%s: %s", name, error)
        await context.abort(grpc.StatusCode.INTERNAL, str(error))
    _log.error("%s", name, exc_info=error)
    text = f"internal error: {type(error).__name__}"
    await context.abort(grpc.StatusCode.INTERNAL, text)
