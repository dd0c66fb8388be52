"""From a gRPC call to one of our functions: errors, the log, and who is asked.

A service is a table: the name of a method and the function that answers it. Everything else (the
classes of request and answer, whether it is a stream) is read from the interface's own descriptor.
An answer that is bytes is encoded already. Errors carry their gRPC codes themselves; anything else
is a defect, told without its text.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import message_factory

from sampan.errors import SampanError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    Answer = Message | bytes
    Unary = Callable[[Any], Awaitable[Answer]]
    Stream = Callable[[Any], AsyncIterator[Answer]]

_log = logging.getLogger("sampan.cri")


def handler(
    service: ServiceDescriptor, table: Mapping[str, Unary], streams: Mapping[str, Stream]
) -> grpc.GenericRpcHandler[Any, Any]:
    """The handler of a service; methods that are in neither table are answered UNIMPLEMENTED."""
    methods = {}
    for method in service.methods:
        if method.name in table:
            methods[method.name] = _unary(method, table[method.name])
        elif method.name in streams:
            methods[method.name] = _stream(method, streams[method.name])
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _unary(method: MethodDescriptor, answer: Unary) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Answer:
        try:
            return await answer(request)
        except SampanError as error:
            _log.info("%s: %s", method.name, error)
            await context.abort(code_of(error), str(error))
        except OSError as error:
            _log.warning("%s: %s", method.name, error)
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        except Exception as error:
            _log.exception("%s", method.name)
            text = f"internal error: {type(error).__name__}"
            await context.abort(grpc.StatusCode.INTERNAL, text)
        raise AssertionError("unreachable")

    return grpc.unary_unary_rpc_method_handler(call, *coders(method))


def _stream(method: MethodDescriptor, answer: Stream) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(
        request: Message, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Answer]:
        try:
            messages = answer(request)
            await context.send_initial_metadata(())  # from here on nothing is missed
            async for message in messages:
                yield message
        except SampanError as error:
            await context.abort(code_of(error), str(error))

    return grpc.unary_stream_rpc_method_handler(call, *coders(method))


def coders(
    method: MethodDescriptor,
) -> tuple[Callable[[bytes], Message], Callable[[Answer], bytes]]:
    """How the request is read and the answer written."""
    request = message_factory.GetMessageClass(method.input_type)
    return request.FromString, _encode


def _encode(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def code_of(error: SampanError) -> grpc.StatusCode:
    """The status code that an error carries."""
    return grpc.StatusCode[error.grpc]
