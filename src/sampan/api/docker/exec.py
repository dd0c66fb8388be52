"""/exec/*, and the making of an exec session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sampan.api.docker import answers, convert, oldrequests, requests
from sampan.api.docker.containers import farewell, reference, size_of
from sampan.engine import model
from sampan.errors import Conflict, SampanError
from sampan.wire import docker, multiplex
from sampan.wire import execs as wire

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call

_decode_create = msgspec.json.Decoder(wire.ExecCreate)
_decode_start = msgspec.json.Decoder(wire.ExecStart)


async def create(call: Call) -> StreamResponse:
    """POST /containers/{id}/exec"""
    body = await call.needed_json(_decode_create)
    oldrequests.exec_(body, call.minor)
    made = await call.engine.exec_create(reference(call), requests.exec_config(body))
    return answers.json(docker.Identifier(id=made), 201)


async def start(call: Call) -> StreamResponse:
    """POST /exec/{id}/start: takes the connection over unless it is detached.

    What fails after the head of the raw stream is told in the stream; the exit code in `inspect`
    is what a client decides by. Whether the output comes in frames is decided by `Tty` of this
    request, as dockerd has it, and not by whether the process has a terminal.
    """
    body = await call.needed_json(_decode_start)
    oldrequests.exec_(body, call.minor)
    session = call.engine.exec_inspect(call.name)
    if session.started:
        raise Conflict(f"exec command {session.id} has already run")
    if body.detach:
        await call.engine.exec_start(session.id)
        return answers.empty(200)
    is_raw = bool(body.tty)
    fd = call.take_over(is_raw)
    attachment = model.Attachment(
        fd=fd,
        stdin=session.config.attach_stdin,
        stdout=session.config.attach_stdout,
        stderr=session.config.attach_stderr,
        framing=model.Framing.RAW if is_raw else model.Framing.MULTIPLEXED,
        detach_keys=session.config.detach_keys,
        settle=not call.reads_on,
    )
    try:
        await call.engine.exec_start(session.id, attachment)
    except SampanError as error:
        return await call.taken_over_with(farewell(f"{error}\r\n", multiplex.STDOUT, is_raw))
    return call.taken_over()


async def inspect(call: Call) -> StreamResponse:
    """GET /exec/{id}/json"""
    session = await call.engine.exec_settled(call.name)
    user = call.engine.get(session.container_id).config.user
    return answers.json(convert.exec_answer(session, user))


async def resize(call: Call) -> StreamResponse:
    """POST /exec/{id}/resize?h&w"""
    height, width = size_of(call)
    await call.engine.exec_resize(call.name, height, width)
    return answers.empty(200)


NAMED = {
    ("POST", "containers", "exec"): create,
    ("GET", "exec", "json"): inspect,
    ("POST", "exec", "resize"): resize,
    ("POST", "exec", "start"): start,
}
