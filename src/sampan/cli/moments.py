"""Moments as `--since` and `--until` take them: unix seconds, RFC 3339, or a duration ago."""

from __future__ import annotations

import time

from sampan.cli.session import Failed
from sampan.cli.units import parse_duration


def parse_moment(text: str) -> str:
    """`text` as unix seconds with nanoseconds, the form of the API.

    Raises:
        Failed: it is neither a time nor a duration.
    """
    if not text or text.replace(".", "", 1).isdigit():
        return text
    try:
        return _seconds(time.time_ns() - parse_duration(text))
    except ValueError:
        pass
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Failed(f'failed to parse value as time or duration: "{text}"') from None
    if moment.tzinfo is None:
        moment = moment.astimezone()
    whole = int((moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    fraction = text.partition(".")[2]
    digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
    return f"{whole}.{digits[:9].ljust(9, '0')}" if digits else str(whole)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"
