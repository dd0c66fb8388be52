"""The operations of networks, as `calls` has those of everything else."""

from __future__ import annotations

from sampan.client.calls import Call, filters_text, quote
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def create(body: dict[str, Any]) -> Call:
    return Call("POST", "/networks/create", body=body)


def pools(
    subnets: Sequence[str],
    gateways: Sequence[str] = (),
    ranges: Sequence[str] = (),
    reserved: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The subnets as the API has them, each with the gateway, the range and the reserved addresses
    that lie in it.

    Raises:
        ValueError: one lies in none of them, or is no address.
    """
    from ipaddress import ip_address, ip_network

    found: dict[str, dict[str, Any]] = {text: {"Subnet": text} for text in subnets}

    def home(text: str, what: str) -> dict[str, Any]:
        try:
            wanted = ip_address(text.partition("/")[0])
            fitting = [
                pool for subnet, pool in found.items() if wanted in ip_network(subnet, strict=False)
            ]
        except ValueError as error:
            raise ValueError(f"invalid {what} {text}: {error}") from error
        if not fitting:
            raise ValueError(f"no matching subnet for {what} {text}")
        return fitting[0]

    for text in gateways:
        home(text, "gateway")["Gateway"] = text
    for text in ranges:
        home(text, "range")["IPRange"] = text
    for name, address in (reserved or {}).items():
        home(address, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = address
    return list(found.values())


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


def check(name: str) -> Call:
    return Call("GET", _network(name) + "/check")


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
