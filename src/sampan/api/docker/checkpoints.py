"""/containers/{id}/checkpoints: a container's processes as files, by CRIU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sampan.api.docker import answers
from sampan.errors import InvalidArgument
from sampan.wire import checkpoints as wire

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call

_decode = msgspec.json.Decoder(wire.CheckpointCreate)
_VERB = "/checkpoints"


async def create(call: Call) -> StreamResponse:
    """POST /containers/{id}/checkpoints"""
    body = await call.json(_decode)
    if body is None:
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    await call.engine.checkpoint(
        call.name.removeprefix("/"),
        body.checkpoint_id or "",
        body.checkpoint_dir or "",
        leave_running=not body.exit,
    )
    return answers.empty(201)


async def listing(call: Call) -> StreamResponse:
    """GET /containers/{id}/checkpoints?dir"""
    found = call.engine.checkpoints(call.name.removeprefix("/"), call.text("dir"))
    return answers.json([wire.Checkpoint(name=name) for name in found] or None)


async def remove(call: Call) -> StreamResponse:
    """DELETE /containers/{id}/checkpoints/{checkpoint}?dir"""
    container, _, name = call.name.removeprefix("/").partition(f"{_VERB}/")
    await call.engine.remove_checkpoint(container, name, call.text("dir"))
    return answers.empty()


def is_one(call: Call) -> bool:
    """Whether the path names a checkpoint of a container."""
    return f"{_VERB}/" in call.name


NAMED = {
    ("GET", "containers", "checkpoints"): listing,
    ("POST", "containers", "checkpoints"): create,
}
