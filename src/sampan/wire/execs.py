"""Bodies of the Docker Engine API about further processes in containers.

See `docker.py` for how these structs are meant.
"""

from __future__ import annotations

import msgspec
from msgspec import field

from sampan.wire.containers import Arguments
from sampan.wire.docker import Body


class ExecCreate(Body, kw_only=True):
    """Body of POST /containers/{id}/exec."""

    user: str | None = ""
    privileged: bool | None = False
    tty: bool | None = False
    console_size: tuple[int, int] | None = None
    attach_stdin: bool | None = False
    attach_stderr: bool | None = False
    attach_stdout: bool | None = False
    detach: bool | None = False
    detach_keys: str | None = ""
    # docker-py's spelling; Go's decoder does not look at the case of a name.
    detach_keys_too: str | None = field(default="", name="detachKeys")
    env: list[str] | None = None
    working_dir: str | None = ""
    cmd: Arguments = None


class ExecStart(Body, kw_only=True):
    """Body of POST /exec/{id}/start."""

    detach: bool | None = False
    tty: bool | None = False
    console_size: tuple[int, int] | None = None


class ProcessConfig(msgspec.Struct, kw_only=True):
    """The process of an exec session, in lower case as dockerd writes it."""

    tty: bool
    entrypoint: str
    arguments: list[str]
    privileged: bool = False
    user: str = ""


class ExecInspect(Body, kw_only=True):
    """Answer of GET /exec/{id}/json."""

    id: str = field(name="ID")
    running: bool
    exit_code: int | None
    process_config: ProcessConfig
    open_stdin: bool
    open_stderr: bool
    open_stdout: bool
    can_remove: bool = False
    container_id: str = field(name="ContainerID")
    detach_keys: str = ""
    pid: int = 0
