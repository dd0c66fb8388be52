"""Bodies of the Docker Engine API about checkpoints; see `docker.py` for how they are meant."""

from __future__ import annotations

from msgspec import field

from sampan.wire.docker import Body


class CheckpointCreate(Body, kw_only=True):
    """Body of POST /containers/{id}/checkpoints; `exit` ends the container."""

    checkpoint_id: str | None = field(default="", name="CheckpointID")
    checkpoint_dir: str | None = ""
    exit: bool | None = False


class Checkpoint(Body, kw_only=True):
    """One entry of GET /containers/{id}/checkpoints."""

    name: str
