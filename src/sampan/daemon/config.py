"""The daemon's settings: flags, then environment, then `/etc/sampan/config.toml`, then defaults.

The file is one TOML table; `--config` or `SAMPAN_CONFIG` name another, which must exist. `host`,
`group`, `log_level`, `log_format` and `idle_exit` are the daemon's, all else is the engine's
(`EngineConfig`). A key that nobody knows, or a value of the wrong type, stops the start with a
message that names the file and the key: a misspelt limit must not silently be none. Proxies that
the file does not name are those of the environment. A file that others may write is refused.
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.daemon.logging import FORMATS, LEVELS
from sampan.daemon.tls import TlsSettings
from sampan.engine.config import DEFAULT_ROOT, DEFAULT_STATE, EngineConfig
from sampan.errors import InvalidArgument, NotImplementedHere, PermissionDenied
from sampan.pods.settings import PodSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_FILE = "/etc/sampan/config.toml"
MAX_SOCKET_PATH = 107
_MAX_FILE = 1 << 20
_OWN_KEYS = {
    "host": str,
    "group": str,
    "log_level": str,
    "log_format": str,
    "idle_exit": int,
    "tcp": str,
    "tls_ca": str,
    "tls_cert": str,
    "tls_key": str,
    "cri": dict,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """Everything that the daemon is told before it starts. `idle_exit` 0 means: never.

    `tls` is where and how to listen for clients over TCP; None: nowhere.
    `cri` are the settings of the table of that name, for the Kubernetes runtime interface.
    """

    engine: EngineConfig
    socket: str
    group: str = ""
    log_level: str = "info"
    log_format: str = "text"
    idle_exit: int = 0
    tls: TlsSettings | None = None
    cri: PodSettings = field(default_factory=PodSettings)


def load(flags: Mapping[str, Any], environ: Mapping[str, str], user: int) -> DaemonConfig:
    """The settings from all places; `flags` holds what was given on the command line.

    Raises:
        InvalidArgument: a setting is wrong; the message says where it came from.
        PermissionDenied: the file cannot be trusted.
    """
    path = flags.get("config") or environ.get("SAMPAN_CONFIG") or None
    table = read_file(path or CONFIG_FILE, required=path is not None)
    own = {key: _own(table, key, path or CONFIG_FILE) for key in _OWN_KEYS if key in table}
    rest = {key: value for key, value in table.items() if key not in _OWN_KEYS}
    own.update({key: value for key, value in flags.items() if key in _OWN_KEYS})
    own["tls"] = _tls(own)
    own["cri"] = _cri(own.get("cri") or {}, path or CONFIG_FILE)
    for key, default in _places(environ, user).items():
        given = flags.get(key) or environ.get(f"SAMPAN_{key.upper()}")
        rest[key] = os.path.abspath(given) if given else rest.get(key, default)
    if hooks := flags.get("hooks_directories"):
        rest["hooks_directories"] = [os.path.abspath(directory) for directory in hooks]
    for key in ("http_proxy", "https_proxy", "no_proxy"):
        rest.setdefault(key, environ.get(key.upper()) or environ.get(key) or "")
    try:
        engine = EngineConfig.from_table(rest)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path or CONFIG_FILE}: {error}") from error
    host = flags.get("host") or environ.get("SAMPAN_HOST") or own.pop("host", "")
    own.pop("host", None)
    return _checked(DaemonConfig(engine=engine, socket=socket_of(host, engine.state), **own))


def _tls(own: dict[str, Any]) -> TlsSettings | None:
    """Take the four settings of the TCP door out of `own`: all of them, or none.

    Raises:
        InvalidArgument: some are missing.
    """
    given = {key: own.pop(key) for key in ("tcp", "tls_ca", "tls_cert", "tls_key") if own.get(key)}
    if not given:
        return None
    if len(given) < 4:
        raise InvalidArgument(
            "tcp: clients over TCP need certificates: tcp, tls_ca, tls_cert and tls_key go together"
        )
    return TlsSettings(
        address=given["tcp"],
        authority=given["tls_ca"],
        certificate=given["tls_cert"],
        key=given["tls_key"],
    )


def _cri(table: Mapping[str, Any], path: str) -> PodSettings:
    try:
        return PodSettings.from_table(table)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from error


def socket_of(host: str, state: str) -> str:
    """The path of the socket in `unix:///path`, or the default below `state`.

    Raises:
        NotImplementedHere: another kind of address.
        InvalidArgument: not an absolute path, or longer than the kernel takes.
    """
    if not host:
        host = f"unix://{state}/docker.sock"
    if not host.startswith("unix://"):
        raise NotImplementedHere(f"listen on {host}: only unix:// sockets are supported")
    path = host.removeprefix("unix://")
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"listen on {host}: the path must be absolute")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH - len(".new"):
        raise InvalidArgument(f"listen on {host}: the path is longer than a socket's may be")
    return path


def read_file(path: str, *, required: bool) -> dict[str, Any]:
    """The file's table; empty when there is none and none was asked for.

    Raises:
        InvalidArgument: it is not there, too long, or no TOML.
        PermissionDenied: somebody else than its owner may write it.
    """
    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionDenied(f"{path}: others than its owner may write it")
            if facts.st_size > _MAX_FILE:
                raise InvalidArgument(f"{path}: larger than {_MAX_FILE} bytes")
            return tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise InvalidArgument(f"{path}: no such file") from None
        return {}
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: {error}") from error


def _places(environ: Mapping[str, str], user: int) -> dict[str, str]:
    """The default root and state of this user."""
    if user == 0:
        return {"root": DEFAULT_ROOT, "state": DEFAULT_STATE}
    home = environ.get("HOME") or "/"
    data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    run = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    return {"root": f"{data}/sampan", "state": f"{run}/sampan"}


def _own(table: Mapping[str, Any], key: str, path: str) -> Any:
    value, kind = table[key], _OWN_KEYS[key]
    if type(value) is not kind:
        raise InvalidArgument(f"{path}: {key} must be {kind.__name__}, not {value!r}")
    return value


def _checked(config: DaemonConfig) -> DaemonConfig:
    for key, value, allowed in (
        ("log_level", config.log_level, LEVELS),
        ("log_format", config.log_format, FORMATS),
    ):
        if value not in allowed:
            raise InvalidArgument(f"{key}: {value!r} is not one of {', '.join(allowed)}")
    if config.idle_exit < 0:
        raise InvalidArgument(f"idle_exit: {config.idle_exit} is negative")
    return config
