"""The instructions of a Dockerfile as data. Words are as written: nothing is expanded yet.

`origin` is the line that an instruction came from; its text and its place are what messages and
histories show. `flags` that hold variables (`--from`, `--chown`, mounts) are raw too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.builder.language.lines import Heredoc, Line

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What every instruction has."""

    origin: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """The start of a stage."""

    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """Names that `--build-arg` may set; None is a name without a default."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """Variables of the image. `legacy`: written as `ENV name value`."""

    pairs: Pairs
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """Labels of the image."""

    pairs: Pairs
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the words of a JSON list, or one text for the shell."""

    words: tuple[str, ...]
    is_shell: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """A command to run. `mounts` are the texts of --mount."""

    command: Command
    mounts: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    """What a container runs by default."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    """What a container always runs."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    """The program of the shell forms."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """Files into the image. Inline files are the here-documents that a source names."""

    sources: tuple[str, ...]
    target: str
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Copy):
    """COPY that also unpacks archives and fetches URLs. `unpack` None: as the source suggests."""

    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """Mount points."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """Ports that a container listens on."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """Whom commands run as."""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """Where commands run."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    """How a container is asked to end."""

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck(Instruction):
    """How to see that a container is well; None as command is NONE. Durations in nanoseconds."""

    command: Command | None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild(Instruction):
    """An instruction for the image that is built from this one."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """Who made the image; deprecated."""

    name: str
