"""How fast a layer comes: what people and programs are told."""

from __future__ import annotations

from sampan.images.progress import Meter


def steps(*counts):
    """What a meter reports for (moment, bytes done)."""
    said, moments = [], iter([moment for moment, _ in counts])
    meter = Meter(said.append, "abc", "Downloading", 10_000_000, lambda: next(moments))
    for _, done in counts:
        meter(done)
    return said


def test_the_rate_follows_what_comes():
    said = steps((0.0, 5_000_000), (0.5, 5_500_000), (1.0, 6_000_000), (10.0, 6_000_000))
    # What was there before is no speed; a steady stream is told as it is; one that stops, as that.
    assert [step.rate for step in said] == [0, 1_000_000, 1_000_000, 0]
    assert [step.current for step in said] == [5_000_000, 5_500_000, 6_000_000, 6_000_000]


def test_not_more_often_than_anybody_reads():
    said = steps(*[(n / 1000, n) for n in range(101)])
    assert len(said) == 3


def test_a_burst_counts_less_than_the_last_second():
    said = steps((0.0, 0), (1.0, 1_000_000), (1.1, 2_000_000))
    assert 1_000_000 < said[-1].rate < 3_000_000
