"""What is configured for one registry: mirrors, certificates, plain http.

Three places say it, in this order: the table `registries` of our own configuration, and the
directories `certs.d` of ours, docker's and containerd's, each with a directory named `host[:port]`:

    docker      NAME.crt are CAs; NAME.cert and NAME.key a client's certificate and key
    containerd  hosts.toml: server, and hosts in order with capabilities, ca, client, skip_verify

The directories are looked at for each operation, so a change needs no restart. A file that cannot
be understood is an error that names it: a missing CA must not become a connection without one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from yarl import URL

from sampan.errors import InvalidArgument

_MAX_FILE: Final = 1 << 20
_KEYS: Final = frozenset("mirrors plain_http skip_verify ca client_cert client_key realms".split())
_HOST_KEYS: Final = frozenset(
    "capabilities ca client skip_verify override_path header dial_timeout".split()
)
_CAPABILITIES: Final = frozenset(("pull", "resolve", "push"))


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server proves who it is, and we. Paths of PEM files."""

    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()  # certificate and key; the key may be in the first
    skip_verify: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether nothing is configured."""
        return self == NO_TLS


NO_TLS: Final = Tls()


@dataclass(frozen=True, slots=True)
class HostSetting:
    """One server that stands for a registry."""

    url: str
    tls: Tls = NO_TLS
    prefix: str = "/v2"
    headers: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about one registry. `plain_http` None: decide by the rules of `hosts`."""

    mirrors: tuple[HostSetting, ...] = ()
    server: HostSetting | None = None
    tls: Tls = NO_TLS
    plain_http: bool | None = None
    realms: tuple[str, ...] = ()


def from_table(registry: str, table: Any) -> Settings:
    """The settings of an entry of the configuration's table `registries`.

    Raises:
        InvalidArgument: a key is unknown, or a value is of the wrong type.
    """
    place = f"registries.{registry}"
    if not isinstance(table, Mapping) or not _KEYS.issuperset(table):
        unknown = sorted(set(table) - _KEYS) if isinstance(table, Mapping) else [table]
        raise InvalidArgument(f"{place}: unknown: {', '.join(map(str, unknown))[:160]}")
    certificate, key = _text(table, "client_cert", place), _text(table, "client_key", place)
    return Settings(
        mirrors=tuple(_mirror(text, place) for text in _texts(table.get("mirrors"), place)),
        tls=Tls(
            ca=_texts(table.get("ca"), place),
            client=((certificate, key or certificate),) if certificate else (),
            skip_verify=_flag(table, "skip_verify", place) or False,
        ),
        plain_http=_flag(table, "plain_http", place),
        realms=_texts(table.get("realms"), place),
    )


def from_directories(registry: str, directories: tuple[str, ...]) -> Settings | None:
    """The settings in the first of the directories that has any for this registry.

    Raises:
        InvalidArgument: a file there cannot be understood.
    """
    for base in directories:
        for name in (registry, "_default"):
            path = os.path.join(base, name)
            hosts = os.path.join(path, "hosts.toml")
            if os.path.isfile(hosts):
                return _read_hosts(hosts)
            if name == registry and (tls := _read_certificates(path)) is not None:
                return Settings(tls=tls)
    return None


def _mirror(text: str, place: str) -> HostSetting:
    return HostSetting(_url(text, place))


def _read_certificates(path: str) -> Tls | None:
    """docker's form."""
    try:
        names = sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from error
    clients: list[tuple[str, str]] = []
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix == ".cert":
            if f"{stem}.key" not in names:
                raise InvalidArgument(f"{path}/{name}: there is no {stem}.key beside it")
            clients.append((f"{path}/{name}", f"{path}/{stem}.key"))
    ca = tuple(f"{path}/{name}" for name in names if name.endswith(".crt"))
    return Tls(ca, tuple(clients)) if ca or clients else None


def _read_hosts(path: str) -> Settings:
    """containerd's form."""
    try:
        with open(path, "rb") as file:
            table = tomllib.loads(file.read(_MAX_FILE).decode())
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path}: {error}") from error
    base = os.path.dirname(path)
    hosts = table.get("host", {})
    if not isinstance(hosts, dict):
        raise InvalidArgument(f"{path}: host is not a table")
    made = [_host(url, entry, base, path) for url, entry in hosts.items()]
    mirrors = [setting for setting in made if setting is not None]
    server = table.get("server")
    if server is None:
        return Settings(mirrors=tuple(mirrors))
    own = {key: value for key, value in table.items() if key in _HOST_KEYS - {"capabilities"}}
    return Settings(
        mirrors=tuple(mirror for mirror in mirrors if mirror.url != server),
        server=_host(server, next((e for u, e in hosts.items() if u == server), own), base, path),
    )


def _host(url: Any, entry: Any, base: str, place: str) -> HostSetting | None:
    """One entry; None for a host that is not for pulls, as pushes go to the server only."""
    if not isinstance(entry, dict) or not _HOST_KEYS.issuperset(entry):
        unknown = sorted(set(entry) - _HOST_KEYS) if isinstance(entry, dict) else [entry]
        raise InvalidArgument(f"{place}: unknown: {', '.join(map(str, unknown))[:160]}")
    capabilities = _texts(entry.get("capabilities", sorted(_CAPABILITIES)), place)
    if not _CAPABILITIES.issuperset(capabilities):
        raise InvalidArgument(f"{place}: capabilities are {', '.join(sorted(_CAPABILITIES))}")
    if "pull" not in capabilities:
        return None
    text = _url(str(url) if "://" in str(url) else f"https://{url}", place)
    path = URL(text).path.rstrip("/")
    override = _flag(entry, "override_path", place) or False
    headers = entry.get("header", {})
    if not isinstance(headers, dict):
        raise InvalidArgument(f"{place}: header is not a table")
    return HostSetting(
        url=text,
        tls=Tls(
            ca=tuple(_beside(base, name) for name in _texts(entry.get("ca"), place)),
            client=_clients(entry.get("client"), base, place),
            skip_verify=_flag(entry, "skip_verify", place) or False,
        ),
        prefix=path if override and path else f"{path}/v2",
        headers={str(key): ", ".join(_texts(value, place)) for key, value in headers.items()},
    )


def _clients(value: Any, base: str, place: str) -> tuple[tuple[str, str], ...]:
    """A file, several, or pairs of certificate and key."""
    if value is None:
        return ()
    entries = [value] if isinstance(value, str) else value
    pairs: list[tuple[str, str]] = []
    for entry in entries:
        parts = [entry] if isinstance(entry, str) else entry
        if not isinstance(parts, list) or not 1 <= len(parts) <= 2:
            raise InvalidArgument(f"{place}: client is a file, or pairs of certificate and key")
        names = [_beside(base, str(part)) for part in parts if part]
        pairs.append((names[0], names[-1]))
    return tuple(pairs)


def _beside(base: str, name: str) -> str:
    return name if os.path.isabs(name) else os.path.join(base, name)


def _url(text: str, place: str) -> str:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string:
        raise InvalidArgument(f"{place}: {text[:200]!r} is not a URL of http or https")
    return text


def _texts(value: Any, place: str) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise InvalidArgument(f"{place}: a text or a list of texts is expected, not {value!r}")
    return tuple(values)


def _text(table: Mapping[str, Any], key: str, place: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InvalidArgument(f"{place}.{key}: a text is expected, not {value!r}")
    return value


def _flag(table: Mapping[str, Any], key: str, place: str) -> bool | None:
    value = table.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidArgument(f"{place}.{key}: true or false is expected, not {value!r}")
    return value
