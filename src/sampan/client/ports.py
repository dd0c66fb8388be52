"""`-p` and `--expose` in the API's words. Pure; the command line and the library share it.

    [ADDRESS:][HOST_PORT[-HOST_PORT]:]PORT[-PORT][/PROTOCOL]

An IPv6 address stands in brackets. Sentences are docker's.
"""

from __future__ import annotations

_PROTOCOLS = ("tcp", "udp", "sctp")

TYPE_CHECKING = False
if TYPE_CHECKING:
    Bindings = dict[str, list[dict[str, str]]]


def publish(texts: list[str]) -> tuple[list[str], Bindings]:
    """(exposed ports, port bindings) of many `-p`.

    Raises:
        ValueError: one of them is no port specification.
    """
    exposed: dict[str, None] = {}
    bindings: Bindings = {}
    for text in texts:
        for port, address, host in _split(text):
            exposed[port] = None
            bindings.setdefault(port, []).append({"HostIp": address, "HostPort": host})
    return list(exposed), bindings


def expose(texts: list[str]) -> list[str]:
    """The ports of many `--expose`: `80`, `80/udp`, `8000-8010/tcp`.

    Raises:
        ValueError: one of them is none.
    """
    found: dict[str, None] = {}
    for text in texts:
        if ":" in text:
            raise ValueError(f"invalid port format for --expose: {text}")
        ports, protocol = _protocol(text)
        first, last = _range(ports, "containerPort")
        found |= {f"{port}/{protocol}": None for port in range(first, last + 1)}
    return list(found)


def _split(text: str) -> list[tuple[str, str, str]]:
    """(port, address of the host, its port or range of ports) for each port of `text`."""
    head, _, ports = text.rpartition(":")
    address, _, outer = head.rpartition(":") if head else ("", "", "")
    if head.endswith("]"):
        address, outer = head, ""
    ports, protocol = _protocol(ports)
    if not ports:
        raise ValueError(f"No port specified: {text}<empty>")
    first, last = _range(ports, "containerPort")
    if not outer:
        return [(f"{port}/{protocol}", _address(address), "") for port in range(first, last + 1)]
    low, high = _range(outer, "hostPort")
    if high - low != last - first:
        if first != last:
            what = "Invalid ranges specified for container and host Ports"
            raise ValueError(f"{what}: {ports} and {outer}")
        return [(f"{first}/{protocol}", _address(address), f"{low}-{high}")]
    pairs = zip(range(first, last + 1), range(low, high + 1), strict=True)
    return [(f"{port}/{protocol}", _address(address), str(host)) for port, host in pairs]


def _protocol(text: str) -> tuple[str, str]:
    ports, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"Invalid proto: {protocol}")
    return ports, protocol


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = _number(first, text, what)
    high = _number(last, text, what) if dash else low
    if high < low:
        raise ValueError(f"Invalid {what}: {text}")
    return low, high


def _number(text: str, whole: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"Invalid {what}: {whole}")
    return int(text)


def _address(text: str) -> str:
    plain = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if plain and not set(plain) <= set("0123456789abcdefABCDEF.:%"):
        raise ValueError(f"Invalid ip address: {text}")
    return plain
