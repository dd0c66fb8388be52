"""The socket of a gRPC interface before anybody comes."""

from __future__ import annotations

import asyncio
import os

import grpc
import grpc.aio
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


class Server:
    """gRPC's own, with one method."""

    async def start(self, path):
        async def echo(request, _context):
            return request

        method = grpc.unary_unary_rpc_method_handler(echo)
        self.server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler("test.Echo", {"Say": method})
        self.server.add_generic_rpc_handlers([handler])
        self.server.add_insecure_port(f"unix:{path}")
        await self.server.start()

    async def aclose(self):
        await self.server.stop(0)


def test_who_came_before_the_server_is_answered_and_comes_to_it_with_the_next_call(tmp_path):
    path = f"{tmp_path}/s"

    async def main():
        one = GrpcSocket(Server, "the interface", path)
        one.open()
        async with asyncio.timeout(30), grpc.aio.insecure_channel(f"unix:{path}") as channel:
            say = channel.unary_unary("/test.Echo/Say")
            assert await say(b"first") == b"first"
            assert await say(b"second") == b"second"
            # What was passed on has an end, while the client stays.
            await asyncio.gather(*one._tasks)
            assert await say(b"third") == b"third"
        await one.aclose()

    asyncio.run(main())
