"""Times and sentences about time, in the words that dockerd uses.

The engine counts nanoseconds since the epoch, 0 for never; the wire has RFC 3339 with as many
digits as are needed, and the zero year for never. `docker ps` prints the sentence that the daemon
made, so these strings are part of the interface.
"""

from __future__ import annotations

import time
from calendar import timegm
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sampan.engine.model import Status
from sampan.errors import InvalidArgument
from sampan.wire.docker import NO_TIME

if TYPE_CHECKING:
    from sampan.engine.model import State

SECOND = 1_000_000_000
_MONTH = 30
_YEAR = 365


def rfc3339(time_ns: int) -> str:
    """The time in UTC, with up to nine digits of a second; the zero year for 0."""
    if not time_ns:
        return NO_TIME
    seconds, nanos = divmod(time_ns, SECOND)
    t = time.gmtime(seconds)
    whole = (
        f"{t.tm_year:04}-{t.tm_mon:02}-{t.tm_mday:02}T{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
    )
    return f"{whole}.{nanos:09}".rstrip("0") + "Z" if nanos else whole + "Z"


def log_time(time_ns: int) -> str:
    """The time in UTC with exactly nine digits, as in front of a log line."""
    whole = rfc3339(time_ns - time_ns % SECOND) if time_ns >= SECOND else "1970-01-01T00:00:00Z"
    return f"{whole[:-1]}.{time_ns % SECOND:09}Z"


def unix_seconds(text: str | None) -> int:
    """An image's RFC 3339 `created` as seconds since the epoch; 0 when it is not one."""
    try:
        return int(datetime.fromisoformat(text or "").timestamp())
    except (ValueError, OverflowError):
        return 0


_MAX_MOMENT = 64


def parse_moment(text: str, now_ns: int) -> int:
    """`since` and `until`: seconds[.fraction] since the epoch, RFC 3339, or an age like 10m.

    Raises:
        InvalidArgument: it is none of these.
    """
    if len(text) > _MAX_MOMENT:
        raise InvalidArgument(f"invalid time {text[:_MAX_MOMENT]!r}...: it is too long")
    moment = _parse(text, now_ns)
    if abs(moment) >= 1 << 63:
        raise InvalidArgument(f"invalid time {text!r}: it is out of range")
    return moment


def _parse(text: str, now_ns: int) -> int:
    whole, _, fraction = text.partition(".")
    if whole.isdigit() and (fraction.isdigit() or not fraction):
        return int(whole) * SECOND + int((fraction + "0" * 9)[:9])
    if text[-1:] in "smh" and text[0].isdigit():
        return now_ns - _age(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"invalid time {text!r}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return timegm(moment.utctimetuple()) * SECOND + moment.microsecond * 1000


def _age(text: str) -> int:
    """A Go duration of hours, minutes and seconds, in nanoseconds."""
    total, number = 0.0, ""
    for letter in text:
        if letter.isdigit() or letter == ".":
            number += letter
            continue
        unit = {"h": 3600, "m": 60, "s": 1}.get(letter)
        if unit is None or not number or number.count(".") > 1:
            raise InvalidArgument(f"invalid time {text!r}")
        total += float(number) * unit
        number = ""
    return int(total * SECOND)


def duration(span_ns: int) -> str:
    """A span for people: "Less than a second", "12 seconds", "About an hour", "2 weeks"."""
    seconds = span_ns // SECOND
    minutes = seconds // 60
    hours = int(seconds / 3600 + 0.5)
    if seconds < 60:
        return _counted(seconds, "second", "Less than a second", "1 second")
    if minutes < 60:
        return _counted(minutes, "minute", "", "About a minute")
    if hours < 48:
        return _counted(hours, "hour", "", "About an hour")
    return _days(hours // 24, seconds // 86400)


def _counted(count: int, unit: str, none: str, one: str) -> str:
    return (none, one)[count] if count < 2 else f"{count} {unit}s"


def _days(days: int, whole_days: int) -> str:
    if days < 14:
        return f"{days} days"
    if days < 2 * _MONTH:
        return f"{days // 7} weeks"
    if days < 2 * _YEAR:
        return f"{days // _MONTH} months"
    return f"{whole_days // _YEAR} years"


def _health(state: State) -> str:
    if state.health is None:
        return ""
    word = state.health.status.value
    return " (health: starting)" if word == "starting" else f" ({word})"


def status(state: State, now_ns: int) -> str:
    """The sentence in the STATUS column of `docker ps`."""
    match state.status:
        case Status.CREATED:
            return "Created"
        case Status.RUNNING:
            return f"Up {duration(max(0, now_ns - state.started_at))}{_health(state)}"
        case Status.PAUSED:
            return f"Up {duration(max(0, now_ns - state.started_at))} (Paused)"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.RESTARTING | Status.EXITED:
            word = "Exited" if state.status is Status.EXITED else "Restarting"
            if not state.finished_at:
                return "Created" if not state.started_at else ""
            return f"{word} ({state.exit_code}) {duration(max(0, now_ns - state.finished_at))} ago"
