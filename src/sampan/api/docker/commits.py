"""What a container changed: as a list (`diff`) and as an image (`commit`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from sampan.api.docker import answers, requests
from sampan.api.docker.containers import reference
from sampan.api.docker.images import named
from sampan.engine.commit import CommitRequest, run_config
from sampan.engine.specgen import merge_environment
from sampan.errors import InvalidArgument
from sampan.wire import containers as wire
from sampan.wire import docker
from sampan.wire.archives import Change

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.spec.image import RunConfig

_decode = msgspec.json.Decoder(wire.ContainerCreate)


async def changes(call: Call) -> StreamResponse:
    """GET /containers/{id}/changes"""
    found = await call.engine.changes(reference(call))
    return answers.json([Change(path=c.path, kind=int(c.kind)) for c in found] or None)


async def commit(call: Call) -> StreamResponse:
    """POST /commit?container&repo&tag&comment&author&pause&changes"""
    ref = call.text("container").removeprefix("/")
    if not ref:
        raise InvalidArgument("bad parameter: container is needed")
    container = call.engine.get(ref)
    body = await call.json(_decode)
    repository = call.text("repo")
    request = CommitRequest(
        name=named(repository, call.text("tag")) if repository else None,
        author=call.text("author"),
        comment=call.text("comment"),
        changes=[line for text in call.values("changes") for line in text.split("\n") if line],
        pause=call.flag("pause", default=True),
        run=None if body is None else merged(run_config(container), body),
    )
    made = await call.engine.commit(container.id, request)
    return answers.json(docker.Identifier(id=str(made.id)), 201)


def merged(run: RunConfig, body: wire.ContainerCreate) -> RunConfig:
    """How the container runs, with what the request's body states on top."""
    asked = requests.container_config(body)
    return replace(
        run,
        user=asked.user or run.user,
        env=tuple(merge_environment(list(run.env), asked.env)),
        entrypoint=asked.entrypoint or run.entrypoint,
        cmd=asked.command or (() if asked.entrypoint else run.cmd),
        working_dir=asked.cwd or run.working_dir,
        exposed_ports=tuple(sorted({*run.exposed_ports, *asked.exposed_ports})),
        volumes=tuple(sorted({*run.volumes, *asked.volumes})),
        labels={**run.labels, **asked.labels},
        stop_signal=asked.stop_signal or run.stop_signal,
    )


PATHS = {("POST", "/commit"): commit}
NAMED = {("GET", "containers", "changes"): changes}
