"""For which machines an image is built: one platform, or several, and what can run here.

With several, the Dockerfile is carried out once for each, and the names lead to an index of what
came out. Commands of RUN are programs of the stage's platform; when the machine's processor has
another one, the kernel must know an emulator for them (binfmt_misc), or the step is refused.
"""

from __future__ import annotations

import os
from typing import Final

from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.spec.platform import Platform, match_order

BINFMT: Final = "/proc/sys/fs/binfmt_misc"
_EMULATED: Final = {"386": "i386", "amd64": "x86_64", "arm64": "aarch64", "loong64": "loongarch64"}
"""Architectures that qemu calls otherwise."""


def parse(text: str, host: Platform) -> tuple[Platform, ...]:
    """The platforms of `--platform`: the host's where nothing is said.

    Raises:
        InvalidArgument: one is malformed, or given twice.
    """
    if not text:
        return (host,)
    found = tuple(Platform.parse(word.strip()) for word in text.split(","))
    if len(set(found)) < len(found):
        raise InvalidArgument(f"platform {text[:160]!r}: one is given twice")
    return found


def check_runs(wanted: Platform, host: Platform, handlers: str = BINFMT) -> None:
    """Whether commands for `wanted` can be executed on `host`.

    Raises:
        FailedPrecondition: they cannot; the message says what to do.
    """
    if wanted in match_order(host) or wanted.architecture == host.architecture:
        return
    name = "qemu-" + _EMULATED.get(wanted.architecture, wanted.architecture)
    if not _is_enabled(os.path.join(handlers, name)):
        raise FailedPrecondition(
            f"RUN for {wanted} on {host}: this machine cannot execute it, and no emulator is "
            f"registered ({handlers}/{name}): install one (Debian: qemu-user-static), or do what "
            "the step does in a stage FROM --platform=$BUILDPLATFORM"
        )


def _is_enabled(path: str) -> bool:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip() == "enabled"
    except OSError:
        return False
