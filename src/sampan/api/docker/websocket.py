"""GET /containers/{id}/attach/ws: a container's streams over WebSocket.

The shim gets one end of a socket pair in place of the client's socket, and this process copies:
what the container writes becomes binary messages, stdout and stderr in one stream without frames,
as dockerd has it; every message of the client, text or binary, is stdin. The end of the output
closes the WebSocket, the client's close ends stdin.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from aiohttp import WSMsgType
from aiohttp.web_ws import WebSocketResponse

from sampan.api.docker import requests, versions
from sampan.engine import model
from sampan.errors import Conflict, InvalidArgument, SampanError

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call

PING_SECONDS = 30.0
MAX_MESSAGE = 1 << 20
_CHUNK = 64 << 10


async def attach(call: Call) -> StreamResponse:
    """GET /containers/{id}/attach/ws?stream&stdin&stdout&stderr&logs&detachKeys"""
    container = call.engine.get(call.name.removesuffix("/attach").removeprefix("/"))
    if container.status is model.Status.PAUSED:
        raise Conflict(f"container {container.name} is paused, unpause the container before attach")
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        raise InvalidArgument("attach: this path speaks WebSocket only")
    keys = requests.detach_keys(call.text("detachKeys"))
    answer = WebSocketResponse(heartbeat=PING_SECONDS, max_msg_size=MAX_MESSAGE, compress=False)
    await answer.prepare(call.request)
    call.cancel_when_gone()
    is_old = call.minor < versions.WEBSOCKET_STREAMS
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        attachment = model.Attachment(
            fd=theirs.detach(),
            stdin=(is_old or call.flag("stdin")) and container.config.open_stdin,
            stdout=is_old or call.flag("stdout"),
            stderr=is_old or call.flag("stderr"),
            logs=call.flag("logs"),
            stream=call.flag("stream"),
            framing=model.Framing.RAW,
            detach_keys=keys,
        )
        try:
            await call.engine.attach(container.id, attachment)
        except SampanError as error:
            await answer.send_bytes(f"attach: {error}\r\n".encode())
        else:
            await _copy(answer, ours, as_text=call.minor < versions.WEBSOCKET_BINARY)
    await answer.close()
    return answer


async def _copy(answer: WebSocketResponse, stream: socket.socket, *, as_text: bool) -> None:
    """Copy both ways until the container's output ends or the client goes."""
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(_listen(answer, stream))
        while data := await _received(stream):
            if as_text:
                await answer.send_str(data.decode(errors="replace"))
            else:
                await answer.send_bytes(data)
        listening.cancel()


async def _received(stream: socket.socket) -> bytes:
    try:
        return await asyncio.get_running_loop().sock_recv(stream, _CHUNK)
    except ConnectionError:
        return b""


async def _listen(answer: WebSocketResponse, stream: socket.socket) -> None:
    """The client's messages to the container."""
    loop = asyncio.get_running_loop()
    try:
        async for message in answer:
            if message.type is WSMsgType.TEXT:
                await loop.sock_sendall(stream, message.data.encode())
            elif message.type is WSMsgType.BINARY:
                await loop.sock_sendall(stream, message.data)
        stream.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the container takes no more; its output may still come


NAMED = {("GET", "containers", "ws"): attach}
