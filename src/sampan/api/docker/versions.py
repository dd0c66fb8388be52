"""What the API was before: answers as clients of older versions know them.

Converters make answers of the newest version. Each function here takes one and the minor number
that the client asked for, and puts back what has gone since, or takes out what was not there yet,
in the order of the versions. What a version only added to requests is refused or ignored in
`oldrequests.py`. A name for a number is for handlers that do something else before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from sampan.ids import SHORT_ID_LENGTH
from sampan.network.model import BRIDGE
from sampan.wire.containers import GraphDriver
from sampan.wire.docker import NO_TIME

if TYPE_CHECKING:
    from sampan.wire.containers import ContainerInspect, ContainerSummary, NetworkSettings
    from sampan.wire.images import ImageConfig, ImageInspect, ImageSummary
    from sampan.wire.networks import Network
    from sampan.wire.system import Info

NO_FILTER_WORD: Final = 41
"""Before, images could be asked for by a pattern called `filter`."""

NETWORKS_WITHOUT_MEMBERS: Final = 28
"""From here on a list of networks does not say who is in them."""

WEBSOCKET_BINARY: Final = 28
"""Before, a WebSocket got its output as text."""

WAIT_CONDITIONS: Final = 30
"""Before, a wait knew no condition, and sent its head with its end."""

ONE_SHOT: Final = 41
PLATFORM_OF_CREATE: Final = 41
PRUNE_SPARES_NAMED: Final = 42
"""Before, a prune of volumes took those with a name too."""

WEBSOCKET_STREAMS: Final = 42
"""Before, a WebSocket got every stream, whatever it asked for."""

DF_BY_TYPE: Final = 42
SHARED_SIZES: Final = 42
FRAMED_TYPE: Final = 42
"""Before, every raw stream had one content type."""

MANIFESTS: Final = 47
MANIFESTS_OF_IMAGE: Final = 48
PLATFORM_OF_HISTORY: Final = 48
PLATFORM_OF_IMAGE: Final = 49
PLATFORMS_OF_REMOVAL: Final = 50
NO_OLD_EVENTS: Final = 52
"""From here on events have no `status`, `id` and `from`, and streams their own content type."""

DF_IN_SUMS: Final = 52
NETWORK_STATUS: Final = 52

_COPIED: Final = (
    "endpoint_id",
    "gateway",
    "global_ipv6_address",
    "global_ipv6_prefix_len",
    "ip_address",
    "ip_prefix_len",
    "ipv6_gateway",
    "mac_address",
)
_NUMBERS: Final = frozenset(("global_ipv6_prefix_len", "ip_prefix_len"))


def container(answer: ContainerInspect, minor: int) -> None:
    """GET /containers/{id}/json."""
    if minor < 52:
        _settings(answer.network_settings)
        if answer.config.on_build is UNSET:
            answer.config.on_build = None
        answer.graph_driver, answer.storage = GraphDriver(), UNSET
    if minor >= 44:
        answer.config.mac_address = UNSET
    if minor < 45 and answer.state.status != "created":
        _aliases(answer)


def _settings(answer: NetworkSettings) -> None:
    """What a container has of the default bridge stood here, before there were other networks."""
    bridge = answer.networks.get(BRIDGE)
    for name in _COPIED:
        nothing: str | int = 0 if name in _NUMBERS else ""
        setattr(answer, name, nothing if bridge is None else getattr(bridge, name))
    answer.bridge = answer.link_local_ipv6_address = ""
    answer.hairpin_mode, answer.link_local_ipv6_prefix_len = False, 0
    answer.secondary_ip_addresses = answer.secondary_ipv6_addresses = None


def _aliases(answer: ContainerInspect) -> None:
    """The names that a container has by itself were told among those that it was given; it got
    them when it was started."""
    own = (answer.id[:SHORT_ID_LENGTH], answer.config.hostname)
    for name, endpoint in answer.network_settings.networks.items():
        if name not in (BRIDGE, "host", "none"):
            known = [*(endpoint.aliases or ()), *own]
            endpoint.aliases = list(dict.fromkeys(one for one in known if one))


def container_summary(answer: ContainerSummary, minor: int) -> None:
    """One entry of GET /containers/json."""
    if minor < 52:
        answer.health = UNSET
    if minor < 46:
        answer.host_config.annotations = UNSET


def image_summary(answer: ImageSummary, minor: int) -> None:
    """One entry of GET /images/json."""
    if minor < 51:
        answer.containers = -1
    if minor < 48:
        answer.descriptor = UNSET
    if minor < 44:
        answer.virtual_size = answer.size
    if minor < 43 and not answer.repo_tags and not answer.repo_digests:
        answer.repo_tags, answer.repo_digests = ["<none>:<none>"], ["<none>@<none>"]


def image(answer: ImageInspect, minor: int) -> None:
    """GET /images/{name}/json."""
    if minor < 52:
        for name in ("parent", "comment", "docker_version", "author"):
            if getattr(answer, name) is UNSET:
                setattr(answer, name, "")
        answer.graph_driver = GraphDriver()
        _run_config(answer.config)
        # dockerd has none from 1.45 on. Compose 1.29, whatever version it asks for, looks here for
        # the volumes of an image when it makes a container anew, and fails without.
        if answer.container_config:
            _run_config(answer.container_config)
            _container_members(answer.container_config)
    else:
        answer.container_config = UNSET
    if minor < 50:
        _container_members(answer.config)
    if minor < 48:
        answer.descriptor = UNSET
    if minor < 45:
        answer.container = ""
    if minor < 44:
        answer.virtual_size = answer.size
        if answer.created is UNSET:
            answer.created = NO_TIME


def _run_config(answer: ImageConfig) -> None:
    """Members that were there also where the image says nothing."""
    for name in ("cmd", "entrypoint", "env", "labels", "on_build", "volumes"):
        if getattr(answer, name) is UNSET:
            setattr(answer, name, None)
    answer.user = answer.user or ""
    answer.working_dir = answer.working_dir or ""


def _container_members(answer: ImageConfig) -> None:
    """Members that only containers have; an image had them too, and empty."""
    answer.hostname = answer.domainname = answer.image = ""
    answer.attach_stdin = answer.attach_stdout = answer.attach_stderr = False
    answer.tty = answer.open_stdin = answer.stdin_once = False


def info(answer: Info, minor: int) -> None:
    """GET /info."""
    if minor < 50:
        answer.bridge_nf_iptables = answer.bridge_nf_ip6tables = False
    if minor < 49:
        answer.firewall_backend = UNSET
        for commit in (answer.containerd_commit, answer.runc_commit, answer.init_commit):
            commit.expected = commit.id
    if minor < 47:
        answer.registry_config.allow_nondistributable_artifacts_cidrs = None
        answer.registry_config.allow_nondistributable_artifacts_hostnames = None
    if minor < 42:  # its programs know the usual runtime by this name, and ours answers to it
        answer.default_runtime = "runc"
        answer.runtimes.setdefault("runc", {"path": "sampan-oci"})
    if minor < 25:
        names = (text.partition(",")[0].removeprefix("name=") for text in answer.security_options)
        answer.security_options = list(names)


def network(answer: Network, minor: int) -> None:
    """GET /networks/{id}."""
    if minor < NETWORK_STATUS:
        answer.status = UNSET


def has_event(kind: str, action: str, minor: int) -> bool:
    """Whether there was such an event."""
    return minor >= 46 or (kind, action) != ("image", "create")
