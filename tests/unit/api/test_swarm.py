"""A daemon in no swarm and without plugins: the answers by which clients tell."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/swarm", 503, "This node is not a swarm manager"),
        ("GET", "/v1.50/services?status=true", 503, "This node is not a swarm manager"),
        ("GET", "/secrets/x", 503, "This node is not a swarm manager"),
        ("POST", "/nodes/x/update", 503, "This node is not a swarm manager"),
        ("POST", "/swarm/leave", 503, "not part of a swarm"),
        ("POST", "/swarm/init", 501, "swarm mode is not supported"),
        ("GET", "/plugins/x/json", 404, 'plugin "x" not found'),
        ("POST", "/plugins/pull", 501, "plugins are not supported"),
        ("GET", "/plugins/privileges", 400, "remote is needed"),
        ("POST", "/session", 501, "DOCKER_BUILDKIT=0"),
        ("POST", "/v1.50/grpc", 501, "DOCKER_BUILDKIT=0"),
        ("GET", "/nosuch", 404, "page not found"),
    ],
)
def test_refusals(scenario, method, path, status, words):
    async def play(client):
        answer = await client.ask(method, path)
        assert answer.status == status
        assert words in answer.json["message"]

    scenario(play)


def test_what_is_empty(scenario):
    async def play(client):
        answer = await client.ask("GET", "/plugins")
        assert (answer.status, answer.json) == (200, [])

    scenario(play)
