"""gRPC services of unix sockets, for every interface that speaks gRPC.

A service is a table: the name of a method and the function that answers it. Everything else (the
classes of request and answer, what is a stream) is read from the interface's own descriptor. An
answer that is bytes is encoded already. Errors carry their gRPC codes themselves; anything else is
a defect, told without its text.

Importing this imports grpc, which costs 15 MiB and seven threads; the daemon does it at the first
connection (`daemon/grpcsocket.py`).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

# The thread that polls for asyncio reads the sockets itself, which was the usual way for long: the
# newer one passes each event through two more threads, which costs a third of a small call.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")

import grpc.aio
from google.protobuf import message_factory

from sampan.errors import SampanError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    Context = grpc.aio.ServicerContext[Any, Any]
    Answer = Message | bytes
    Unary = Callable[[Context, Any], Awaitable[Answer]]
    Stream = Callable[[Context, Any], AsyncIterator[Answer]]

MAX_MESSAGE = 16 << 20
GRACE = 5.0
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.so_reuseport", 0),
)


def is_news(record: logging.LogRecord) -> bool:
    """Whether the library tells something else than a client that left in the middle of a stream.

    It has a traceback for that, as for a defect.
    """
    return not record.getMessage().startswith("ExecuteBatchError raised in core")


logging.getLogger("grpc._cython.cygrpc").addFilter(is_news)


class RpcServer:
    """The services of one socket."""

    def __init__(self) -> None:
        self._server = grpc.aio.server(options=_OPTIONS)

    def add(self, *handlers: grpc.GenericRpcHandler[Any, Any]) -> None:
        """Serve these too; before `start`."""
        self._server.add_generic_rpc_handlers(handlers)

    async def start(self, path: str) -> None:
        """Listen on the unix socket `path`, which is made."""
        self._server.add_insecure_port(f"unix:{path}")
        await self._server.start()

    async def aclose(self) -> None:
        """No new calls; running ones have GRACE seconds."""
        await self._server.stop(GRACE)


def handler(
    service: ServiceDescriptor,
    unary: Mapping[str, Unary],
    streams: Mapping[str, Stream],
    log: logging.Logger,
) -> grpc.GenericRpcHandler[Any, Any]:
    """The handler of a service; methods that are in neither table are answered UNIMPLEMENTED.

    A stream's function gets the request, or the iterator of requests where those are a stream too.
    """
    methods = {}
    for method in service.methods:
        if method.name in unary:
            methods[method.name] = _unary(method, unary[method.name], log)
        elif method.name in streams:
            methods[method.name] = _stream(method, streams[method.name], log)
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _unary(
    method: MethodDescriptor, answer: Unary, log: logging.Logger
) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(request: Message, context: Context) -> Answer:
        try:
            return await answer(context, request)
        except Exception as error:  # the edge
            await _refuse(context, method.name, error, log)
        raise AssertionError("unreachable")

    return grpc.unary_unary_rpc_method_handler(call, *_coders(method))


def _stream(
    method: MethodDescriptor, answer: Stream, log: logging.Logger
) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(request: Any, context: Context) -> AsyncIterator[Answer]:
        try:
            messages = answer(context, request)
            await context.send_initial_metadata(())  # from here on nothing is missed
            async for message in messages:
                yield message
        except Exception as error:  # the edge
            await _refuse(context, method.name, error, log)

    both = grpc.stream_stream_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return both[0 if method.client_streaming else 1](call, *_coders(method))


def _coders(
    method: MethodDescriptor,
) -> tuple[Callable[[bytes], Message], Callable[[Answer], bytes]]:
    """How the request is read and the answer written."""
    request = message_factory.GetMessageClass(method.input_type)
    return request.FromString, _encode


def _encode(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


async def _refuse(context: Context, name: str, error: Exception, log: logging.Logger) -> None:
    """End the call with the error's own code. A client decides by that alone."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, SampanError):
        log.info("%s: %s", name, error)
        await context.abort(grpc.StatusCode[error.grpc], str(error))
    if isinstance(error, OSError):
        log.warning("%s: %s", name, error)
        await context.abort(grpc.StatusCode.INTERNAL, str(error))
    log.error("%s", name, exc_info=error)
    text = f"internal error: {type(error).__name__}"
    await context.abort(grpc.StatusCode.INTERNAL, text)
