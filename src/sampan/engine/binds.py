"""`-v source:target[:options]` as a typed mount: a path of the host, a volume, or a new volume."""

from __future__ import annotations

import posixpath

from sampan.engine.model import Mount, MountType
from sampan.errors import InvalidArgument
from sampan.ids import check_name

PROPAGATION = frozenset("private rprivate shared rshared slave rslave".split())
FLAGS = frozenset("noexec exec nosuid suid nodev dev".split())
_ACCESS = frozenset(("ro", "rw"))
_LABELS = {"z", "Z"}  # they need SELinux: nothing to do
_BIND = PROPAGATION | FLAGS | _LABELS | {"bind", "rbind", "idmap"}
_VOLUME = FLAGS | _LABELS | {"nocopy"}


def parse(text: str) -> Mount:
    """Parse one.

    Raises:
        InvalidArgument: it is malformed.
    """
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts) or "\0" in text:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return Mount(type=MountType.VOLUME, target=_target(text, text))
    words = tuple(parts[2].split(",")) if len(parts) == 3 else ()
    is_bind = parts[0].startswith("/")
    _check_words(text, words, _BIND if is_bind else _VOLUME)
    target = _target(text, parts[1])
    read_only = "ro" in words
    if not is_bind:
        _check_volume(text, parts[0])
        return Mount(
            type=MountType.VOLUME,
            source=parts[0],
            target=target,
            read_only=read_only,
            words=words,
            copy="nocopy" not in words,
        )
    return Mount(
        type=MountType.BIND,
        source=posixpath.normpath(parts[0]),
        target=target,
        read_only=read_only,
        words=words,
        propagation=next((word for word in words if word in PROPAGATION), ""),
        recursive="bind" not in words,
        make_source=True,
    )


def _target(text: str, target: str) -> str:
    if not target.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount path: '{target}' "
            "mount path must be absolute"
        )
    normal = posixpath.normpath("/" + target.lstrip("/"))
    if normal == "/" or ".." in target.split("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid specification: "
            "destination can't be '/'"
        )
    return normal


def _check_words(text: str, words: tuple[str, ...], known: frozenset[str]) -> None:
    for word in words:
        if word not in known | _ACCESS:
            raise InvalidArgument(f"invalid volume specification: '{text}': invalid mode: {word}")
    for group in (_ACCESS, PROPAGATION, {"bind", "rbind"}, {"z", "Z"}):
        if len(group.intersection(words)) > 1:
            raise InvalidArgument(
                f"invalid volume specification: '{text}': invalid mode: {','.join(words)}"
            )


def _check_volume(text: str, name: str) -> None:
    try:
        check_name(name, "volume")
    except InvalidArgument as error:
        raise InvalidArgument(
            f"invalid volume specification: '{text}': {error}; "
            "if you intended to pass a host directory, use an absolute path"
        ) from None
