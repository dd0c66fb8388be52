"""Times and sentences about time, as dockerd writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.docker import ages
from sampan.engine.model import State, Status
from sampan.errors import InvalidArgument

S = ages.SECOND
HOUR = 3600 * S
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (0, "Less than a second"),
        (S - 1, "Less than a second"),
        (S, "1 second"),
        (59 * S, "59 seconds"),
        (60 * S, "About a minute"),
        (119 * S, "About a minute"),
        (120 * S, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (HOUR + 1799 * S, "About an hour"),
        (HOUR + 1800 * S, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_durations(span, words):
    assert ages.duration(span) == words


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (State(), "Created"),
        (State(status=Status.RUNNING, started_at=1000 * S), "Up 12 seconds"),
        (State(status=Status.PAUSED, started_at=1000 * S), "Up 12 seconds (Paused)"),
        (
            State(status=Status.EXITED, exit_code=1, started_at=1, finished_at=1009 * S),
            "Exited (1) 3 seconds ago",
        ),
        (
            State(status=Status.RESTARTING, exit_code=3, started_at=1, finished_at=1011 * S),
            "Restarting (3) 1 second ago",
        ),
        (State(status=Status.EXITED, exit_code=127), "Created"),
        (State(status=Status.REMOVING), "Removal In Progress"),
        (State(status=Status.DEAD), "Dead"),
    ],
)
def test_the_status_column(state, sentence):
    assert ages.status(state, 1012 * S) == sentence


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1795404802515408573, "2026-11-23T03:33:22.515408573Z"),
        (1795404802500000000, "2026-11-23T03:33:22.5Z"),
        (1795404802000000000, "2026-11-23T03:33:22Z"),
    ],
)
def test_rfc3339(moment, text):
    assert ages.rfc3339(moment) == text


def test_log_times_have_nine_digits():
    assert ages.log_time(1795404802500000000) == "2026-11-23T03:33:22.500000000Z"


@given(st.integers(min_value=1, max_value=2**62))
def test_times_are_read_as_they_are_written(moment):
    read = ages.parse_moment(ages.rfc3339(moment), 0)
    assert read // 1000 == moment // 1000  # as far as Python's datetime goes: microseconds
    assert ages.parse_moment(f"{moment // S}.{moment % S:09}", 0) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("5", 5 * S),
        ("5.5", 5 * S + S // 2),
        ("10m", 400 * S),
        ("1m30s", 910 * S),
        ("1.5s", 998500000000),
        ("1970-01-01T00:00:05+00:00", 5 * S),
        ("1970-01-01T01:00:05+01:00", 5 * S),
        ("1970-01-01T00:00:05", 5 * S),
    ],
)
def test_moments(text, moment):
    assert ages.parse_moment(text, 1000 * S) == moment


@pytest.mark.parametrize("text", ["x", "-5", "5x", "1..5s", "m", "s", "5.x", "5m5", "yesterday"])
def test_wrong_moments(text):
    with pytest.raises(InvalidArgument, match="invalid time"):
        ages.parse_moment(text, 10**18)


def test_an_images_time():
    assert ages.unix_seconds("2026-11-23T03:23:15.253333142Z") == 1795404195
    assert ages.unix_seconds("") == ages.unix_seconds("soon") == ages.unix_seconds(None) == 0
