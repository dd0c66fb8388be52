"""Errors at the HTTP edge: which status and which sentence an exception becomes.

`sampan.errors` carries its own status. A body that does not decode is the caller's fault.
Everything else is a defect of ours: the caller gets a plain 500, the log gets the traceback, and no
internal text leaves the process.
"""

from __future__ import annotations

import msgspec

from sampan.errors import SampanError
from sampan.wire.docker import ErrorMessage

_encode = msgspec.json.Encoder().encode


def describe(error: BaseException) -> tuple[int, str]:
    """The HTTP status and the message for `error`."""
    if isinstance(error, SampanError):
        return error.http, str(error)
    if isinstance(error, msgspec.MsgspecError):
        return 400, f"invalid JSON: {error}"
    return 500, f"internal error: {type(error).__name__}"


def is_defect(error: BaseException) -> bool:
    """Whether `error` belongs into the log with its traceback."""
    return not isinstance(error, (SampanError, msgspec.MsgspecError))


def body(message: str) -> bytes:
    """The JSON body of an answer that is an error."""
    return _encode(ErrorMessage(message=message)) + b"\n"
