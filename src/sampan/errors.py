"""The one error tree of Sampan, and what each class means at the edges.

The classes carry the names that containerd's errdefs made common in this field. A function raises
the class whose meaning fits; an edge (HTTP, gRPC, command line) looks its answer up here. Messages
are lower case, without a period, and say what was tried, on what, and why it failed. Nothing is
decided by message text. The kernel side raises OSError instead; it is wrapped once, where meaning
is added.

This module imports nothing, so that every process may have it.
"""

from __future__ import annotations


class SampanError(Exception):
    """Base of every error that Sampan raises on purpose. `http` and `grpc` are the edge codes."""

    http = 500
    grpc = "INTERNAL"
    exit_code = 125


class InvalidArgument(SampanError):
    """The input is wrong whatever the state of the system is."""

    http = 400
    grpc = "INVALID_ARGUMENT"


class NotFound(SampanError):
    """The named thing does not exist."""

    http = 404
    grpc = "NOT_FOUND"


class ImageNotFound(NotFound):
    """No such image, locally or in the registry that was asked."""


class ContainerNotFound(NotFound):
    """No such container."""


class AlreadyExists(SampanError):
    """The thing to make is there already."""

    http = 409
    grpc = "ALREADY_EXISTS"


class NameInUse(AlreadyExists):
    """Another container has the name."""


class Conflict(SampanError):
    """The thing is in the wrong state, or in use."""

    http = 409
    grpc = "FAILED_PRECONDITION"


class FailedPrecondition(SampanError):
    """The input contradicts what it was announced to be."""

    http = 400
    grpc = "FAILED_PRECONDITION"


class OutOfRange(SampanError):
    """An offset or a size lies outside of what exists."""

    http = 400
    grpc = "OUT_OF_RANGE"


class NotModified(SampanError):
    """The thing already is as asked: started, stopped."""

    http = 304
    grpc = "FAILED_PRECONDITION"
    exit_code = 0


class Unauthenticated(SampanError):
    """Credentials are missing or wrong."""

    http = 401
    grpc = "UNAUTHENTICATED"


class PermissionDenied(SampanError):
    """The caller is known and may not."""

    http = 403
    grpc = "PERMISSION_DENIED"


class Unavailable(SampanError):
    """A peer is not there now; the same call may succeed later."""

    http = 503
    grpc = "UNAVAILABLE"


class DeadlineExceeded(SampanError):
    """The time given was not enough."""

    grpc = "DEADLINE_EXCEEDED"


class Aborted(SampanError):
    """The operation was given up, by a crash or a cancel, and undone."""

    grpc = "ABORTED"


class ResourceExhausted(SampanError):
    """Disk, pids, addresses or a bound of ours are used up."""

    grpc = "RESOURCE_EXHAUSTED"


class NotImplementedHere(SampanError):
    """Sampan does not do this, and says so."""

    http = 501
    grpc = "UNIMPLEMENTED"


class DataLoss(SampanError):
    """Bytes are not what their digest or size promised."""

    grpc = "DATA_LOSS"


class DigestMismatch(DataLoss):
    """Content does not hash to the digest that named it."""


class Internal(SampanError):
    """A defect of ours."""


class StartFailed(SampanError):
    """A container or exec process could not be started.

    `exit_code` follows the shell's words: 127 the command was not found, 126 it could not be
    executed, 125 anything else. Docker's API answers 400 for the first two and 500 otherwise.
    """

    grpc = "FAILED_PRECONDITION"

    def __init__(self, message: str, exit_code: int = 125) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.http = 400 if exit_code in (126, 127) else 500
