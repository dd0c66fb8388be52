"""Moments on the wire."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def moment(nanoseconds: int) -> Timestamp:
    """Nanoseconds since 1970 as a timestamp."""
    made = Timestamp()
    made.FromNanoseconds(nanoseconds)
    return made
