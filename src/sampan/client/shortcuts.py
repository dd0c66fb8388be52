"""What a program wants once, without an engine of its own to hold: `sampan.build(...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.client.engine import Engine

if TYPE_CHECKING:
    from typing import Unpack

    from sampan.client.building import Build, BuildOptions, Context


def build(
    context: Context = ".", *, host: str | None = None, **options: Unpack[BuildOptions]
) -> Build:
    """Build an image with the engine that `Engine.open(host=host)` gives; see `Engine.build`.

    Raises:
        CommandFailed: a command of RUN did not succeed; `exit_code` is its code.
        InvalidArgument: the Dockerfile or an option is wrong.
    """
    with Engine.open(host=host) as engine:
        return engine.build(context, **options)
