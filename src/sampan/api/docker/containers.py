"""/containers/*: one function per endpoint, each a translation around one call of the engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from sampan import ids
from sampan.api.docker import (
    answers,
    checkpoints,
    conflicts,
    convert,
    endpoints,
    networks,
    oldrequests,
    requests,
    sampling,
    versions,
)
from sampan.engine import model, security
from sampan.errors import Conflict, ContainerNotFound, InvalidArgument, SampanError
from sampan.wire import containers as wire
from sampan.wire import hostconfig, multiplex

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.engine.config import EngineConfig

STATS_SECONDS = 1.0
_decode_update = msgspec.json.Decoder(hostconfig.HostConfig)
_decode_config = msgspec.json.Decoder(wire.ContainerCreate)


class _Create:
    """Decodes what is to be made. Limits and all else of the host stood beside the image before
    there was a HostConfig; who still writes them there gets them."""

    def decode(self, content: bytes, /) -> wire.ContainerCreate:
        body = _decode_config.decode(content)
        if body.host_config is None:
            body.host_config = _decode_update.decode(content)
        return body


_decode_create = _Create()


async def create(call: Call) -> StreamResponse:
    """POST /containers/create?name&platform"""
    body = await call.needed_json(_decode_create)
    check_source(body)
    warnings = oldrequests.create(body, call.minor)
    config = requests.container_config(body)
    asked = body.host_config or hostconfig.HostConfig()
    asked.runtime = asked.runtime or body.runtime
    host = requests.host_config(asked, bool(body.network_disabled))
    conflicts.check(config, host)
    name = call.text("name").removeprefix("/")
    new_enough = call.minor >= versions.PLATFORM_OF_CREATE
    try:
        made = await call.engine.create(
            config,
            host,
            name=ids.check_name(name) if name else None,
            platform=(call.text("platform") or None) if new_enough else None,
            networks=endpoints.wishes(body.networking_config),
        )
    except ContainerNotFound as error:  # to clients, 404 means that the image is to be pulled
        raise InvalidArgument(str(error)) from error
    return answers.json(wire.Created(id=made.id, warnings=[*made.warnings, *warnings]), 201)


def check_source(body: wire.ContainerCreate) -> None:
    """Raises InvalidArgument, in dockerd's words, where nothing is said of what is to run."""
    if body.image or body.rootfs:
        return
    nothing = wire.ContainerCreate(
        host_config=body.host_config, networking_config=body.networking_config
    )
    if body in (nothing, msgspec.structs.replace(nothing, image=None, rootfs=None)):
        raise InvalidArgument("config cannot be empty in order to create a container")
    raise InvalidArgument("no command specified")


async def start(call: Call) -> StreamResponse:
    """POST /containers/{id}/start?detachKeys&checkpoint&checkpoint-dir"""
    if checkpoint := call.text("checkpoint"):
        where = call.text("checkpoint-dir")
        await call.engine.start_from(reference(call), checkpoint, where)
    else:
        await call.engine.start(reference(call))
    return answers.empty()


async def stop(call: Call) -> StreamResponse:
    """POST /containers/{id}/stop?t&signal"""
    await call.engine.stop(
        reference(call), timeout=call.number("t"), signal=call.text("signal") or None
    )
    return answers.empty()


async def restart(call: Call) -> StreamResponse:
    """POST /containers/{id}/restart?t&signal"""
    await call.engine.restart(
        reference(call), timeout=call.number("t"), signal=call.text("signal") or None
    )
    return answers.empty()


async def kill(call: Call) -> StreamResponse:
    """POST /containers/{id}/kill?signal"""
    await call.engine.kill(reference(call), signal=call.text("signal") or "SIGKILL")
    return answers.empty()


async def pause(call: Call) -> StreamResponse:
    """POST /containers/{id}/pause"""
    await call.engine.pause(reference(call))
    return answers.empty()


async def unpause(call: Call) -> StreamResponse:
    """POST /containers/{id}/unpause"""
    await call.engine.unpause(reference(call))
    return answers.empty()


async def rename(call: Call) -> StreamResponse:
    """POST /containers/{id}/rename?name"""
    name = call.text("name").removeprefix("/")
    if not name:
        raise InvalidArgument("neither old nor new names may be empty")
    await call.engine.rename(reference(call), ids.check_name(name))
    return answers.empty()


