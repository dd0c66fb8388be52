"""`sampan network`: check, connect, create, disconnect, inspect, ls, prune, rm."""

from __future__ import annotations

from sampan.cli import networking
from sampan.cli.commands.inspect import FORMAT, print_documents
from sampan.cli.commands.usage import confirmed, print_deleted
from sampan.cli.session import Command, Failed, Refused, Session
from sampan.cli.tables import TABLE_FORMAT, parse_filters, show
from sampan.client import network_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

HEADERS = {
    "CreatedAt": "CREATED AT",
    "Driver": "DRIVER",
    "ID": "NETWORK ID",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "Name": "NAME",
    "Scope": "SCOPE",
}
CHECKED = {"Network": "NETWORK", "Container": "CONTAINER", "Problem": "PROBLEM"}
_WARNING = "WARNING! This will remove all custom networks not used by at least one container."


def _pairs(texts: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def create(session: Session, flags: Values, words: list[str]) -> int:
    body: dict[str, Any] = {
        "Name": words[0],
        "Driver": flags.text("driver", "bridge"),
        "IPAM": {
            "Driver": flags.text("ipam-driver", "default"),
            "Options": _pairs(flags.many("ipam-opt")),
            "Config": _pools(flags),
        },
        "Internal": flags.on("internal"),
        "Attachable": flags.on("attachable"),
        "Options": _pairs(flags.many("opt")),
        "Labels": _pairs(flags.many("label")),
    }
    if flags.text("config-from"):
        body["ConfigFrom"] = {"Network": flags.text("config-from")}
    if flags.text("scope"):
        body["Scope"] = flags.text("scope")
    switches = {"config-only": "ConfigOnly", "ingress": "Ingress"}
    for name, member in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6"), *switches.items()):
        if flags.has(name):
            body[member] = flags.on(name)
    session.out(session.call(network_calls.create(body))["Id"])
    return 0


def _pools(flags: Values) -> list[dict[str, Any]]:
    reserved = _pairs(flags.many("aux-address"))
    try:
        return network_calls.pools(
            flags.many("subnet"), flags.many("gateway"), flags.many("ip-range"), reserved
        )
    except ValueError as error:
        raise Failed(str(error)) from error


def connect(session: Session, flags: Values, words: list[str]) -> int:
    body = {"Container": words[1], "EndpointConfig": networking.endpoint_of(flags)}
    session.call(network_calls.connect(words[0], body))
    return 0


def disconnect(session: Session, flags: Values, words: list[str]) -> int:
    body = {"Container": words[1], "Force": flags.on("force")}
    session.call(network_calls.disconnect(words[0], body))
    return 0


def inspect(session: Session, flags: Values, names: list[str]) -> int:
    documents, errors = [], []
    for name in names:
        try:
            documents.append(session.call(network_calls.inspect(name)))
        except Refused as error:
            errors.append(str(error))
    print_documents(session, documents, flags.text("format"))
    for text in errors:
        session.error(text)
    return 1 if errors else 0


def check(session: Session, flags: Values, names: list[str]) -> int:
    rows = [
        {"Network": name, "Container": one["Name"], "Problem": one["Problem"]}
        for name in names
        for one in session.call(network_calls.check(name))
    ]
    show(session, rows, "Network Container Problem", CHECKED, flags.text("format"))
    return 1 if any(one["Problem"] for one in rows) else 0


def row(network: dict[str, Any], *, full: bool) -> dict[str, Any]:
    """A network's fields as text."""
    labels = network.get("Labels") or {}
    return {
        "CreatedAt": network["Created"],
        "Driver": network["Driver"],
        "ID": network["Id"] if full else network["Id"][:12],
        "IPv4": str(network.get("EnableIPv4", True)).lower(),
        "IPv6": str(network["EnableIPv6"]).lower(),
        "Internal": str(network["Internal"]).lower(),
        "Labels": ",".join(f"{name}={labels[name]}" for name in sorted(labels)),
        "Name": network["Name"],
        "Scope": network["Scope"],
    }


def listing(session: Session, flags: Values, _: list[str]) -> int:
    found = session.call(network_calls.listing(parse_filters(flags.many("filter"))))
    found.sort(key=lambda network: network["Name"])
    layout, full = flags.text("format"), flags.on("no-trunc")
    rows = [row(network, full=full) for network in found]
    if flags.on("quiet") and not layout:
        for one in rows:
            session.out(one["ID"])
        return 0
    show(session, rows, "ID Name Driver Scope", HEADERS, layout)
    return 0


def remove(session: Session, flags: Values, names: list[str]) -> int:
    def one(name: str) -> None:
        try:
            session.call(network_calls.remove(name))
        except Refused as error:
            if not (flags.on("force") and error.status == 404):
                raise

    return session.each(names, one)


def prune(session: Session, flags: Values, _: list[str]) -> int:
    if not confirmed(flags, _WARNING):
        return 0
    answer = session.call(network_calls.prune(parse_filters(flags.many("filter"))))
    print_deleted(session, "Deleted Networks", answer.get("NetworksDeleted") or [])
    return 0


CREATE = Command(
    create,
    "[OPTIONS] NETWORK",
    "Create a network",
    """\
      --attachable           Enable manual container attachment
      --aux-address map      Auxiliary IPv4 or IPv6 addresses that no container
                             gets
      --config-from string   The network from which to copy the configuration:
                             not here
      --config-only          Create a configuration only network: not here
  -d, --driver string        Driver to manage the Network: bridge, macvlan, cni
                             (default "bridge")
      --gateway list         IPv4 or IPv6 Gateway for the master subnet
      --ingress              Create swarm routing-mesh network: not here
      --internal             Restrict external access to the network
      --ip-range list        Allocate container ip from a sub-range
      --ipam-driver string   IP Address Management Driver (default "default")
      --ipam-opt map         Set IPAM driver specific options
      --ipv4                 Enable or disable IPv4 address assignment
      --ipv6                 Enable or disable IPv6 address assignment
      --label list           Set metadata on a network
  -o, --opt map              Set driver specific options
      --scope string         Control the network's scope: local
      --subnet list          Subnet in CIDR format that represents a network
                             segment
""",
    least=1,
    most=1,
)
CONNECT = Command(
    connect,
    "[OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    """\
      --alias list           Add network-scoped alias for the container
      --driver-opt list      driver options for the network
      --gw-priority int      Highest gw-priority provides the default gateway.
                             Accepts positive and negative values.
      --ip string            IPv4 address (e.g., "172.30.100.104")
      --ip6 string           IPv6 address (e.g., "2001:db8::33")
      --link list            Add link to another container
      --link-local-ip list   Add a link-local address for the container
      --mac-address string   Container MAC address (e.g., 92:d0:c6:0a:29:33)
""",
    least=2,
    most=2,
)
CHECK = Command(
    check,
    "[OPTIONS] NETWORK [NETWORK...]",
    "Let the plugins of CNI networks see whether what they made is still as they made it",
    TABLE_FORMAT,
    least=1,
)
DISCONNECT = Command(
    disconnect,
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    "  -f, --force   Force the container to disconnect from a network\n",
    least=2,
    most=2,
)
INSPECT = Command(
    inspect,
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    FORMAT + "  -v, --verbose         Verbose output for diagnostics\n",
    least=1,
)
LS = Command(
    listing,
    "[OPTIONS]",
    "List networks",
    """\
  -f, --filter filter   Provide filter values (e.g. "driver=bridge")
"""
    + TABLE_FORMAT
    + """\
      --no-trunc        Do not truncate the output
  -q, --quiet           Only display network IDs
""",
    most=0,
    names="network ls, network list",
)
RM = Command(
    remove,
    "[OPTIONS] NETWORK [NETWORK...]",
    "Remove one or more networks",
    "  -f, --force   Do not error if the network does not exist\n",
    least=1,
    names="network rm, network remove",
)
PRUNE = Command(
    prune,
    "[OPTIONS]",
    "Remove all unused networks",
    """\
      --filter filter   Provide filter values (e.g. "until=<timestamp>")
  -f, --force           Do not prompt for confirmation
""",
    most=0,
)
