"""Content: blobs by digest, read and written in pieces.

A client that reads a registry itself writes each blob under a name of its own (`ref`) and asks for
its digest at the end; an unfinished one can be taken up, also by the next daemon. What is written
stays under the client's lease, or under one of ours for a day.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from google.protobuf.empty_pb2 import Empty

from sampan.api.containerd.filters import matcher
from sampan.api.containerd.moments import moment
from sampan.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    OutOfRange,
    Unavailable,
)
from sampan.spec.digest import Digest
from sampan.store import leases
from sampan.wire.containerd import content_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampan.api.containerd.calls import Caller, Stream, Unary
    from sampan.api.containerd.labels import Labels
    from sampan.engine.engine import Engine
    from sampan.store.blobs import BlobRow
    from sampan.store.database import Connection
    from sampan.store.ingest import Writer

_KIND: Final = "content"
_PIECE: Final = 1 << 20
_PAGE: Final = 100
_MAX_REF: Final = 4096


@dataclass(slots=True)
class _Ingest:
    """One blob on its way."""

    ref: str
    writer: Writer
    total: int = 0
    expected: str = ""
    started_ns: int = field(default_factory=time.time_ns)
    updated_ns: int = field(default_factory=time.time_ns)

    def status(self) -> pb.Status:
        return pb.Status(
            started_at=moment(self.started_ns),
            updated_at=moment(self.updated_ns),
            ref=self.ref,
            offset=self.writer.offset,
            total=self.total,
            expected=self.expected,
        )

    def answer(self, action: pb.WriteAction, digest: str = "") -> pb.WriteContentResponse:
        return pb.WriteContentResponse(
            action=action,
            started_at=moment(self.started_ns),
            updated_at=moment(self.updated_ns),
            offset=self.writer.offset,
            total=self.total,
            digest=digest,
        )


class Content:
    """Answers about content."""

    def __init__(self, engine: Engine, labels: Labels) -> None:
        self._content = engine.images.content
        self._db = engine.services.db
        self._on_disk = engine.services.on_disk
        self._labels = labels
        self._ingests: dict[str, _Ingest] = {}
        self._lease = ""

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "Info": self._info,
            "Update": self._update,
            "Delete": self._delete,
            "Status": self._status,
            "ListStatuses": self._statuses,
            "Abort": self._abort,
        }

    def streams(self) -> dict[str, Stream]:
        """Method -> answers."""
        return {"List": self._list, "Read": self._read, "Write": self._write}

    async def _info(self, caller: Caller, request: pb.InfoRequest) -> pb.InfoResponse:
        return pb.InfoResponse(info=self._shown(caller, self._row(request.digest)))

    async def _update(self, caller: Caller, request: pb.UpdateRequest) -> pb.UpdateResponse:
        row = self._row(request.info.digest)
        paths = request.update_mask.paths
        await self._labels.update(caller.namespace, _KIND, row.digest, request.info.labels, paths)
        return pb.UpdateResponse(info=self._shown(caller, row))

    async def _list(
        self, caller: Caller, request: pb.ListContentRequest
    ) -> AsyncIterator[pb.ListContentResponse]:
        passes = matcher(request.filters)
        found = [self._shown(caller, row) for row in self._content.walk()]
        wanted = [one for one in found if passes(_fields(one))]
        for start in range(0, len(wanted), _PAGE):
            yield pb.ListContentResponse(info=wanted[start : start + _PAGE])

    async def _delete(self, caller: Caller, request: pb.DeleteContentRequest) -> Empty:
        row = self._row(request.digest)
        await self._content.delete(row.digest)
        await self._labels.drop(caller.namespace, _KIND, row.digest)
        return Empty()

    async def _read(
        self, _caller: Caller, request: pb.ReadContentRequest
    ) -> AsyncIterator[pb.ReadContentResponse]:
        size = self._row(request.digest).size
        offset = request.offset
        end = size if request.size <= 0 else offset + request.size
        if offset < 0 or offset > size or end > size:
            raise OutOfRange(f"read {request.digest}: {offset} to {end} of {size} bytes")
        fd = self._content.open(request.digest)
        try:
            while offset < end:
                count = min(_PIECE, end - offset)
                data = await self._on_disk(os.pread, fd, count, offset)
                if not data:
                    raise OutOfRange(f"read {request.digest}: ends at {offset}")
                yield pb.ReadContentResponse(offset=offset, data=data)
                offset += len(data)
        finally:
            os.close(fd)

    async def _status(self, _caller: Caller, request: pb.StatusRequest) -> pb.StatusResponse:
        found = self._ingests.get(request.ref)
        if found is None:
            raise NotFound(f"ingest {request.ref}: not found")
        return pb.StatusResponse(status=found.status())

    async def _statuses(
        self, _caller: Caller, request: pb.ListStatusesRequest
    ) -> pb.ListStatusesResponse:
        passes = matcher(request.filters)
        found = [one.status() for one in self._ingests.values() if passes({"ref": one.ref})]
        return pb.ListStatusesResponse(statuses=found)

    async def _abort(self, _caller: Caller, request: pb.AbortRequest) -> Empty:
        if request.ref in self._ingests:
            raise Unavailable(f"ingest {request.ref}: it is being written")
        writer = await self._content.writer(request.ref)
        await writer.abort()
        return Empty()

    async def _write(
        self, caller: Caller, requests: AsyncIterator[pb.WriteContentRequest]
    ) -> AsyncIterator[pb.WriteContentResponse]:
        ingest: _Ingest | None = None
        done = False
        try:
            async for request in requests:
                if ingest is None:
                    ingest = await self._begin(caller, request)
                if request.action != pb.STAT:
                    await _append(ingest, request)
                if request.action == pb.COMMIT:
                    digest = await self._commit(caller, ingest, request)
                    done = True
                    yield ingest.answer(request.action, digest)
                    return
                yield ingest.answer(request.action)
        finally:
            if ingest is not None:
                self._ingests.pop(ingest.ref, None)
                if not done:
                    await asyncio.shield(ingest.writer.close())

    async def _begin(self, caller: Caller, request: pb.WriteContentRequest) -> _Ingest:
        if not request.ref or len(request.ref) > _MAX_REF:
            raise InvalidArgument("write content: a ref of 1 to 4096 characters is needed")
        await self._refuse_known(caller, request.expected)
        try:
            lease = caller.lease or await self._own_lease()
            writer = await self._content.writer(request.ref, lease=lease)
        except Conflict as error:
            raise Unavailable(f"ref {request.ref} locked: it is being written") from error
        ingest = _Ingest(request.ref, writer, request.total, request.expected)
        self._ingests[request.ref] = ingest
        return ingest

    async def _commit(
        self, caller: Caller, ingest: _Ingest, request: pb.WriteContentRequest
    ) -> str:
        expected = request.expected or ingest.expected
        await self._refuse_known(caller, expected)
        size = request.total or ingest.total or ingest.writer.offset
        digest = await ingest.writer.commit(size, expected or None)
        await self._labels.put(caller.namespace, _KIND, digest, request.labels)
        return str(digest)

    async def _refuse_known(self, caller: Caller, expected: str) -> None:
        """Raises AlreadyExists for what is here, which the caller's lease then keeps too."""
        if not expected:
            return
        digest = Digest.parse(expected)
        if await self._content.hold(digest, caller.lease or await self._own_lease()):
            raise AlreadyExists(f"content {digest}: already exists")

    async def _own_lease(self) -> str:
        """For those who name none."""

        def renew(conn: Connection) -> str:
            known = self._lease and any(one == self._lease for one, _ in leases.list(conn))
            return self._lease if known else leases.create(conn)

        self._lease = await self._db.write(renew)
        return self._lease

    def _row(self, digest: str) -> BlobRow:
        found: BlobRow | None = self._content.info(Digest.parse(digest))
        if found is None:
            raise NotFound(f"content {digest}: not found")
        return found

    def _shown(self, caller: Caller, row: BlobRow) -> pb.Info:
        return pb.Info(
            digest=str(row.digest),
            size=row.size,
            created_at=moment(row.created_ns),
            updated_at=moment(row.created_ns),
            labels=self._labels.get(caller.namespace, _KIND, row.digest),
        )


async def _append(ingest: _Ingest, request: pb.WriteContentRequest) -> None:
    """Put the data of a message at its place, which is the end or the start."""
    writer = ingest.writer
    ingest.updated_ns = time.time_ns()
    ingest.total = request.total or ingest.total
    ingest.expected = request.expected or ingest.expected
    if not request.data:
        return
    if request.offset == 0 and writer.offset:
        await writer.truncate()
    if request.offset != writer.offset:
        raise OutOfRange(
            f"write {ingest.ref}: at {request.offset}, but {writer.offset} bytes are here"
        )
    await writer.write(request.data)


def _fields(info: pb.Info) -> dict[str, object]:
    return {"digest": info.digest, "size": str(info.size), "labels": dict(info.labels)}
