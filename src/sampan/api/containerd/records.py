"""Containers of containerd's clients: the engine's, with an owner, and what was said of them.

A client's container is an id in a namespace, a specification, a snapshot, labels. All that is the
notes of an engine's container, which survive. A *task* is its run; what its streams are is noted
too, so that a client that comes back after a restart finds it.
"""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from sampan.api.containerd.snapshots import active_key
from sampan.engine.model import ContainerConfig, HostConfig, LogConfig, LogDriver, Ownership
from sampan.engine.start import SNAPSHOT
from sampan.errors import AlreadyExists, ContainerNotFound, InvalidArgument
from sampan.jsontext import decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.engine import Engine
    from sampan.engine.model import Container
    from sampan.store.database import Connection

OWNER: Final = "containerd"
_ID: Final = re.compile(r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*", re.ASCII)
_MAX_ID: Final = 76
_MAX_SPEC: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Packed:
    """A message of a type that only its reader knows; `value` in base64."""

    type_url: str = ""
    value: str = ""

    @classmethod
    def of(cls, type_url: str, value: bytes) -> Packed:
        """From what came over the wire."""
        return cls(type_url, base64.b64encode(value).decode())

    @property
    def data(self) -> bytes:
        """The message."""
        return base64.b64decode(self.value)


@dataclass(frozen=True, slots=True)
class TaskNotes:
    """How a task was asked for: paths of FIFOs, "" where nothing is wanted."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False
    created_ns: int = 0
    started: bool = False  # a start has come back, well or not


@dataclass(frozen=True, slots=True)
class Notes:
    """What is kept of a container."""

    namespace: str
    id: str
    image: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    runtime: str = ""
    runtime_options: Packed = Packed()
    spec: Packed = Packed()
    snapshotter: str = ""
    snapshot_key: str = ""
    extensions: dict[str, Packed] = field(default_factory=dict)
    created_ns: int = 0
    updated_ns: int = 0
    task: TaskNotes | None = None

    def encode(self) -> str:
        """As text."""
        return json.dumps({"v": 1, **asdict(self)})

    @classmethod
    def decode(cls, text: str) -> Notes:
        """From text."""
        said = json.loads(text)
        said.pop("v")
        for name in ("runtime_options", "spec"):
            said[name] = Packed(**said[name])
        said["extensions"] = {key: Packed(**one) for key, one in said["extensions"].items()}
        said["task"] = TaskNotes(**said["task"]) if said["task"] else None
        return cls(**said)


def specification(notes: Notes) -> dict[str, Any]:
    """The OCI configuration of a container. Raises InvalidArgument."""
    data = notes.spec.data
    if len(data) > _MAX_SPEC:
        raise InvalidArgument(f"container {notes.id}: a specification of {len(data)} bytes")
    try:
        spec = decode(data)
    except ValueError as error:
        raise InvalidArgument(f"container {notes.id}: its specification is no JSON") from error
    if not isinstance(spec, dict):
        raise InvalidArgument(f"container {notes.id}: its specification is no object")
    return spec


class Records:
    """All containers that belong to containerd's clients."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self, namespace: str = "") -> list[tuple[Container, Notes]]:
        """Those of a namespace, or of all; oldest first."""
        found = [(one, Notes.decode(one.notes)) for one in self._engine.list(all=True, owner=OWNER)]
        return [one for one in found[::-1] if namespace in ("", one[1].namespace)]

    def namespaces(self) -> set[str]:
        """The namespaces that have containers."""
        return {notes.namespace for _, notes in self.all()}

    def find(self, namespace: str, container_id: str) -> tuple[Container, Notes]:
        """One container. Raises ContainerNotFound."""
        for container, notes in self.all(namespace):
            if notes.id == container_id:
                return container, notes
        raise ContainerNotFound(f'container "{container_id}" in namespace "{namespace}": not found')

    async def create(self, notes: Notes) -> Notes:
        """Keep a new one.

        Raises:
            AlreadyExists: the namespace has one of this id.
            InvalidArgument: the id or the specification is wrong.
        """
        if len(notes.id) > _MAX_ID or _ID.fullmatch(notes.id) is None:
            raise InvalidArgument(f"invalid container id {notes.id[:80]!r}")
        if any(other.id == notes.id for _, other in self.all(notes.namespace)):
            raise AlreadyExists(f'container "{notes.id}": already exists')
        process = specification(notes).get("process") or {}
        notes = replace(notes, created_ns=time.time_ns(), updated_ns=time.time_ns())
        made = await self._engine.create(
            ContainerConfig(
                rootfs=f"{SNAPSHOT}{active_key(notes.namespace, notes.snapshot_key)}",
                command=tuple(map(str, process.get("args") or ("sh",))),
                tty=bool(process.get("terminal")),
                open_stdin=True,
                stdin_once=True,
            ),
            HostConfig(
                network_mode="none",  # the specification says which it joins
                security_opt=("seccomp=unconfined",),  # it says that too
                log=LogConfig(driver=LogDriver.NONE),
            ),
            name=f"containerd.{notes.namespace}.{notes.id}",
            owner=Ownership(owner=OWNER, notes=notes.encode()),
        )
        await self._keep_snapshot(made.id, notes)
        return notes

    async def _keep_snapshot(self, container_id: str, notes: Notes) -> None:
        key = active_key(notes.namespace, notes.snapshot_key)

        def write(conn: Connection) -> None:
            conn.execute(
                "UPDATE containers SET snapshot = (SELECT key FROM snapshots WHERE key = ?)"
                " WHERE id = ?",
                (key, container_id),
            )

        await self._engine.services.db.write(write)

    async def change(
        self, namespace: str, container_id: str, change: Callable[[Notes], Notes]
    ) -> Notes:
        """Replace what is noted of a container; the new notes."""
        container, notes = self.find(namespace, container_id)
        notes = replace(change(notes), updated_ns=time.time_ns())
        await self._engine.amend(container.id, notes.encode())
        return notes
