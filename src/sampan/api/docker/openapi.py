"""GET /openapi.json: the API described, out of what serves it.

Paths come from the tables of routes, query parameters and summaries from the first line of each
handler's docstring (`GET /containers/json?all&limit: ...`), bodies from the types that decode and
encode them. So the description cannot say anything that the code does not. Only which type belongs
to which path is written down here; an answer that is not in the table is a stream or has no body.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sampan.api.docker.building import Later
from sampan.version import DOCKER_API_MAX_VERSION, VERSION
from sampan.wire import (
    archives,
    checkpoints,
    containers,
    distribution,
    events,
    execs,
    hostconfig,
    images,
    networks,
    stats,
    system,
    volumes,
)
from sampan.wire import docker as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

REQUESTS: Final[dict[str, Any]] = {
    "POST /auth": wire.Credentials,
    "POST /commit": containers.ContainerCreate,
    "POST /containers/{name}/checkpoints": checkpoints.CheckpointCreate,
    "POST /containers/create": containers.ContainerCreate,
    "POST /containers/{name}/exec": execs.ExecCreate,
    "POST /containers/{name}/update": hostconfig.HostConfig,
    "POST /exec/{name}/start": execs.ExecStart,
    "POST /networks/create": networks.NetworkCreate,
    "POST /networks/{name}/connect": networks.NetworkConnect,
    "POST /networks/{name}/disconnect": networks.NetworkDisconnect,
    "POST /volumes/create": volumes.VolumeCreate,
}
ANSWERS: Final[dict[str, tuple[int, Any]]] = {
    "DELETE /images/{name}": (200, list[images.ImageDeleted]),
    "GET /containers/json": (200, list[containers.ContainerSummary]),
    "GET /containers/{name}/changes": (200, list[archives.Change] | None),
    "GET /containers/{name}/checkpoints": (200, list[checkpoints.Checkpoint] | None),
    "GET /containers/{name}/json": (200, containers.ContainerInspect),
    "GET /containers/{name}/stats": (200, stats.Stats),
    "GET /containers/{name}/top": (200, containers.Top),
    "GET /distribution/{name}/json": (200, distribution.Inspect),
    "GET /events": (200, events.Event),
    "GET /exec/{name}/json": (200, execs.ExecInspect),
    "GET /images/json": (200, list[images.ImageSummary]),
    "GET /images/{name}/attestations": (200, list[images.Statement]),
    "GET /images/{name}/history": (200, list[images.HistoryEntry]),
    "GET /images/{name}/json": (200, images.ImageInspect),
    "GET /info": (200, system.Info),
    "GET /networks": (200, list[networks.Network]),
    "GET /networks/{name}": (200, networks.Network),
    "GET /networks/{name}/check": (200, list[networks.MemberCheck]),
    "GET /system/df": (200, system.DiskUsage),
    "GET /version": (200, system.Version),
    "GET /volumes": (200, volumes.VolumeList),
    "GET /volumes/{name}": (200, volumes.Volume),
    "POST /auth": (200, system.AuthResult),
    "POST /commit": (201, wire.Identifier),
    "POST /containers/create": (201, containers.Created),
    "POST /containers/prune": (200, containers.ContainersPruned),
    "POST /containers/{name}/exec": (201, wire.Identifier),
    "POST /containers/{name}/wait": (200, containers.WaitResult),
    "POST /images/prune": (200, images.ImagesPruned),
    "POST /networks/create": (201, networks.NetworkCreated),
    "POST /networks/prune": (200, networks.NetworksPruned),
    "POST /volumes/create": (201, volumes.Volume),
    "POST /volumes/prune": (200, volumes.VolumesPruned),
}
_QUERY = re.compile(r"^[^?:]*\?([\w&=-]+)")
_REFERENCE = "#/components/schemas/{name}"


def operations(
    paths: Iterable[tuple[str, str]], named: Iterable[tuple[str, str, str]]
) -> list[tuple[str, str]]:
    """(method, path) of every route; what a path names is `{name}` in it."""
    found = [*paths]
    for method, noun, verb in named:
        last = "attach/ws" if verb == "ws" else verb
        found.append((method, f"/{noun}/{{name}}" + (f"/{last}" if last else "")))
    return found


def document(
    paths: Mapping[tuple[str, str], Callable[..., Any]],
    named: Mapping[tuple[str, str, str], Callable[..., Any]],
) -> bytes:
    """The whole description, as JSON."""
    types = [*REQUESTS.values(), *(kind for _, kind in ANSWERS.values()), wire.ErrorMessage]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_request = dict(zip(REQUESTS, schemas, strict=False))
    by_answer = dict(zip(ANSWERS, schemas[len(REQUESTS) :], strict=False))
    handlers = [*paths.values(), *named.values()]
    described: dict[str, dict[str, Any]] = {}
    for (method, path), handler in zip(operations(paths, named), handlers, strict=True):
        key = f"{method} {path}"
        told = (handler.load() if isinstance(handler, Later) else handler).__doc__ or ""
        one = _operation(key, told, by_request.get(key), by_answer.get(key))
        described.setdefault(path, {})[method.lower()] = one
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": f"Sampan {VERSION}, Docker Engine API",
                "version": DOCKER_API_MAX_VERSION,
            },
            "servers": [{"url": f"/v{DOCKER_API_MAX_VERSION}"}, {"url": "/"}],
            "paths": dict(sorted(described.items())),
            "components": {"schemas": components},
        }
    )


def _operation(key: str, text: str, request: Any, answer: Any) -> dict[str, Any]:
    line = text.partition("\n")[0]
    query = _QUERY.match(line)
    parameters = [
        {"name": name.partition("=")[0], "in": "query", "schema": {"type": "string"}}
        for name in (query[1].split("&") if query else ())
    ]
    if "{name}" in key:
        place = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        parameters.insert(0, place)
    made: dict[str, Any] = {
        "summary": line.partition(": ")[2] or key,
        "operationId": re.sub(r"\W+", "_", key.lower()).strip("_"),
        "parameters": parameters,
        "responses": {"default": _content(wire.ErrorMessage, "an error")},
    }
    if request is not None:
        made["requestBody"] = {"content": {"application/json": {"schema": request}}}
    if answer is None:
        made["responses"]["2XX"] = {"description": "no body, or a stream"}
    else:
        status = str(ANSWERS[key][0])
        body = {"application/json": {"schema": answer}}
        made["responses"][status] = {"description": "done", "content": body}
    return made


def _content(kind: type, text: str) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(name=kind.__name__)}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
