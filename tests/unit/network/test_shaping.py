"""Rates and bursts in tc's words."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.network.shaping import Rates, parse


def test_rates():
    assert parse({}) == Rates()
    assert parse({"sampan.rate-in": "10mbit"}) == Rates(1_250_000, 25_000, 0, 0)
    found = parse({"sampan.rate-out": "1.5Gbit", "sampan.burst-out": "1m"})
    assert found == Rates(0, 0, 187_500_000, 1 << 20)
    assert parse({"sampan.rate-in": "8kbit"}).burst_in == 16 << 10


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sampan.rate-in": "10"}, "invalid rate '10'"),
        ({"sampan.rate-in": "0mbit"}, "invalid rate"),
        ({"sampan.rate-in": "-1mbit"}, "invalid rate"),
        ({"sampan.rate-in": "10mbit", "sampan.burst-in": "1k"}, "invalid burst '1k'"),
        ({"sampan.rate-in": "10mbit", "sampan.burst-in": "9000m"}, "invalid burst"),
        ({"sampan.burst-out": "64k"}, "without sampan.rate-out"),
    ],
)
def test_what_is_refused(options, sentence):
    with pytest.raises(InvalidArgument, match=sentence):
        parse(options)
