"""Where registries are, and which places a registry may send us to.

An `Endpoint` is a scheme, a host and a port that serves one registry: the registry itself or a
mirror of it. Plain http is spoken only with those that the configuration names, and with registries
on the loopback interface or listed as insecure when they do not answer to TLS. Everything else a
server names (redirects, token realms, upload locations, URLs in descriptors) is a place that we did
not choose: it must be https, or lie on loopback when the registry does, and its address must not be
loopback or link-local otherwise, so that a registry cannot make us speak with the services of this
machine or of its cloud.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from yarl import URL

from sampan.errors import FailedPrecondition, InvalidArgument
from sampan.registry.settings import NO_TLS, HostSetting, Settings, Tls, from_directories

if TYPE_CHECKING:
    from sampan.spec.reference import Reference

_DOCKER_HUB: Final = "registry-1.docker.io"
# Second-level labels that country registries sell names below, as in example.co.uk.
_SECOND_LEVEL: Final = frozenset("ac co com edu gob gov go gr ne net nom or org".split())


@dataclass(frozen=True, slots=True)
class Origin:
    """What credentials are bound to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: URL) -> Origin:
        """The origin of a URL."""
        return cls(url.scheme, (url.host or "").lower(), url.port or 0)

    @property
    def loopback(self) -> bool:
        """Whether the host is this machine by its name or number."""
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server of a registry. A mirror gets no credentials and takes no pushes.

    `undecided`: the server may speak TLS or plain http, and `HttpClient.settle` finds out.
    """

    base: URL
    mirror: bool = False
    undecided: bool = False
    prefix: str = "/v2"
    tls: Tls = NO_TLS
    headers: dict[str, str] = field(default_factory=dict, hash=False)
    asks_for: str = ""  # the registry that a mirror of several stands for

    @property
    def origin(self) -> Origin:
        """What this endpoint's credentials are bound to."""
        return Origin.of(self.base)


@dataclass(frozen=True, slots=True)
class Hosts:
    """The configuration of registries, by their names as in references (`host[:port]`)."""

    insecure: frozenset[str] = frozenset()  # TLS without a check, or plain http
    mirrors: dict[str, tuple[str, ...]] = field(default_factory=dict)  # base URLs, tried in order
    realms: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # further hosts of token servers
    registries: dict[str, Settings] = field(default_factory=dict)
    directories: tuple[str, ...] = ()  # with a directory of certificates for each registry

    def endpoints(self, registry: str) -> tuple[Endpoint, ...]:
        """The endpoints to pull from, best first; the last one is the registry itself.

        Raises:
            InvalidArgument: the configuration of the registry is wrong.
        """
        settings = self._settings(registry)
        mirrors = [self._mirror(text) for text in self.mirrors.get(registry, ())]
        mirrors += [_mirror_of(setting, registry) for setting in settings.mirrors]
        return (*mirrors, self._upstream(registry, settings))

    def upstream(self, registry: str) -> Endpoint:
        """The registry itself. Raises as `endpoints`."""
        return self._upstream(registry, self._settings(registry))

    def _upstream(self, registry: str, settings: Settings) -> Endpoint:
        if settings.server is not None:
            server = settings.server
            url = URL(server.url)
            base = URL(f"{url.scheme}://{url.authority}")
            return Endpoint(base, tls=server.tls, prefix=server.prefix, headers=server.headers)
        host = _DOCKER_HUB if registry == "docker.io" else registry
        open_ended = registry in self.insecure or is_loopback(_without_port(host))
        plain, tls = settings.plain_http, settings.tls
        if plain is None and tls.is_plain and open_ended:
            return Endpoint(URL(f"http://{host}"), undecided=True)
        return Endpoint(URL(f"{'http' if plain else 'https'}://{host}"), tls=tls)

    def _settings(self, registry: str) -> Settings:
        found = self.registries.get(registry)
        if found is None:
            found = from_directories(registry, self.directories)
        return found or Settings()

    def check_target(self, url: URL, home: Origin) -> None:
        """Refuse a place that a server of `home` named and that we must not speak with.

        Raises:
            FailedPrecondition: by the rules above.
        """
        origin = Origin.of(url)
        if url.user is not None or url.password is not None or not origin.host:
            raise FailedPrecondition(f"refuse {shown(url)}, named by {home.host}: not a plain URL")
        if origin == home:
            return
        if origin.scheme != "https" and not (
            origin.scheme == "http" and self._may_be_plain(origin, home)
        ):
            raise FailedPrecondition(f"refuse {shown(url)}, named by {home.host}: not https")
        if not home.loopback and is_internal(origin.host):
            raise FailedPrecondition(
                f"refuse {shown(url)}, named by {home.host}: its address is internal to a machine"
            )

    def trusts_realm(self, reference: Reference, home: Origin, realm: URL) -> bool:
        """Whether the credentials of a registry may be shown to the token server `realm`."""
        host = (realm.host or "").lower()
        named = self.realms.get(reference.registry, ())
        if host == home.host or host in (*named, *self._settings(reference.registry).realms):
            return True
        parent = registrable(home.host)
        return parent is not None and (host == parent or host.endswith("." + parent))

    def _may_be_plain(self, origin: Origin, home: Origin) -> bool:
        if home.scheme != "http":
            return False
        named = f"{origin.host}:{origin.port}"
        return (home.loopback and origin.loopback) or not self.insecure.isdisjoint(
            (origin.host, named)
        )

    def _mirror(self, text: str) -> Endpoint:
        try:
            url = URL(text)
        except ValueError:
            raise InvalidArgument(f"mirror {text!r}: not a URL") from None
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host or "")):
            raise InvalidArgument(f"mirror {text!r}: an https URL is expected")
        return Endpoint(URL(f"{url.scheme}://{url.authority}"), mirror=True)


def _mirror_of(setting: HostSetting, registry: str) -> Endpoint:
    url = URL(setting.url)
    return Endpoint(
        URL(f"{url.scheme}://{url.authority}"),
        mirror=True,
        prefix=setting.prefix,
        tls=setting.tls,
        headers=setting.headers,
        asks_for=registry,
    )


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or a loopback address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def is_internal(host: str) -> bool:
    """Whether `host` is, as written, an address that only this machine or its cloud answers."""
    if is_loopback(host):
        return True
    address = _address(host)
    if address is None:
        return False
    return address.is_link_local or address.is_unspecified or address.is_multicast


def registrable(host: str) -> str | None:
    """The domain of `host` that one owner registered, None where that is not sure."""
    labels = host.split(".")
    if _address(host) is not None or len(labels) < 2:
        return None
    size = 3 if len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    return ".".join(labels[-size:]) if len(labels) >= size else None


def shown(url: URL) -> str:
    """A URL for messages: without user, password, query and fragment, which may be secrets."""
    text = f"{url.scheme}://{url.host}"
    text += f":{url.port}" if url.explicit_port else ""
    return text + url.raw_path


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
