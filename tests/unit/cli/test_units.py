"""Sizes, durations and ages read as docker's."""

from __future__ import annotations

import pytest

from sampan.cli.units import (
    age,
    binary_size,
    decimal_size,
    parse_cpus,
    parse_duration,
    stdcopy_time,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (3 * 3600, "3 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (3 * 365 * 86400, "3 years"),
    ],
)
def test_age(seconds, text):
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1984482, "1.984MB"), (36445, "36.45kB"), (5 * 10**9, "5GB")],
)
def test_decimal_size(size, text):
    assert decimal_size(size) == text


def test_binary_size():
    assert binary_size(811008) == "792KiB"
    assert binary_size(25276502016) == "23.54GiB"


@pytest.mark.parametrize(
    ("text", "value"), [("1", 10**9), (".5", 5 * 10**8), ("1.25", 1_250_000_000), ("-1", -(10**9))]
)
def test_cpus(text, value):
    assert parse_cpus(text) == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("-2s", -2), ("0", 0), ("3us", 3e-6)],
)
def test_duration(text, seconds):
    assert parse_duration(text) == int(seconds * 10**9)


@pytest.mark.parametrize("text", ["", "5", "x", "1d", "s", "1..5s", "1m30"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError):
        parse_duration(text)


def test_moment_of_an_event(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert stdcopy_time(1795404839, 96046416) == "2026-11-23T03:33:59.096046416Z"
