"""Devices of the Container Device Interface: files of vendors say what a device needs.

`vendor.com/class=name` is looked for in the JSON and YAML files of the directories, the later ones
winning. What it asks for (nodes, variables, mounts, groups, hooks) is added to the OCI
configuration at the start; how a container with hooks is made is told in `hookfiles`. Names come
from the request alone, never from an image.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.engine.hookfiles import STAGES
from sampan.errors import InvalidArgument, NotImplementedHere

if TYPE_CHECKING:
    from collections.abc import Sequence

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z][\w.-]*=[A-Za-z0-9][\w.:-]*", re.ASCII)
_MAX_FILE = 1 << 20
_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(slots=True)
class Edits:
    """What is added to a configuration, in the OCI's words."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    hooks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def resolve(names: Sequence[str], directories: Sequence[str] = DIRECTORIES) -> Edits:
    """What the devices of these names need.

    Raises:
        InvalidArgument: there is no such device, or its file makes no sense.
        NotImplementedHere: it needs Intel RDT or a network device.
    """
    edits = Edits()
    if not names:
        return edits
    known = _specifications(directories)
    seen: set[str] = set()
    for name in names:
        kind, _, device = name.partition("=")
        specification = known.get(kind)
        for one in (specification or {}).get("devices") or ():
            if one.get("name") == device:
                break
        else:
            raise InvalidArgument(
                f"unresolvable CDI device {name}: no file in {_list(directories)}"
            )
        assert specification is not None
        try:
            if kind not in seen:
                _add(edits, name, specification.get("containerEdits") or {})
                seen.add(kind)
            _add(edits, name, one.get("containerEdits") or {})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidArgument(f"CDI device {name}: its file makes no sense: {error}") from error
    return edits


def apply(spec: dict[str, Any], edits: Edits) -> None:
    """Add the edits to a configuration; lists that others share are copied."""
    process, linux = spec["process"], spec["linux"]
    resources = dict(linux["resources"])
    resources["devices"] = [*(resources.get("devices") or ()), *edits.rules]
    linux["resources"] = resources
    linux["devices"] = [*(linux.get("devices") or ()), *edits.nodes]
    process["env"] = [*process["env"], *edits.env]
    spec["mounts"] = [*spec["mounts"], *edits.mounts]
    for stage, hook in edits.hooks:
        spec.setdefault("hooks", {}).setdefault(stage, []).append(hook)
    if edits.groups:
        groups = [str(number) for number in edits.groups]
        process["user"] = {**process["user"]}
        process["user"]["groups"] = [*(process["user"].get("groups") or ()), *groups]


def _specifications(directories: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By kind; a file that cannot be read is not there."""
    found: dict[str, dict[str, Any]] = {}
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            try:
                content = _parse(name, f"{directory}/{name}")
            except (OSError, ValueError):
                continue
            if content is not None:
                found[str(content.get("kind") or "")] = content
    return found


def _parse(name: str, path: str) -> dict[str, Any] | None:
    """What a file says; None when its name is not one of a specification's.

    Raises:
        OSError: it cannot be read. ValueError: it is not what its name says.
    """
    ending = name.rpartition(".")[2]
    if ending not in ("json", "yaml", "yml"):
        return None
    with open(path, "rb") as file:
        text = file.read(_MAX_FILE)
    return _decode(text) if ending == "json" else _decode_yaml(text)


def _decode_yaml(text: bytes) -> dict[str, Any]:
    """Raises ValueError. Aliases are refused: a few lines of them are gigabytes."""
    import yaml  # seldom needed

    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("aliases are not allowed")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(content, dict):
        raise ValueError("not a mapping")  # noqa: TRY004 - one error for one meaning
    return content


def _add(edits: Edits, name: str, wish: dict[str, Any]) -> None:
    if wish.get("intelRdt") or wish.get("netDevices"):
        raise NotImplementedHere(f"CDI device {name}: Intel RDT and network devices are not given")
    edits.hooks += [_hook(one) for one in wish.get("hooks") or ()]
    edits.env += [str(entry) for entry in wish.get("env") or ()]
    edits.groups += [int(number) for number in wish.get("additionalGids") or ()]
    for one in wish.get("mounts") or ():
        options = [str(word) for word in one.get("options") or ("ro", "nosuid", "nodev")]
        if not {"bind", "rbind"} & set(options):
            options.insert(0, "rbind")
        edits.mounts.append(
            {
                "destination": str(one["containerPath"]),
                "type": "bind",
                "source": str(one["hostPath"]),
                "options": options,
            }
        )
    for one in wish.get("deviceNodes") or ():
        _add_node(edits, name, one)


def _hook(one: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(point of the container's life, the runtime specification's hook)."""
    stage, path = str(one["hookName"]), str(one["path"])
    if stage not in STAGES or not path.startswith("/"):
        raise ValueError(f"hook {path!r} at {stage!r}")
    hook: dict[str, Any] = {"path": path}
    for key in ("args", "env"):
        if one.get(key):
            hook[key] = [str(word) for word in one[key]]
    if one.get("timeout"):
        hook["timeout"] = int(one["timeout"])
    return stage, hook


def _add_node(edits: Edits, name: str, one: dict[str, Any]) -> None:
    path = str(one["path"])
    source = str(one.get("hostPath") or path)
    try:
        status = os.stat(source, follow_symlinks=False)
    except OSError as error:
        raise InvalidArgument(f"CDI device {name}: {source}: {error.strerror}") from error
    kind = str(one.get("type") or _KINDS.get(stat.S_IFMT(status.st_mode), ""))
    if kind not in ("b", "c"):
        raise InvalidArgument(f"CDI device {name}: {source} is no device")
    major = int(one.get("major") or os.major(status.st_rdev))
    minor = int(one["minor"] if "major" in one else os.minor(status.st_rdev))
    numbers = {"type": kind, "major": major, "minor": minor}
    mode = int(one.get("fileMode") or stat.S_IMODE(status.st_mode))
    owner = {"uid": int(one.get("uid") or 0), "gid": int(one.get("gid") or 0)}
    edits.nodes.append({"path": path, **numbers, "fileMode": mode, **owner})
    access = str(one.get("permissions") or "rwm")
    edits.rules.append({"allow": True, **numbers, "access": access})


def _list(directories: Sequence[str]) -> str:
    return " or ".join(directories)
