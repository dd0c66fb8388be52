"""Errors of a build that a caller decides by."""

from __future__ import annotations

from sampan.errors import SampanError


class CommandFailed(SampanError):
    """A command of RUN ended with another code than 0; `code` is it."""

    exit_code = 1
    grpc = "FAILED_PRECONDITION"

    def __init__(self, words: tuple[str, ...], code: int) -> None:
        shown = " ".join(words)
        super().__init__(f"The command '{shown}' returned a non-zero code: {code}")
        self.code = code
