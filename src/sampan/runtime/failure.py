"""The one error of the runtime: which operation failed, and why."""

from __future__ import annotations

from posix import strerror


class RuntimeFailure(OSError):
    """An operation of a plan failed, or a command could not be executed.

    `errno` is the kernel's, `operation` says what was tried in words ("" where the message says it
    all), and str() is the whole sentence.
    """

    def __init__(self, code: int, message: str, operation: str = "") -> None:
        super().__init__(code, message)
        self.operation = operation

    def __str__(self) -> str:
        return f"{self.operation}: {self.strerror}" if self.operation else str(self.strerror)


class InvalidConfig(ValueError):
    """config.json asks for something contradictory, unknown or unsupported; names the field."""


def reason(error: OSError) -> str:
    """Why `error` happened, without Python's own decoration."""
    text = error.strerror or strerror(error.errno or 0)
    return text[:1].lower() + text[1:]


class NeedsInterpreter(Exception):
    """The machine cannot make this container, or failed to: everything was undone.

    An interpreter can, or finds out why not. It is no failure of the container.
    """
