"""System calls of the API: _ping, version, info, events, df, auth, and what one node is not."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import msgspec

from sampan.api.docker import ages, answers, build, convert, pictures, volumes
from sampan.api.docker.containers import measure, moment, summaries
from sampan.errors import InvalidArgument
from sampan.registry.credentials import Credentials
from sampan.version import (
    DOCKER_API_MIN_VERSION,
    DOCKER_API_VERSION,
    OCI_RUNTIME_SPEC_VERSION,
    VERSION,
)
from sampan.wire import docker as wire
from sampan.wire import images as bodies

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.engine import model
    from sampan.store.usage import StoreUsage

_PING = {
    "Builder-Version": "1",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_KINDS = ("container", "image", "volume", "build-cache")
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
        "Experimental": "false",
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
    return answers.json(info_answer(found, time.time_ns()))


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
        runtimes={"sampan-oci": {"path": "sampan-oci"}},
        security_options=[
            "name=seccomp,profile=builtin",
            *(["name=no-new-privileges"] if found.default_no_new_privileges else []),
        ],
        warnings=list(found.warnings) or None,
    )


async def events(call: Call) -> StreamResponse:
    """GET /events?since&until&filters: one JSON object per line, until `until` or for ever."""
    since, until = moment(call.text("since")), moment(call.text("until"))
    found = call.engine.events(since=since or None, until=until or None, filters=call.filters())
    async with aclosing(cast("AsyncGenerator[model.Event, None]", found)) as stream:
        call.cancel_when_gone()
        answer = await answers.stream(call.request)
        async for event in stream:
            await answer.write(answers.encode(convert.event(event)) + b"\n")
        await answer.write_eof()
    return answer


async def disk_usage(call: Call) -> StreamResponse:
    """GET /system/df?type: what images, containers, volumes and build cache take"""
    wanted = call.values("type") or _KINDS
    if unknown := [kind for kind in wanted if kind not in _KINDS]:
        raise InvalidArgument(f"unknown object type: {unknown[0]}")
    images = await call.engine.images.list()
    containers = call.engine.list(all=True)
    shared = await call.engine.images.shared_sizes(images)
    users = Counter(container.image_id for container in containers)
    taken = await call.engine.images.store_usage() if "image" in wanted else None
    lines = summaries(call.engine, containers)
    if "container" in wanted:
        await measure(call, lines)
    pictured = [pictures.summary(image, users[image.id], shared[image.id]) for image in images]
    return answers.json(
        bodies.DiskUsage(
            layers_size=taken.layers + taken.blobs if taken is not None else 0,
            store=store_usage(taken) if taken is not None else msgspec.UNSET,
            images=pictured if "image" in wanted else None,
            containers=lines if "container" in wanted else None,
            volumes=await volumes.usage(call) if "volume" in wanted else None,
            build_cache=await build.usage(call) if "build-cache" in wanted else None,
        )
    )


def store_usage(taken: StoreUsage) -> bodies.StoreUsage:
    """What the store takes, in the words of the answer."""
    return bodies.StoreUsage(
        total=taken.total,
        blobs=taken.blobs,
        layers=taken.layers,
        writable=taken.writable,
        logs=taken.logs,
        volumes=taken.volumes,
        database=taken.database,
        other=taken.other,
    )


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
    ("GET", "/system/df"): disk_usage,
    ("POST", "/auth"): auth,
}
