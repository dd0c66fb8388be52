"""What a daemon says that is in no swarm and has no plugins.

Clients ask for these things without being told to (`docker inspect X` tries a plugin last, compose
looks whether there is a swarm), and decide by the status. Nothing of it changes anything here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.api.docker import answers
from sampan.errors import InvalidArgument, NotFound, NotImplementedHere, Unavailable

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call

_NOUNS = ("nodes", "services", "secrets", "configs", "tasks")
_OF_MANAGERS = (
    ("GET", "/swarm"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/update"),
    ("POST", "/services/create"),
    ("POST", "/secrets/create"),
    ("POST", "/configs/create"),
)


async def no_manager(_: Call) -> StreamResponse:
    """What only a manager of a swarm can answer."""
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
        "connect this node to swarm and try again."
    )


async def no_member(_: Call) -> StreamResponse:
    """POST /swarm/leave, unlock"""
    raise Unavailable("This node is not part of a swarm")


async def no_swarm(_: Call) -> StreamResponse:
    """POST /swarm/init and join: this engine is one node and stays one."""
    raise NotImplementedHere("swarm mode is not supported: this engine manages one node")


async def plugins(_: Call) -> StreamResponse:
    """GET /plugins"""
    return answers.json([])


async def no_plugin(call: Call) -> StreamResponse:
    """GET, DELETE and POST /plugins/{name}/..."""
    raise NotFound(f'plugin "{call.name}" not found')


async def no_plugins(_: Call) -> StreamResponse:
    """POST /plugins/pull and create"""
    raise NotImplementedHere("plugins are not supported")


async def privileges(call: Call) -> StreamResponse:
    """GET /plugins/privileges?remote"""
    if not call.text("remote"):
        raise InvalidArgument("bad parameter: remote is needed")
    return await no_plugins(call)


PATHS = {
    ("GET", "/plugins"): plugins,
    ("GET", "/plugins/privileges"): privileges,
    ("POST", "/plugins/pull"): no_plugins,
    ("POST", "/plugins/create"): no_plugins,
    ("POST", "/swarm/init"): no_swarm,
    ("POST", "/swarm/join"): no_swarm,
    ("POST", "/swarm/leave"): no_member,
    ("POST", "/swarm/unlock"): no_manager,
    **dict.fromkeys((("GET", f"/{noun}") for noun in _NOUNS), no_manager),
    **dict.fromkeys(_OF_MANAGERS, no_manager),
}
NAMED = {
    ("GET", "plugins", "json"): no_plugin,
    ("DELETE", "plugins", ""): no_plugin,
    **{
        ("POST", "plugins", verb): no_plugin
        for verb in ("enable", "disable", "upgrade", "push", "set")
    },
    ("PUT", "volumes", ""): no_manager,  # a volume of a cluster
    **{
        (method, noun, verb): no_manager
        for noun in _NOUNS
        for method, verb in (("GET", ""), ("DELETE", ""), ("POST", "update"), ("GET", "logs"))
    },
}
