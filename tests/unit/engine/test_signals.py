from __future__ import annotations

import pytest

from sampan.engine import signals
from sampan.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("15", 15),
        ("KILL", 9),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        ("64", 64),
        ("CLD", 17),
    ],
)
def test_names_and_numbers(text, number):
    assert signals.parse(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-1", "+9", "9 ", "\uff19", "SIGSIG", "RTMIN+40", "RTMIN-1", "SIG", "1_0"],
)
def test_what_is_no_signal(text):
    with pytest.raises(InvalidArgument):
        signals.parse(text)