async def update(call: Call) -> StreamResponse:
    """POST /containers/{id}/update"""
    body = await call.needed_json(_decode_update)
    oldrequests.update(body, call.minor)
    policy = None
    if body.restart_policy is not None and body.restart_policy.name not in (None, ""):
        policy = requests.restart_policy(body.restart_policy)
    conflicts.check_memory(body.memory or 0, body.memory_reservation or 0)
    limits = requests.limits(msgspec.structs.asdict(body))
    warnings = await call.engine.update(reference(call), restart=policy, **limits)
    return answers.json({"Warnings": list(warnings) or None})


async def wait(call: Call) -> StreamResponse:
    """POST /containers/{id}/wait?condition

    The wait is armed and the head sent before anything is awaited for: the client starts the
    container only when it has seen the head. Why a start failed is told by the answer to `start`,
    and not here a second time.
    """
    armed = call.engine.arm_wait(reference(call), wait_condition(call))
    try:
        call.cancel_when_gone()
        if call.minor < versions.WAIT_CONDITIONS:
            return answers.json(wire.WaitResult(status_code=(await armed).exit_code))
        answer = await answers.stream(call.request)
        try:
            result = await armed
            content = wire.WaitResult(status_code=result.exit_code)
        except SampanError as failure:
            content = wire.WaitResult(status_code=-1, error=wire.WaitError(message=str(failure)))
        await answer.write_eof(answers.encode(content) + b"\n")
    finally:
        armed.cancel()
    return answer


def wait_condition(call: Call) -> model.WaitCondition:
    """What the query waits for. Of a container that runs, "not-running" is its next end, also when
    its policy starts it again: so dockerd has it.

    Raises:
        InvalidArgument: an unknown condition.
    """
    text = call.text("condition") if call.minor >= versions.WAIT_CONDITIONS else ""
    text = text or "not-running"
    try:
        condition = model.WaitCondition(text)
    except ValueError:
        raise InvalidArgument(f'invalid condition: "{text}"') from None
    if condition is model.WaitCondition.NOT_RUNNING:
        status = call.engine.get(reference(call)).status
        if status.is_running or status is model.Status.RESTARTING:
            return model.WaitCondition.NEXT_EXIT
    return condition


async def remove(call: Call) -> StreamResponse:
    """DELETE /containers/{id}?force&v&link, and of a checkpoint below it"""
    if checkpoints.is_one(call):
        return await checkpoints.remove(call)
    if call.flag("link"):
        name, _, alias = reference(call).rpartition("/")
        await call.engine.unlink(name, alias)
        return answers.empty()
    await call.engine.remove(reference(call), force=call.flag("force"), volumes=call.flag("v"))
    return answers.empty()


async def prune(call: Call) -> StreamResponse:
    """POST /containers/prune?filters"""
    pruned = await call.engine.prune(call.filters())
    return answers.json(
        wire.ContainersPruned(
            containers_deleted=list(pruned.ids) or None, space_reclaimed=pruned.space_reclaimed
        )
    )


async def inspect(call: Call) -> StreamResponse:
    """GET /containers/{id}/json?size"""
    container = call.engine.get(reference(call))
    answer = convert.inspect(container, networks.live(call.engine, container))
    answer.exec_ids = call.engine.exec_ids(container.id) or None
    answer.host_config = in_effect(answer.host_config, container.host, call.engine.config)
    versions.container(answer, call.minor)
    if call.flag("size"):
        found = await call.engine.sizes(container.id)
        answer.size_rw, answer.size_root_fs = found.writable, found.total
    return answers.json(answer)


def in_effect(
    answer: hostconfig.HostConfig, host: model.HostConfig, config: EngineConfig
) -> hostconfig.HostConfig:
    """`answer` with what the engine puts where the request said nothing."""
    answer.shm_size = host.shm_size or config.shm_size
    answer.masked_paths = security.masked_paths(host)
    answer.readonly_paths = security.readonly_paths(host)
    return answer


async def top(call: Call) -> StreamResponse:
    """GET /containers/{id}/top?ps_args"""
    found = await call.engine.top(reference(call), call.text("ps_args"))
    return answers.json(
        wire.Top(processes=[list(row) for row in found.processes], titles=list(found.titles))
    )


