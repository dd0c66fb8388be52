"""The flags of networks: `--network`, `-p`, `--link`, as parts of a create body."""

from __future__ import annotations

from sampan.cli.flags import FlagError
from sampan.cli.session import Failed
from sampan.client import ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values


def apply(flags: Values, body: dict[str, Any]) -> None:
    """Put what the flags say of networks and ports into a create body.

    Raises:
        FlagError, Failed: a value is wrong, or flags contradict each other.
    """
    host = body["HostConfig"]
    _ports(flags, body, host)
    for name, member in (("dns", "Dns"), ("dns-option", "DnsOptions"), ("dns-search", "DnsSearch")):
        if flags.many(name):
            host[member] = flags.many(name)
    if flags.many("add-host"):
        host["ExtraHosts"] = [_extra_host(text) for text in flags.many("add-host")]
    endpoints = dict(_parse_network(text) for text in flags.many("network"))
    mode = next(iter(endpoints), "default")
    host["NetworkMode"] = mode
    own = _own(flags)
    if flags.many("link"):
        if mode in ("default", "bridge"):
            host["Links"] = flags.many("link")
        else:
            own["Links"] = flags.many("link")
    if own:
        if len(endpoints) > 1:
            raise Failed(
                "conflicting options: --network-alias, --ip, --ip6, --link and --mac-address are "
                "for one network; use --network name=NAME,alias=...,ip=... for several"
            )
        endpoints[mode] = {**endpoints.get(mode, {}), **own}
    if any(endpoints.values()) or len(endpoints) > 1:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}


def _ports(flags: Values, body: dict[str, Any], host: dict[str, Any]) -> None:
    try:
        exposed, bindings = ports.publish(flags.many("publish"))
        exposed += ports.expose(flags.many("expose"))
    except ValueError as error:
        raise FlagError(str(error)) from error
    if exposed:
        body["ExposedPorts"] = {port: {} for port in exposed}
    if bindings:
        host["PortBindings"] = bindings
    if flags.on("publish-all"):
        host["PublishAllPorts"] = True
    rules = egress_rules(flags.many("egress")) if flags.many("egress") else None
    if rules is not None:
        host["Egress"] = rules


def egress_rules(words: list[str]) -> list[str] | None:
    """`all` is no restriction, `none` is nothing at all; else names and networks."""
    if words == ["all"]:
        return None
    if words == ["none"]:
        return []
    for word in words:
        if word in ("all", "none"):
            raise FlagError(f"conflicting egress rules: {word} stands alone")
    return words


def endpoint_of(flags: Values) -> dict[str, Any]:
    """The endpoint of `network connect`."""
    settings = _own(flags)
    if flags.many("alias"):
        settings["Aliases"] = flags.many("alias")
    if flags.many("link"):
        settings["Links"] = flags.many("link")
    if flags.many("driver-opt"):
        options = (text.partition("=") for text in flags.many("driver-opt"))
        settings["DriverOpts"] = {name: value for name, _, value in options}
    if flags.has("gw-priority"):
        settings["GwPriority"] = flags.number("gw-priority")
    return settings


def _own(flags: Values) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if flags.many("network-alias"):
        settings["Aliases"] = flags.many("network-alias")
    addresses = {"IPv4Address": flags.text("ip"), "IPv6Address": flags.text("ip6")}
    if any(addresses.values()):
        settings["IPAMConfig"] = {name: value for name, value in addresses.items() if value}
    if flags.many("link-local-ip"):
        settings.setdefault("IPAMConfig", {})["LinkLocalIPs"] = flags.many("link-local-ip")
    if flags.text("mac-address"):
        settings["MacAddress"] = flags.text("mac-address")
    return settings


def _parse_network(text: str) -> tuple[str, dict[str, Any]]:
    """`NAME`, or `name=NAME,alias=A,ip=IP,ip6=IP,mac-address=MAC,driver-opt=K=V,gw-priority=N`."""
    if "=" not in text:
        return text, {}
    settings: dict[str, Any] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals:
            raise _bad(text, f"invalid field {field}")
        if not _set(settings, key, value):
            raise _bad(text, f"invalid value for field {field}")
    name = settings.pop("name", "")
    if not name:
        raise _bad(text, "network name/id is not specified")
    return name, settings


def _set(settings: dict[str, Any], key: str, value: str) -> bool:
    """Put one field of the long form into the endpoint; whether it is one."""
    if key == "name":
        settings["name"] = value
    elif key == "alias":
        settings.setdefault("Aliases", []).append(value)
    elif key in ("ip", "ip6"):
        member = "IPv4Address" if key == "ip" else "IPv6Address"
        settings.setdefault("IPAMConfig", {})[member] = value
    elif key == "mac-address":
        settings["MacAddress"] = value
    elif key == "driver-opt":
        option, _, setting = value.partition("=")
        settings.setdefault("DriverOpts", {})[option] = setting
    elif key == "gw-priority" and value.lstrip("-").isdecimal():
        settings["GwPriority"] = int(value)
    else:
        return False
    return True


def _bad(text: str, why: str) -> FlagError:
    return FlagError(f'invalid argument "{text}" for "--network" flag: {why}')


def _extra_host(text: str) -> str:
    name, _, address = text.replace("=", ":", 1).partition(":")
    if not name or not address:
        raise FlagError(f'bad format for add-host: "{text}"')
    return f"{name}:{address.strip('[]')}"
