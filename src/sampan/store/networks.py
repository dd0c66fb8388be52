"""Rows of networks, of who is in them, and of published ports.

What must not be given twice (an address in a network, a port of the host) is unique here, so that a
defect above becomes an error and not two owners. `record` is JSON text of the engine with a
version. Functions take a connection, to be composed in one `Database.write`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import AlreadyExists, Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.store.database import Connection


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One network."""

    id: str
    name: str
    record: str
    created_ns: int


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """Somebody in a network; an address is None where there is none."""

    network: str
    owner: str
    ipv4: str | None
    ipv6: str | None
    record: str


@dataclass(frozen=True, slots=True)
class PortRow:
    """A published port."""

    protocol: str
    host: str
    host_port: int
    owner: str
    port: int


def insert(conn: Connection, row: NetworkRow) -> None:
    """Add a network.

    Raises:
        AlreadyExists: another one has the name.
    """
    try:
        conn.execute(
            "INSERT INTO networks (id, name, record, created_ns) VALUES (?, ?, ?, ?)",
            (row.id, row.name, row.record, row.created_ns),
        )
    except sqlite3.IntegrityError as error:
        raise AlreadyExists(f"network with name {row.name} already exists") from error


def replace(conn: Connection, row: NetworkRow) -> None:
    """Write what has become of a network."""
    conn.execute("UPDATE networks SET record = ? WHERE id = ?", (row.record, row.id))


def delete(conn: Connection, network_id: str) -> None:
    """Remove a network; it may be gone.

    Raises:
        Conflict: somebody is in it.
    """
    try:
        conn.execute("DELETE FROM networks WHERE id = ?", (network_id,))
    except sqlite3.IntegrityError as error:
        raise Conflict(f"network {network_id} has active endpoints") from error


def list(conn: Connection) -> tuple[NetworkRow, ...]:  # noqa: A001 - the field's word
    """All networks, oldest first."""
    rows = conn.execute("SELECT id, name, record, created_ns FROM networks ORDER BY created_ns, id")
    return tuple(NetworkRow(*row) for row in rows)


def join(conn: Connection, endpoints: Iterable[EndpointRow], ports: Iterable[PortRow]) -> None:
    """Record who is in which network, and which ports are published.

    Raises:
        Conflict: an address or a port has an owner.
    """
    try:
        conn.executemany(
            "INSERT INTO endpoints (network, owner, ipv4, ipv6, record) VALUES (?, ?, ?, ?, ?)",
            [(one.network, one.owner, one.ipv4, one.ipv6, one.record) for one in endpoints],
        )
        conn.executemany(
            "INSERT INTO ports (protocol, host, host_port, owner, port) VALUES (?, ?, ?, ?, ?)",
            [(one.protocol, one.host, one.host_port, one.owner, one.port) for one in ports],
        )
    except sqlite3.IntegrityError as error:
        raise Conflict(f"join a network: an address or a port is in use: {error}") from error


def refresh(conn: Connection, endpoint: EndpointRow) -> None:
    """Replace what is known of somebody in a network.

    Raises:
        Conflict: an address has an owner.
    """
    try:
        conn.execute(
            "UPDATE endpoints SET ipv4 = ?, ipv6 = ?, record = ? WHERE network = ? AND owner = ?",
            (endpoint.ipv4, endpoint.ipv6, endpoint.record, endpoint.network, endpoint.owner),
        )
    except sqlite3.IntegrityError as error:
        raise Conflict(f"join a network: an address is in use: {error}") from error


def leave(conn: Connection, owner: str, network_id: str | None = None) -> None:
    """Forget an owner's place in one network, or in all and its ports with them."""
    if network_id is not None:
        conn.execute(
            "DELETE FROM endpoints WHERE owner = ? AND network = ?", (owner, network_id)
        )  # fmt: skip
        return
    conn.execute("DELETE FROM endpoints WHERE owner = ?", (owner,))
    conn.execute("DELETE FROM ports WHERE owner = ?", (owner,))


def withdraw(conn: Connection, ports: Iterable[PortRow]) -> None:
    """Forget published ports; they may be gone."""
    conn.executemany(
        "DELETE FROM ports WHERE protocol = ? AND host = ? AND host_port = ? AND owner = ?",
        [(one.protocol, one.host, one.host_port, one.owner) for one in ports],
    )


def endpoints(conn: Connection) -> tuple[EndpointRow, ...]:
    """Everybody in every network."""
    rows = conn.execute("SELECT network, owner, ipv4, ipv6, record FROM endpoints")
    return tuple(EndpointRow(*row) for row in rows)


def ports(conn: Connection) -> tuple[PortRow, ...]:
    """Every published port."""
    rows = conn.execute("SELECT protocol, host, host_port, owner, port FROM ports")
    return tuple(PortRow(*row) for row in rows)
