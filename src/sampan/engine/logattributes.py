"""What every record of a container's log carries besides its text: labels, variables, a tag."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sampan.engine.model import Container

_encode = msgspec.json.encode


def of(container: Container) -> str:
    """The attributes as a JSON object, "" for none."""
    log = container.host.log
    found = _chosen({**container.image_labels, **container.config.labels}, log.labels)
    variables = (entry.partition("=") for entry in container.config.env)
    found |= _chosen({name: value for name, _, value in variables}, log.env)
    if log.tag:
        found["tag"] = tag(container)
    return _encode(found).decode() if found else ""


def tag(container: Container) -> str:
    """The tag, with dockerd's words filled in: {{.ID}}, {{.Name}}, {{.ImageName}} and more."""
    words = {
        ".ID": container.id[:12],
        ".FullID": container.id,
        ".Name": container.name,
        ".ImageID": container.image_id.partition(":")[2][:12],
        ".ImageFullID": container.image_id,
        ".ImageName": container.image_name,
        ".DaemonName": "sampan",
    }
    text = container.host.log.tag
    return re.sub(r"\{\{\s*(\.\w+)\s*\}\}", lambda found: words.get(found[1], found[0]), text)


def _chosen(values: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    wanted = [re.compile(pattern) for pattern in patterns]
    return {
        name: value for name, value in values.items() if any(one.search(name) for one in wanted)
    }
