"""System calls of the API: _ping, version, info, events, auth."""

from __future__ import annotations

import os
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import msgspec

from sampan.api.docker import ages, answers, convert, versions
from sampan.api.docker.logs import moment
from sampan.errors import InvalidArgument
from sampan.registry.credentials import Credentials
from sampan.version import (
    DOCKER_API_MIN_VERSION,
    DOCKER_API_VERSION,
    OCI_RUNTIME_SPEC_VERSION,
    VERSION,
)
from sampan.wire import docker as wire
from sampan.wire import system as bodies

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.engine import model

_PING = {
    "Builder-Version": "1",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_LINES = "application/jsonl"
_decode_auth = msgspec.json.Decoder(wire.Credentials)


async def ping(_: Call) -> StreamResponse:
    """GET and HEAD /_ping"""
    return answers.text(b"OK", _PING)


async def version(_: Call) -> StreamResponse:
    """GET /version"""
    host = os.uname()
    arch = _GO_ARCH.get(host.machine, host.machine)
    details = {
        "ApiVersion": DOCKER_API_VERSION,
        "Arch": arch,
        "BuildTime": "",
        "Experimental": "true",
        "GitCommit": "",
        "GoVersion": "",
        "KernelVersion": host.release,
        "MinAPIVersion": DOCKER_API_MIN_VERSION,
        "Os": "linux",
    }
    runtime = {"OciVersion": OCI_RUNTIME_SPEC_VERSION, "GitCommit": ""}
    return answers.json(
        bodies.Version(
            platform=bodies.PlatformName(name="Sampan"),
            components=[
                bodies.Component(name="Engine", version=VERSION, details=details),
                bodies.Component(name="sampan-oci", version=VERSION, details=runtime),
            ],
            version=VERSION,
            api_version=DOCKER_API_VERSION,
            min_api_version=DOCKER_API_MIN_VERSION,
            arch=arch,
            kernel_version=host.release,
        )
    )


async def info(call: Call) -> StreamResponse:
    """GET /info"""
    found = await call.engine.info()
    answer = info_answer(found, time.time_ns())
    versions.info(answer, call.minor)
    return answers.json(answer)


def info_answer(found: model.EngineInfo, now_ns: int) -> bodies.Info:
    """The engine's numbers in Docker's shape."""
    return bodies.Info(
        id=found.id,
        containers=found.containers,
        containers_running=found.containers_running,
        containers_paused=found.containers_paused,
        containers_stopped=found.containers_stopped,
        images=found.images,
        driver=found.driver,
        plugins=bodies.Plugins(
            volume=["local"],
            network=["bridge", "cni", "host", "macvlan", "null"],
            log=["json-file", "none"],
        ),
        system_time=ages.rfc3339(now_ns),
        logging_driver=found.log_driver,
        cgroup_version=found.cgroup_version,
        kernel_version=found.kernel_version,
        operating_system=found.operating_system,
        architecture=found.architecture,
        registry_config=bodies.RegistryConfig(
            index_configs={
                "docker.io": {"Mirrors": [], "Name": "docker.io", "Official": True, "Secure": True}
            },
            insecure_registry_cidrs=["::1/128", "127.0.0.0/8"],
        ),
        ncpu=found.cpus,
        mem_total=found.memory_total,
        docker_root_dir=found.root,
        name=found.name,
        server_version=VERSION,
        runtimes={name: {"path": path} for name, path in found.runtimes.items()},
        security_options=[
            "name=seccomp,profile=builtin",
            *(["name=no-new-privileges"] if found.default_no_new_privileges else []),
        ],
        firewall_backend=bodies.Firewall(),
        warnings=list(found.warnings) or None,
    )


async def events(call: Call) -> StreamResponse:
    """GET /events?since&until&filters: one JSON object per line, until `until` or for ever."""
    since, until = moment(call.text("since")), moment(call.text("until"))
    if until and until < since:
        texts = f"`since` time ({call.text('since')}) cannot be after `until` time"
        raise InvalidArgument(f"{texts} ({call.text('until')})")
    kind, before = _line_format(call)
    found = call.engine.events(since=since or None, until=until or None, filters=call.filters())
    async with aclosing(cast("AsyncGenerator[model.Event, None]", found)) as stream:
        call.cancel_when_gone()
        answer = await answers.stream(call.request, kind)
        async for event in stream:
            if versions.has_event(event.type, event.action, call.minor):
                told = convert.event(event, with_old_names=call.minor < versions.NO_OLD_EVENTS)
                await answer.write(before + answers.encode(told) + b"\n")
        await answer.write_eof()
    return answer


def _line_format(call: Call) -> tuple[str, bytes]:
    """The content type of a stream of objects, and what stands before each: the client's choice
    among three, else what its version of the API has."""
    accepted = call.request.headers.get("Accept", "")
    wanted = {part.partition(";")[0].strip() for part in accepted.split(",")}
    for kind in (_LINES, "application/x-ndjson", "application/json-seq"):
        if kind in wanted:
            return kind, b"\x1e" if kind.endswith("seq") else b""
    return "application/json" if call.minor < versions.NO_OLD_EVENTS else _LINES, b""


async def auth(call: Call) -> StreamResponse:
    """POST /auth: the registry is asked whether it knows the user"""
    body = await call.json(_decode_auth)
    if body is None or not (body.user_name or body.identity_token):
        raise InvalidArgument("no credentials given")
    credentials = Credentials(
        username=body.user_name or "",
        password=body.password or "",
        identity_token=body.identity_token or "",
    )
    token = await call.engine.images.login(body.server_address or "", credentials)
    return answers.json(bodies.AuthResult(identity_token=token, status="Login Succeeded"))


PATHS = {
    ("GET", "/_ping"): ping,
    ("HEAD", "/_ping"): ping,
    ("GET", "/version"): version,
    ("GET", "/info"): info,
    ("GET", "/events"): events,
    ("POST", "/auth"): auth,
}
