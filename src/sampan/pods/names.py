"""The names of sandboxes and containers by which a kubelet's second request is recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.ids import check_name

if TYPE_CHECKING:
    from sampan.pods.model import Request, Sandbox, SandboxConfig


def sandbox_name(config: SandboxConfig) -> str:
    """`name_namespace_uid_attempt`, which may be taken once."""
    return f"{config.name}_{config.namespace}_{config.uid}_{config.attempt}"


def container_name(sandbox_id: str, request: Request) -> str:
    """The name of a container within all pods, which may be taken once."""
    return f"{request.name}_{sandbox_id}_{request.attempt}"


def engine_name(sandbox: Sandbox, request: Request) -> str | None:
    """What the engine calls a container, in its errors: `container_pod_namespace_sandbox_attempt`.

    None, for a name that the engine makes up, where those words can be no name.
    """
    pod = sandbox.config
    words = (request.name, pod.name, pod.namespace, sandbox.id[:12], str(request.attempt))
    try:
        return check_name("_".join(words))
    except InvalidArgument:
        return None


def cgroup_parent(text: str) -> str:
    """The cgroup that a pod lies in, "" for the engine's own.

    A slice of systemd is meant as systemd means it: `a-b.slice` lies in `a.slice`.

    Raises:
        InvalidArgument: it is no path of a cgroup.
    """
    if not text:
        return ""
    if text.endswith(".slice") and "/" not in text.strip("/"):
        text = _expand_slice(text.strip("/"))
    parts = text.strip("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part or "\n" in part for part in parts):
        raise InvalidArgument(f"cgroup_parent {text!r}: not the path of a cgroup")
    return "/" + "/".join(parts)


def _expand_slice(name: str) -> str:
    words = name.removesuffix(".slice").split("-")
    if not all(words):
        raise InvalidArgument(f"cgroup_parent {name!r}: not the name of a slice")
    return "/".join("-".join(words[:count]) + ".slice" for count in range(1, len(words) + 1))


def log_file(config: SandboxConfig, request: Request) -> str:
    """The path of a container's log, "" where none is wanted.

    Raises:
        InvalidArgument: it would lie outside of the pod's directory.
    """
    if not config.log_directory or not request.log_path:
        return ""
    path = request.log_path
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InvalidArgument(f"log_path {path!r}: it must stay below the pod's log directory")
    if not config.log_directory.startswith("/") or ".." in config.log_directory.split("/"):
        raise InvalidArgument(f"log_directory {config.log_directory!r}: it must be absolute")
    return f"{config.log_directory.rstrip('/')}/{path}"
