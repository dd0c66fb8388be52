"""What the host's own firewall means for published ports: read, never changed.

Published ports are forwarded, so a firewall that closes the host's *input* does not close them:
whoever wrote it may not know. A policy of drop for what is *forwarded* does close them, and cuts
containers off. Only tables of nftables are seen (iptables-nft writes such, too).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.network.firewall import PATIENCE, find_nft

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class HostFirewall:
    """`inputs` and `forwards` are chains (`family table chain`) whose policy is to drop; `open` are
    the ports (protocol, first, last) that rules of the former accept."""

    inputs: tuple[str, ...] = ()
    forwards: tuple[str, ...] = ()
    open: tuple[tuple[str, int, int], ...] = ()

    def blocks(self, protocol: str, port: int) -> bool:
        """Whether the port would be closed if it were a program's of the host."""
        if not self.inputs:
            return False
        return not any(
            kind in (protocol, "th") and first <= port <= last for kind, first, last in self.open
        )


def read(own: str) -> HostFirewall:
    """The firewall in this namespace, without our table `own`; nothing when it cannot be read."""
    try:
        done = subprocess.run(
            [find_nft() or "nft", "-j", "list", "ruleset"],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        document = msgspec.json.decode(done.stdout)
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError):
        return HostFirewall()
    return judge(document.get("nftables") or (), own)


def judge(objects: Iterable[dict[str, Any]], own: str) -> HostFirewall:
    """The same, of the objects that `nft -j list ruleset` prints."""
    chains = [one["chain"] for one in objects if "chain" in one]
    closed = [one for one in chains if one.get("policy") == "drop" and one["table"] != own]
    inputs = [one for one in closed if one.get("hook") == "input"]
    forwards = [one for one in closed if one.get("hook") == "forward"]
    tables = {(one["family"], one["table"]) for one in inputs}
    rules = [one["rule"] for one in objects if "rule" in one]
    accepted = [
        span
        for rule in rules
        if (rule["family"], rule["table"]) in tables and any("accept" in e for e in rule["expr"])
        for span in _ports(rule["expr"])
    ]
    return HostFirewall(_names(inputs), _names(forwards), tuple(accepted))


def _names(chains: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(f"{one['family']} {one['table']} {one['name']}" for one in chains)


def _ports(expressions: Iterable[dict[str, Any]]) -> Iterable[tuple[str, int, int]]:
    """The ports that a rule is about."""
    for expression in expressions:
        match = expression.get("match") or {}
        payload = match.get("left", {}).get("payload", {}) if match.get("op") == "==" else {}
        if payload.get("field") != "dport":
            continue
        right = match["right"]
        values = right.get("set", [right]) if isinstance(right, dict) else [right]
        for value in values:
            if isinstance(value, int):
                yield payload["protocol"], value, value
            elif isinstance(value, dict) and "range" in value:
                yield payload["protocol"], value["range"][0], value["range"][1]
