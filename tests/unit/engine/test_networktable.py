"""What a name or an id of a network means."""

from __future__ import annotations

import pytest

from sampan.engine.networks import Registry
from sampan.errors import InvalidArgument, NotFound
from sampan.network.model import Network


def test_an_id_goes_before_a_name_and_a_name_before_the_beginning_of_an_id():
    first = Network(id="a1" * 32, name="one", created_at=1)
    called = Network(id="b1" * 32, name="a1" * 32, created_at=2)
    short = Network(id="b2" * 32, name="a1a1", created_at=3)
    registry = Registry()
    for network in (called, short, first):
        registry.enter(network)
    assert registry.find("a1" * 32).network is first
    assert registry.find("a1a1").network is short
    assert registry.find("a1a").network is first
    with pytest.raises(InvalidArgument, match="ambiguous"):
        registry.find("b")
    with pytest.raises(NotFound):
        registry.find("c")
