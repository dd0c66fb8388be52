"""Extensions of ours about running containers: their ports, and what they may reach.

POST /containers/{id}/ports and /containers/{id}/egress, GET /ports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sampan.api.docker import answers, endpoints
from sampan.network.model import EVERY4, EVERY6
from sampan.wire import networks as wire

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from sampan.api.docker.call import Call

_decode_change = msgspec.json.Decoder(wire.PortsChange)
_decode_egress = msgspec.json.Decoder(wire.EgressChange)


async def change(call: Call) -> StreamResponse:
    """POST /containers/{id}/ports"""
    body = await call.json(_decode_change) or wire.PortsChange()
    add, drop = endpoints.bindings(body.add), endpoints.bindings(body.remove)
    await call.engine.publish(call.name, add, drop)
    return answers.empty(200)


async def restrict(call: Call) -> StreamResponse:
    """POST /containers/{id}/egress"""
    body = await call.json(_decode_egress) or wire.EgressChange()
    await call.engine.restrict(call.name, body.allow)
    return answers.empty(200)


async def listing(call: Call) -> StreamResponse:
    """GET /ports: every published port, who can reach it, and what the host's firewall says."""
    firewall = await call.engine.networks.host_firewall()
    found = []
    for container in call.engine.list():
        for one in call.engine.networks.published(container.id):
            everyone = one.host in (EVERY4, EVERY6)
            blocked = firewall.blocks(one.protocol, one.host_port) and not _is_loopback(one.host)
            if call.engine.networks.is_carried(container.id, one):
                warning = _carried(firewall.inputs if blocked else ())
            else:
                warning = _warning(firewall.inputs if blocked else (), firewall.forwards)
            found.append(
                wire.OpenPort(
                    container=container.name,
                    port=one.port,
                    protocol=one.protocol,
                    host_ip=one.host,
                    host_port=one.host_port,
                    reach="everyone" if everyone else _reach(one.host),
                    warning=warning,
                )
            )
    return answers.json(found)


def _reach(host: str) -> str:
    return "this host" if _is_loopback(host) else f"whoever reaches {host}"


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def _warning(inputs: tuple[str, ...], forwards: tuple[str, ...]) -> str:
    if forwards:
        return f"the host's firewall may drop it: chain {forwards[0]} drops what is forwarded"
    if inputs:
        return f"open although the host's firewall closes it: chain {inputs[0]} lets it not in"
    return ""


def _carried(inputs: tuple[str, ...]) -> str:
    if inputs:
        return f"the host's firewall closes it: chain {inputs[0]} lets it not in"
    return "carried by the engine to its IPv4 address: it sees the host's address, not the client's"


PATHS = {("GET", "/ports"): listing}
NAMED = {
    ("POST", "containers", "egress"): restrict,
    ("POST", "containers", "ports"): change,
}
