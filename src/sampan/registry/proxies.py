"""Which proxy a request goes through.

As in the environment of other programs: one for http, one for https, and the hosts that are reached
without: `*`, names (with everything below them), addresses and networks, each perhaps with a port.
Loopback is always reached directly. Only the configuration and the daemon's own environment say
this; a registry cannot.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from yarl import URL

from sampan.errors import InvalidArgument
from sampan.registry.hosts import is_loopback


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of one daemon; "" for none."""

    http: str = ""
    https: str = ""
    exceptions: tuple[str, ...] = ()

    @classmethod
    def make(cls, http: str, https: str, exceptions: str) -> Proxies:
        """From texts as in the environment.

        Raises:
            InvalidArgument: a proxy is not a URL of http.
        """
        return cls(_checked(http), _checked(https), _split(exceptions))

    def choose(self, url: URL) -> URL | None:
        """The proxy for a request to `url`, None for none."""
        proxy = self.https if url.scheme == "https" else self.http
        host = (url.host or "").lower()
        if not proxy or is_loopback(host) or self._is_exception(host, url.port or 0):
            return None
        return URL(proxy)

    def _is_exception(self, host: str, port: int) -> bool:
        return any(_matches(rule, host, port) for rule in self.exceptions)


def _matches(rule: str, host: str, port: int) -> bool:
    if rule == "*":
        return True
    name, colon, number = rule.rpartition(":")
    if colon and number.isascii() and number.isdigit() and ":" not in name:
        if int(number) != port:
            return False
        rule = name
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        suffix = rule.removeprefix("*").lstrip(".")
        return host == suffix or host.endswith("." + suffix)
    try:
        return address in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return False


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())


def _checked(text: str) -> str:
    if not text:
        return ""
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidArgument(f"proxy: {url.scheme}://... is not a URL of http or https")
    return str(url)