async def resize(call: Call) -> StreamResponse:
    """POST /containers/{id}/resize?h&w"""
    height, width = size_of(call)
    await call.engine.resize(reference(call), height, width)
    return answers.empty(200)


async def attach(call: Call) -> StreamResponse:
    """POST /containers/{id}/attach?stream&stdin&stdout&stderr&logs&detachKeys"""
    container = call.engine.get(reference(call))
    if container.status is model.Status.PAUSED:
        raise Conflict(f"container {call.name} is paused, unpause the container before attach")
    try:
        keys = requests.detach_keys(call.text("detachKeys"))
    except InvalidArgument as error:
        if "Upgrade" in call.request.headers:
            return answers.broken_off(400, str(error))
        raise
    is_raw = container.config.tty
    # Of a container that was never started nothing comes yet, and the attachment must be there
    # before the client, having read the head, starts it. What the shim writes waits there.
    speaks = call.flag("logs") and container.state.started_at
    fd = await call.take_over_settled(is_raw) if speaks else call.take_over(is_raw)
    attachment = model.Attachment(
        fd=fd,
        stdin=call.flag("stdin") and container.config.open_stdin,
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        logs=call.flag("logs"),
        stream=call.flag("stream"),
        framing=model.Framing.RAW if is_raw else model.Framing.MULTIPLEXED,
        detach_keys=keys,
        settle=not call.reads_on,
    )
    try:
        await call.engine.attach(container.id, attachment)
    except SampanError as error:
        return await call.taken_over_with(
            farewell(f"attach: {error}\r\n", multiplex.STDERR, is_raw)
        )
    return call.taken_over()


async def stats(call: Call) -> StreamResponse:
    """GET /containers/{id}/stats?stream&one-shot"""
    container = call.engine.get(reference(call))
    call.cancel_when_gone()
    if not call.flag("stream", default=True):
        before = None
        one_shot = call.minor >= versions.ONE_SHOT and call.flag("one-shot")
        if not one_shot and container.status.is_running:
            before = await call.engine.stats(container.id)
            await asyncio.sleep(STATS_SECONDS)
        return answers.json(sampling.sample(await call.engine.stats(container.id), before))
    answer = await answers.stream(call.request)
    before = None
    while True:
        try:
            now = await call.engine.stats(container.id)
        except ContainerNotFound:
            return answer  # removed: the stream ends with what it had
        await answer.write(answers.encode(sampling.sample(now, before)) + b"\n")
        before = now
        await asyncio.sleep(STATS_SECONDS)


def reference(call: Call) -> str:
    """The container in the path; Docker allows a slash before a name."""
    return call.name.removeprefix("/")


def size_of(call: Call) -> tuple[int, int]:
    """The height and width that `resize` asks for.

    Raises:
        InvalidArgument: one is missing or impossible.
    """
    height, width = call.number("h"), call.number("w")
    if height is None or width is None or not (0 <= height < 65536 and 0 <= width < 65536):
        raise InvalidArgument("resize: h and w must be numbers from 0 to 65535")
    return height, width


def farewell(text: str, stream: int, is_raw: bool) -> bytes:
    """A sentence at the end of a raw stream, where a status cannot be sent any more."""
    return text.encode() if is_raw else multiplex.frame(stream, text.encode())


PATHS = {
    ("POST", "/containers/create"): create,
    ("POST", "/containers/prune"): prune,
}
NAMED = {
    ("DELETE", "containers", ""): remove,
    ("GET", "containers", "json"): inspect,
    ("GET", "containers", "stats"): stats,
    ("GET", "containers", "top"): top,
    ("POST", "containers", "attach"): attach,
    ("POST", "containers", "kill"): kill,
    ("POST", "containers", "pause"): pause,
    ("POST", "containers", "rename"): rename,
    ("POST", "containers", "resize"): resize,
    ("POST", "containers", "restart"): restart,
    ("POST", "containers", "start"): start,
    ("POST", "containers", "stop"): stop,
    ("POST", "containers", "unpause"): unpause,
    ("POST", "containers", "update"): update,
    ("POST", "containers", "wait"): wait,
}
