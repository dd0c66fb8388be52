"""What the library gives back: frozen values, made from the daemon's answers.

`raw` holds the whole answer where the fields are a choice from it. Times are as the API has them,
RFC 3339 text, or nanoseconds where the name ends in `_ns`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.client import figures
from sampan.errors import SampanError

if TYPE_CHECKING:
    from typing import Self


class CommandFailed(SampanError):
    """A command ended with another code than 0, and the caller had asked for success."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a process or a log said."""

    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult(Output):
    """What a process came to."""

    exit_code: int

    def check(self) -> Self:
        """Give back the result itself when the command succeeded.

        Raises:
            CommandFailed: the exit code is not 0.
        """
        if self.exit_code:
            last = self.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            text = f"command ended with {self.exit_code}" + (f": {last}" if last else "")
            raise CommandFailed(text, self.exit_code)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult(ExecResult):
    """What a container came to."""

    container_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """A piece of a log: `stream` is stdout or stderr."""

    stream: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is here."""

    id: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From an entry of the list, or from an inspection."""
        return cls(
            id=answer["Id"],
            names=tuple(answer.get("RepoTags") or ()),
            digests=tuple(answer.get("RepoDigests") or ()),
            size=answer.get("Size") or 0,
            raw=answer,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreProblem:
    """One thing that is wrong with the store, and whether it was mended."""

    kind: str
    subject: str
    detail: str
    mended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCheck:
    """What a check of the store looked at, and found. `size` in bytes."""

    blobs: int
    size: int
    snapshots: int
    images: int
    problems: tuple[StoreProblem, ...]

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From the answer of the check."""
        return cls(
            blobs=answer["Blobs"],
            size=answer["Size"],
            snapshots=answer["Snapshots"],
            images=answer["Images"],
            problems=tuple(
                StoreProblem(
                    kind=one["Kind"],
                    subject=one["Subject"],
                    detail=one["Detail"],
                    mended=one["Mended"],
                )
                for one in answer["Problems"]
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """An image that the policy or a key vouches for: use it by this digest."""

    digest: str
    scope: str
    signers: tuple[str, ...]  # fingerprints of keys

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From the answer of the verification."""
        return cls(
            digest=answer["Digest"],
            scope=answer["Scope"],
            signers=tuple(one["Fingerprint"] for one in answer["Signers"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A path that a container changed: `kind` is "changed", "added" or "deleted"."""

    path: str
    kind: str

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From an entry of /changes."""
        return cls(path=answer["Path"], kind=("changed", "added", "deleted")[answer["Kind"]])


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStep:
    """A step of how an image was made; `size` in bytes, `id` "" where there is none."""

    id: str
    created: int  # in seconds
    created_by: str
    comment: str
    size: int
    tags: tuple[str, ...]

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From an entry of /history."""
        return cls(
            id="" if answer["Id"] == "<missing>" else answer["Id"],
            created=answer["Created"],
            created_by=answer["CreatedBy"],
            comment=answer["Comment"],
            size=answer["Size"],
            tags=tuple(answer.get("Tags") or ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """A repository that a registry found."""

    name: str
    description: str
    stars: int
    official: bool

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From an entry of /images/search."""
        return cls(
            name=answer["name"],
            description=answer.get("description") or "",
            stars=answer.get("star_count") or 0,
            official=bool(answer.get("is_official")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedImages:
    """What a prune removed: names and ids; bytes."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    space_reclaimed: int

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From the answer of /images/prune."""
        items = answer.get("ImagesDeleted") or ()
        return cls(
            untagged=tuple(one["Untagged"] for one in items if one.get("Untagged")),
            deleted=tuple(one["Deleted"] for one in items if one.get("Deleted")),
            space_reclaimed=answer.get("SpaceReclaimed") or 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSummary:
    """A container in a list."""

    id: str
    name: str
    image: str
    command: str
    state: str
    status: str
    labels: dict[str, str]

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From an entry of the list."""
        return cls(
            id=answer["Id"],
            name=(answer.get("Names") or [""])[0].lstrip("/"),
            image=answer.get("Image") or "",
            command=answer.get("Command") or "",
            state=answer.get("State") or "",
            status=answer.get("Status") or "",
            labels=answer.get("Labels") or {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInfo:
    """All that is known of a container; the rest is in `raw`."""

    id: str
    name: str
    status: str
    running: bool
    pid: int
    exit_code: int
    error: str
    oom_killed: bool
    started_at: str
    finished_at: str
    restart_count: int
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From an inspection."""
        state = answer["State"]
        return cls(
            id=answer["Id"],
            name=answer.get("Name", "").lstrip("/"),
            status=state["Status"],
            running=bool(state.get("Running")),
            pid=state.get("Pid") or 0,
            exit_code=state.get("ExitCode") or 0,
            error=state.get("Error") or "",
            oom_killed=bool(state.get("OOMKilled")),
            started_at=state.get("StartedAt") or "",
            finished_at=state.get("FinishedAt") or "",
            restart_count=answer.get("RestartCount") or 0,
            raw=answer,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a container uses; sizes in bytes, `cpu_percent` of one processor."""

    cpu_total_ns: int
    cpu_percent: float
    memory: int
    memory_limit: int
    pids: int
    bytes_read: int
    bytes_written: int
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From an answer of /stats."""
        memory = answer.get("memory_stats") or {}
        return cls(
            cpu_total_ns=answer["cpu_stats"]["cpu_usage"]["total_usage"],
            cpu_percent=figures.cpu_percent(answer),
            memory=figures.memory_used(memory),
            memory_limit=memory.get("limit") or 0,
            pids=(answer.get("pids_stats") or {}).get("current") or 0,
            bytes_read=figures.blocks(answer, "read"),
            bytes_written=figures.blocks(answer, "write"),
            raw=answer,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    time_ns: int
    type: str
    action: str
    actor_id: str
    attributes: dict[str, str]

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From a line of /events."""
        actor = answer.get("Actor") or {}
        return cls(
            time_ns=answer.get("timeNano") or answer.get("time", 0) * 10**9,
            type=answer.get("Type") or "",
            action=answer.get("Action") or "",
            actor_id=actor.get("ID") or "",
            attributes=actor.get("Attributes") or {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A step of a pull; `id` is the layer's, `current` of `total` bytes where they are known,
    `rate` bytes a second lately."""

    id: str
    status: str
    current: int
    total: int
    rate: int = 0

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> Self:
        """From a line of the stream."""
        detail = answer.get("progressDetail") or {}
        return cls(
            id=answer.get("id") or "",
            status=answer.get("status") or "",
            current=detail.get("current") or 0,
            total=detail.get("total") or 0,
            rate=detail.get("rate") or 0,
        )
