"""Answers that tell the progress of a long piece of work: pull, push, import.

The work runs as a task of the handler and reports lines; the handler writes them as the client
takes them. A failure before the first line becomes an ordinary error answer, a later one the last
line of the stream, as dockerd has it. When the client goes, the work is cancelled. A client that
does not read loses counts, never words: what waits for it stays under `MAX_WAITING` bytes of them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from sampan.api import errors
from sampan.api.docker import answers
from sampan.builder.failures import CommandFailed
from sampan.wire import progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.images.progress import Progress

_log = logging.getLogger("sampan.api")

MAX_WAITING = 256 << 10


class Lines:
    """What was said and not yet written."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._waiting: list[bytes] = []
        self._size = 0

    def add(self, line: bytes) -> None:
        """Say a line."""
        self._waiting.append(line)
        self._size += len(line)
        self.news.set()

    def report(self, step: Progress) -> None:
        """Say how far an item is; a count is dropped when the client does not read."""
        if not step.current and not step.total:
            is_layer = step.id and not step.status.startswith("Pulling from")
            self.add(
                progress.step(step.id, step.status)
                if is_layer
                else progress.message(str(step.status), step.id)
            )
        elif self._size < MAX_WAITING or step.current >= step.total:
            self.add(progress.step(step.id, step.status, step.current, step.total, step.rate))

    @property
    def is_full(self) -> bool:
        """Whether counts should wait."""
        return self._size >= MAX_WAITING

    def take(self) -> bytes:
        """Everything that waits."""
        waiting = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self.news.clear()
        return waiting


async def run(
    call: Call, work: Callable[[Lines], Awaitable[Any]], *, begun: bool = False
) -> StreamResponse:
    """Do `work` and stream what it says; with `begun`, a failure is always a line of the stream."""
    lines = Lines()
    call.cancel_when_gone()
    task = asyncio.ensure_future(work(lines))
    task.add_done_callback(lambda _: lines.news.set())
    try:
        answer = await answers.stream(call.request) if begun else None
        return await _write(call, task, lines, answer)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _write(
    call: Call, task: asyncio.Future[Any], lines: Lines, answer: StreamResponse | None
) -> StreamResponse:
    while not task.done():
        await lines.news.wait()
        if waiting := lines.take():
            answer = answer or await answers.stream(call.request)
            await answer.write(waiting)
    error = task.exception()
    if error is not None and answer is None:
        raise error  # an ordinary answer, where the caller also logs it
    if error is not None and errors.is_defect(error):
        _log.error("%s failed in its stream", call.request.path, exc_info=error)
    answer = answer or await answers.stream(call.request)
    last = lines.take()
    if error is not None:
        code = error.code if isinstance(error, CommandFailed) else None
        status, message = errors.describe(error)
        last += progress.failure(message, code, status if call.flag("notes") else None)
    if last:
        await answer.write(last)
    await answer.write_eof()
    return answer
