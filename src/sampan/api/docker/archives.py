"""A container's files: the three calls of `cp`, and export."""

from __future__ import annotations

import base64
import stat
from typing import TYPE_CHECKING

import msgspec

from sampan.api.docker import ages, answers
from sampan.api.docker.containers import reference
from sampan.errors import InvalidArgument
from sampan.wire.archives import PathStat

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call
    from sampan.engine import archive

_TAR = "application/x-tar"
_STAT = "X-Docker-Container-Path-Stat"
_encode = msgspec.json.Encoder().encode

# Go's os.FileMode: the type and the three special bits stand elsewhere than in st_mode.
_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_SPECIAL = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


async def examine(call: Call) -> StreamResponse:
    """HEAD /containers/{id}/archive?path"""
    found = await call.engine.path_stat(reference(call), path_of(call))
    answer = answers.empty(200)
    answer.headers[_STAT] = stat_header(found)
    return answer


async def read(call: Call) -> StreamResponse:
    """GET /containers/{id}/archive?path"""
    reading = call.engine.read_archive(reference(call), path_of(call))
    call.cancel_when_gone()
    async with reading as found:
        assert found.stat is not None
        headers = {_STAT: stat_header(found.stat)}
        answer = await answers.stream(call.request, _TAR, headers)
        async for data in found.chunks():
            await answer.write(data)
        await answer.write_eof()
    return answer


async def write(call: Call) -> StreamResponse:
    """PUT /containers/{id}/archive?path&noOverwriteDirNonDir&copyUIDGID"""
    await call.engine.write_archive(
        reference(call),
        path_of(call),
        call.stream(),
        keep_kinds=call.flag("noOverwriteDirNonDir"),
        as_user=call.flag("copyUIDGID"),
    )
    return answers.empty(200)


async def export(call: Call) -> StreamResponse:
    """GET /containers/{id}/export"""
    exporting = call.engine.export(reference(call))
    call.cancel_when_gone()
    async with exporting as found:
        answer = await answers.stream(call.request, "application/octet-stream")
        async for data in found.chunks():
            await answer.write(data)
        await answer.write_eof()
    return answer


def path_of(call: Call) -> str:
    """The `path` of the query.

    Raises:
        InvalidArgument: there is none.
    """
    path = call.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return path


def stat_header(found: archive.PathStat) -> str:
    """The facts of a path as their header has them: base64 of JSON."""
    body = PathStat(
        name=found.name,
        size=found.size,
        mode=go_mode(found.mode),
        mtime=ages.rfc3339(found.mtime_ns),
        link_target=found.target,
    )
    return base64.b64encode(_encode(body)).decode()


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode."""
    special = sum(bit for flag, bit in _SPECIAL if mode & flag)
    return (mode & 0o777) | _TYPES.get(stat.S_IFMT(mode), 0) | special


NAMED = {
    ("HEAD", "containers", "archive"): examine,
    ("GET", "containers", "archive"): read,
    ("PUT", "containers", "archive"): write,
    ("GET", "containers", "export"): export,
}
