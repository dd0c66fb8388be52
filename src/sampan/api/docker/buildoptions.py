"""The query of /build in the builder's words."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from sampan.builder.model import BuildOptions
from sampan.engine.model import HostConfig, Ulimit
from sampan.errors import InvalidArgument, NotImplementedHere
from sampan.registry.credentials import Credentials
from sampan.spec.platform import Platform
from sampan.spec.reference import Reference
from sampan.wire import build as bodies
from sampan.wire import hostconfig as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.api.docker.call import Call
    from sampan.builder.files.service import Context

T = TypeVar("T")

MAX_HEADER: Final = 32 << 10
_decode_auths = msgspec.json.Decoder(dict[str, bodies.AuthEntry] | None).decode
_decode_arguments = msgspec.json.Decoder(dict[str, str | None]).decode
_decode_labels = msgspec.json.Decoder(dict[str, str]).decode
_decode_ulimits = msgspec.json.Decoder(list[wire.Ulimit]).decode
_decode_hosts = msgspec.json.Decoder(list[str]).decode


def options_of(
    call: Call,
    secrets: dict[str, bytes],
    ssh: dict[str, str],
    contexts: dict[str, Context | str],
) -> BuildOptions:
    """What a request asks for.

    Raises:
        InvalidArgument: a value is malformed.
        NotImplementedHere: something that this builder does not do.
    """
    if call.text("version", "1") not in ("", "1"):
        raise NotImplementedHere(
            "build with BuildKit's protocol: set DOCKER_BUILDKIT=0, or build with sampan"
        )
    if call.text("outputs") not in ("", "[]", "null"):
        raise NotImplementedHere("build: outputs other than an image are not supported here")
    arguments: dict[str, str | None] = _decoded(call, "buildargs", _decode_arguments, {})
    return BuildOptions(
        dockerfile=call.text("dockerfile") or "Dockerfile",
        tags=tuple(dict.fromkeys(text for text in call.values("t") if text)),
        target=call.text("target"),
        args=arguments,
        labels=_decoded(call, "labels", _decode_labels, {}),
        no_cache=call.flag("nocache"),
        no_cache_filter=tuple(
            name for text in call.values("nocachefilter") for name in text.split(",")
        ),
        pull=call.flag("pull"),
        platform=_platform(call.text("platform")),
        squash=call.flag("squash"),
        cache_from=_cache_from(call),
        cache_only_from=not call.flag("notes"),  # what docker's clients mean
        cache_to=tuple(call.values("cacheto")),
        cache_every_stage=call.text("cachemode") == "max",
        cache_inline=call.flag("cacheinline"),
        provenance=call.flag("provenance"),
        host=_host(call),
        allow_host_network="network.host" in call.values("allow"),
        allow_insecure="security.insecure" in call.values("allow"),
        contexts=contexts,
        secrets=secrets,
        ssh=ssh,
        credentials=_credentials(call),
    )


def _platform(text: str) -> str:
    """The platform, told of here where a wrong one is still an answer of its own."""
    for one in text.split(",") if text else ():
        Platform.parse(one)
    return text


def _cache_from(call: Call) -> tuple[str, ...]:
    """docker sends a JSON list or null, we a parameter for each."""
    values = call.values("cachefrom")
    if (len(values) == 1 and values[0].startswith("[")) or values == ["null"]:
        values = _decoded(call, "cachefrom", _decode_hosts, [])
    return tuple(dict.fromkeys(value for value in values if value))


def _host(call: Call) -> HostConfig:
    mode = call.text("networkmode")
    hosts = call.values("extrahosts")
    if len(hosts) == 1 and hosts[0].startswith("["):
        hosts = _decoded(call, "extrahosts", _decode_hosts, [])
    limits: list[wire.Ulimit] = _decoded(call, "ulimits", _decode_ulimits, [])
    return HostConfig(
        network_mode=mode or "default",
        memory=call.number("memory") or 0,
        memory_swap=call.number("memswap") or 0,
        cpu_shares=call.number("cpushares") or 0,
        cpuset_cpus=call.text("cpusetcpus"),
        cpuset_mems=call.text("cpusetmems"),
        cpu_period=call.number("cpuperiod") or 0,
        cpu_quota=call.number("cpuquota") or 0,
        shm_size=call.number("shmsize") or 0,
        cgroup_parent=call.text("cgroupparent"),
        extra_hosts=tuple(text for text in hosts if text),
        ulimits=tuple(Ulimit(name=one.name, soft=one.soft, hard=one.hard) for one in limits),
    )


def _decoded(call: Call, name: str, decode: Callable[[str], T], default: T) -> T:
    text = call.text(name)
    if text in ("", "null"):
        return default
    try:
        return decode(text)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"query parameter {name}: {error}") from None


def _credentials(call: Call) -> Callable[[str], Credentials | None]:
    """Credentials by image, from X-Registry-Config."""
    text = call.request.headers.get("X-Registry-Config", "")
    entries: dict[str, Any] = {}
    if text and len(text) <= MAX_HEADER:
        try:
            padded = text + "=" * (-len(text) % 4)
            entries = _decode_auths(base64.urlsafe_b64decode(padded)) or {}
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise InvalidArgument("registry credentials: not base64url of a JSON object") from None

    def find(image: str) -> Credentials | None:
        domain = Reference.parse(image).registry
        for registry, entry in entries.items():
            host = registry.removeprefix("https://").removeprefix("http://").partition("/")[0]
            if host == domain or (domain == "docker.io" and host == "index.docker.io"):
                return _entry(entry)
        return None

    return find


def _entry(entry: bodies.AuthEntry) -> Credentials:
    username, password = entry.username, entry.password
    if entry.auth and not username:
        decoded = base64.b64decode(entry.auth + "==").decode("utf-8", "replace")
        username, _, password = decoded.partition(":")
    return Credentials(
        username=username,
        password=password,
        identity_token=entry.identitytoken,
        registry_token=entry.registrytoken,
    )
