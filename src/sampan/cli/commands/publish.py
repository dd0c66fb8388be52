"""`publish`, `unpublish`, `ports`: published ports; `egress`: what a container may reach."""

from __future__ import annotations

from sampan.cli import networking
from sampan.cli.flags import FlagError
from sampan.cli.session import Command, Session
from sampan.cli.tables import TABLE_FORMAT, show
from sampan.client import network_calls, ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

HEADERS = {
    "Address": "PUBLISHED ON",
    "Container": "CONTAINER",
    "Port": "PORT",
    "Reach": "REACHED BY",
    "Warning": "WARNING",
}


def _bindings(words: list[str]) -> ports.Bindings:
    try:
        return ports.publish(words)[1]
    except ValueError as error:
        raise FlagError(str(error)) from error


def publish(session: Session, _: Values, words: list[str]) -> int:
    session.call(network_calls.change_ports(words[0], {"Add": _bindings(words[1:])}))
    return 0


def unpublish(session: Session, _: Values, words: list[str]) -> int:
    session.call(network_calls.change_ports(words[0], {"Remove": _bindings(words[1:])}))
    return 0


def egress(session: Session, _: Values, words: list[str]) -> int:
    session.call(network_calls.change_egress(words[0], networking.egress_rules(words[1:])))
    return 0


def listing(session: Session, flags: Values, _: list[str]) -> int:
    rows = [
        {
            "Address": _address(one["HostIp"], one["HostPort"]),
            "Container": one["Container"],
            "Port": f"{one['Port']}/{one['Protocol']}",
            "Reach": one["Reach"],
            "Warning": one["Warning"],
        }
        for one in session.call(network_calls.ports())
    ]
    show(session, rows, "Container Port Address Reach Warning", HEADERS, flags.text("format"))
    return 0


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


PUBLISH = Command(
    publish,
    "CONTAINER [ADDRESS:][HOST_PORT:]PORT[/PROTO] [PORT...]",
    "Publish ports of a container, also while it runs",
    "",
    least=2,
)
UNPUBLISH = Command(
    unpublish,
    "CONTAINER [ADDRESS:][HOST_PORT:]PORT[/PROTO] [PORT...]",
    "Withdraw published ports of a container, also while it runs",
    "",
    least=2,
)
EGRESS = Command(
    egress,
    "CONTAINER all|none|RULE [RULE...]",
    "Change what a container may reach, also while it runs",
    "",
    least=2,
)
PORTS = Command(
    listing,
    "[OPTIONS]",
    "List every published port and who can reach it",
    TABLE_FORMAT,
    most=0,
)
