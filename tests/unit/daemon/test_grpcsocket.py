"""The socket of a gRPC interface before anybody comes."""

from __future__ import annotations

import asyncio
import os

import pytest

from sampan.daemon.grpcsocket import LONGEST, GrpcSocket


def never():
    pytest.fail("nobody came")


@pytest.mark.parametrize("more", [0, 1])
def test_a_path_that_is_too_long_costs_the_interface_and_not_the_daemon(tmp_path, caplog, more):
    place = tmp_path / "d"
    name = "s" * (LONGEST - len(str(place)) - 1 + more)
    place.mkdir()

    async def main():
        one = GrpcSocket(never, "the interface", f"{place}/{name}")
        one.open()
        assert os.listdir(place) == ([] if more else [name])
        await one.aclose()

    asyncio.run(main())
    assert ("is too long for a socket" in caplog.text) == bool(more)
    assert os.listdir(place) == []
