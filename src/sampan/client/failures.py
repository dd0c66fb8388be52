"""A refusal of the daemon as an error of ours, with the daemon's sentence.

The class follows from the status and from what the call was about; the text decides nothing, except
for a start that failed: there the API has no other place for the shell's 126 and 127.
"""

from __future__ import annotations

from sampan import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.calls import Call

_BY_STATUS: dict[int, type[errors.SampanError]] = {
    400: errors.InvalidArgument,
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.NotImplementedHere,
    503: errors.Unavailable,
}
_BY_SUBJECT: dict[tuple[str, int], type[errors.SampanError]] = {
    ("container", 404): errors.ContainerNotFound,
    ("create", 404): errors.ImageNotFound,
    ("create", 409): errors.NameInUse,
    ("image", 404): errors.ImageNotFound,
    ("start", 404): errors.ContainerNotFound,
}


def start_code(message: str) -> int:
    """The shell's code for a start that failed: 127 no such command, 126 not executable, 125."""
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    if "permission denied" in message or "is a directory" in message:
        return 126
    return 125


def error_of(status: int, message: str) -> errors.SampanError:
    """The error of a stream of ours that ended in one."""
    return _BY_STATUS.get(status, errors.Internal)(message)


def error_for(call: Call, status: int, message: str) -> Exception:
    """The error to raise for an answer of status 400 or more."""
    if call.subject in ("start", "exec") and status in (400, 500):
        return errors.StartFailed(message, start_code(message))
    chosen = _BY_SUBJECT.get((call.subject, status)) or _BY_STATUS.get(status, errors.Internal)
    return chosen(message)
