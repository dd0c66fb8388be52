"""Networks and endpoints as the store keeps them: versioned JSON, as containers are."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from sampan.errors import DataLoss, FailedPrecondition
from sampan.network.model import Endpoint, Network  # noqa: TC001 - msgspec resolves them
from sampan.store.networks import EndpointRow, NetworkRow

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

VERSION = 1


class _Network(msgspec.Struct):
    v: int
    network: Network


class _Endpoint(msgspec.Struct):
    v: int
    endpoint: Endpoint


_encode = msgspec.json.Encoder().encode
_decode_network = msgspec.json.Decoder(_Network).decode
_decode_endpoint = msgspec.json.Decoder(_Endpoint).decode
_decode_version = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def network_row(network: Network) -> NetworkRow:
    """The row of a network."""
    record = _encode(_Network(VERSION, network)).decode()
    return NetworkRow(network.id, network.name, record, network.created_at)


def endpoint_row(endpoint: Endpoint) -> EndpointRow:
    """The row of an endpoint."""
    record = _encode(_Endpoint(VERSION, endpoint)).decode()
    return EndpointRow(
        endpoint.network, endpoint.owner, endpoint.ipv4 or None, endpoint.ipv6 or None, record
    )


def network(row: NetworkRow) -> Network:
    """The network of a row. Raises FailedPrecondition or DataLoss."""
    return _read(row.record, f"network {row.id}", _decode_network).network


def endpoint(row: EndpointRow) -> Endpoint:
    """The endpoint of a row. Raises FailedPrecondition or DataLoss."""
    return _read(row.record, f"endpoint of {row.owner}", _decode_endpoint).endpoint


def _read(record: str, what: str, decode: Callable[[str], T]) -> T:
    try:
        version = msgspec.json.decode(_decode_version(record)["v"], type=int)
        if version > VERSION:
            raise FailedPrecondition(f"read {what}: its record has version {version}")
        return decode(record)
    except (KeyError, msgspec.MsgspecError) as error:
        raise DataLoss(f"read {what}: {error}") from error
