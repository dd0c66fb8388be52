"""The operations of networks, as `calls` has those of everything else."""

from __future__ import annotations

from sampan.client.calls import Call, filters_text, quote
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def create(body: dict[str, Any]) -> Call:
    return Call("POST", "/networks/create", body=body)


def listing(filters: dict[str, list[str]] | None = None) -> Call:
    return Call("GET", "/networks", {"filters": filters_text(filters)})


def _network(name: str) -> str:
    if not name.strip("./"):
        raise InvalidArgument(f"invalid network name: {name or 'value is empty'}")
    return f"/networks/{quote(name)}"


def inspect(name: str) -> Call:
    return Call("GET", _network(name))


def remove(name: str) -> Call:
    return Call("DELETE", _network(name))


def connect(name: str, body: dict[str, Any]) -> Call:
    return Call("POST", _network(name) + "/connect", body=body)


def disconnect(name: str, body: dict[str, Any]) -> Call:
    return Call("POST", _network(name) + "/disconnect", body=body)


def _container(ref: str, verb: str, body: dict[str, Any]) -> Call:
    if not ref.strip("./"):
        raise InvalidArgument(f"invalid container name: {ref or 'value is empty'}")
    return Call("POST", f"/containers/{quote(ref)}/{verb}", body=body, subject="container")


def change_ports(ref: str, body: dict[str, Any]) -> Call:
    return _container(ref, "ports", body)


def change_egress(ref: str, rules: list[str] | None) -> Call:
    return _container(ref, "egress", {"Allow": rules})


def ports() -> Call:
    return Call("GET", "/ports")


def prune(filters: dict[str, list[str]] | None = None) -> Call:
    return Call("POST", "/networks/prune", {"filters": filters_text(filters)})
