"""GET /containers/{id}/logs: what a container has said, and what it says from now on."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from sampan.api.docker import ages, answers, versions
from sampan.api.docker.containers import reference
from sampan.api.docker.logging import details
from sampan.engine import model
from sampan.errors import InvalidArgument
from sampan.wire import multiplex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call

SETTLE_SECONDS = 0.25
_stream_of = attrgetter("stream")


async def logs(call: Call) -> StreamResponse:
    """GET /containers/{id}/logs?stdout&stderr&follow&since&until&tail&timestamps&details"""
    query = log_query(call)
    container = call.engine.get(reference(call))
    if not query.follow:
        await settle(call, container)
    pieces = call.engine.log_pieces(container.id, query)
    is_raw = container.config.tty
    is_joined = call.is_dockers_own
    is_old = call.minor < versions.FRAMED_TYPE
    kind = multiplex.RAW_CONTENT_TYPE if is_raw or is_old else multiplex.CONTENT_TYPE
    async with aclosing(pieces) as read:
        call.cancel_when_gone()
        answer = await answers.stream(call.request, kind)
        async for piece in read:
            # All at once: a client has as many pieces to take as are written.
            await answer.write(content(piece, query, is_raw=is_raw, is_joined=is_joined))
        await answer.write_eof()
    return answer


async def settle(call: Call, container: model.Container) -> None:
    """Let a container that has only just been started say something, or end: whoever asks at once
    was used to an engine that needs as long for its start. What is older is not waited for."""
    age = (time.time_ns() - container.state.started_at) / 1e9
    if not container.status.is_running or not 0 <= age < SETTLE_SECONDS:
        return
    armed = call.engine.arm_wait(container.id)
    try:
        async with asyncio.timeout(SETTLE_SECONDS - age):
            await armed
    except TimeoutError:
        return
    finally:
        armed.cancel()


def log_query(call: Call) -> model.LogQuery:
    """The part of a log that the query asks for.

    Raises:
        InvalidArgument: neither stream is wanted, or a time is not one.
    """
    stdout, stderr = call.flag("stdout"), call.flag("stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = call.text("tail", "all")
    return model.LogQuery(
        stdout=stdout,
        stderr=stderr,
        follow=call.flag("follow"),
        since=moment(call.text("since")),
        until=moment(call.text("until")),
        tail=int(tail) if tail.isdigit() else None,
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
    )


def content(
    records: Sequence[model.LogRecord], query: model.LogQuery, *, is_raw: bool, is_joined: bool
) -> bytes:
    """Records as they go to the client: each in a frame of its own, or what follows each other on
    one stream in one, where `is_joined`. Programs take a frame for a line; docker's own command
    copies frames, and needs as long for a short one as for a long one.
    """
    if is_raw:
        return b"".join([text(record, query) for record in records])
    if not is_joined:
        return b"".join(
            [
                multiplex.frame(multiplex.number_of(record.stream), text(record, query))
                for record in records
            ]
        )
    return b"".join(
        multiplex.frame(multiplex.number_of(name), b"".join([text(one, query) for one in said]))
        for name, said in groupby(records, _stream_of)
    )


def text(record: model.LogRecord, query: model.LogQuery) -> bytes:
    """A record, with what is asked for in front of it."""
    data = record.data
    if query.details:
        data = details(record.attributes) + data
    if query.timestamps:
        data = ages.log_time(record.time_ns).encode() + b" " + data
    return data


def moment(text: str) -> int:
    """A `since` or `until`; 0 for none."""
    return ages.parse_moment(text, time.time_ns()) if text and text != "0" else 0


NAMED = {("GET", "containers", "logs"): logs}
