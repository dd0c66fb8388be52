"""`RUN --mount`: the words of it, checked.

    type=bind   (the default) files of the context, a stage or an image; changes are thrown away
    type=cache  a directory that outlives the build: sharing=shared, private or locked
    type=tmpfs  memory
    type=secret a file, or with env= a variable, that the caller gave; never in a layer or the cache
    type=ssh    the caller's agent

Keys and values are closed sets, ids have a grammar, targets are absolute.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sampan.builder.language.failure import DockerfileError, nearest, show
from sampan.builder.scope import expand

if TYPE_CHECKING:
    from sampan.builder.language.instructions import Run
    from sampan.builder.language.words import Expander

_KEYS: Final = {
    "bind": frozenset(
        "type source src from target dst destination rw readwrite ro readonly".split()
    ),
    "cache": frozenset(
        "type id target dst destination ro readonly rw readwrite sharing from source src mode uid "
        "gid".split()
    ),
    "tmpfs": frozenset("type target dst destination size".split()),
    "secret": frozenset(
        "type id source src target dst destination env required mode uid gid".split()
    ),
    "ssh": frozenset("type id target dst destination required mode uid gid".split()),
}
_SAME: Final = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "readonly": "ro",
    "readwrite": "rw",
}
_SWITCHES: Final = frozenset(("ro", "rw", "required"))
_SHARING: Final = ("shared", "private", "locked")
_ID: Final = re.compile(r"[A-Za-z0-9_./:@+=-]{1,200}", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,15})([kmgt]?)b?", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """One mount. Numbers are -1 and texts "" where nothing was said."""

    kind: str
    target: str = ""
    source: str = ""
    from_: str = ""
    id: str = ""
    env: str = ""
    sharing: str = "shared"
    read_only: bool = False
    required: bool = False
    size: int = 0
    mode: int = -1
    uid: int = 0
    gid: int = 0


def parse(run: Run, text: str, words: Expander, cwd: str) -> RunMount:
    """One --mount of a RUN.

    Raises:
        DockerfileError: it is malformed, or contradicts itself.
    """
    values = _values(run, text, words)
    kind = values.get("type", "bind")
    if kind not in _KEYS:
        raise _wrong(run, f"unsupported mount type {show(kind)}{nearest(kind, _KEYS)}")
    for name in values:
        if name not in {_SAME.get(each, each) for each in _KEYS[kind]}:
            known = nearest(name, _KEYS[kind])
            raise _wrong(run, f"unexpected key {show(name)} for mount type {kind!r}{known}")
    target = _target(run, kind, values, cwd)
    sharing = values.get("sharing", "shared")
    if sharing not in _SHARING:
        raise _wrong(run, f"invalid sharing {show(sharing)}{nearest(sharing, _SHARING)}")
    return RunMount(
        kind=kind,
        target=target,
        source=values.get("source", ""),
        from_=values.get("from", ""),
        id=_id(run, kind, values, target),
        env=values.get("env", ""),
        sharing=sharing,
        read_only=_is_read_only(kind, values),
        required=values.get("required") == "true",
        size=_size(run, values),
        mode=_number(run, values, "mode", 8, -1),
        uid=_number(run, values, "uid", 10, 0),
        gid=_number(run, values, "gid", 10, 0),
    )


def _values(run: Run, text: str, words: Expander) -> dict[str, str]:
    values: dict[str, str] = {}
    for field in text.split(","):
        name, equals, value = field.partition("=")
        name = _SAME.get(name.strip().lower(), name.strip().lower())
        value = expand(run, value, words.word)
        if name in _SWITCHES:
            value = value.lower() if equals else "true"
            if value not in ("true", "false", "1", "0"):
                raise _wrong(run, f"invalid value {show(value)} for {name}: use true or false")
            value = "true" if value in ("true", "1") else "false"
        elif not equals:
            raise _wrong(run, f"invalid field {show(field)} must be a key=value pair")
        if name in values:
            raise _wrong(run, f"{name} is given twice in --mount={text[:80]}")
        values[name] = value
    return values


def _target(run: Run, kind: str, values: dict[str, str], cwd: str) -> str:
    target = values.get("target", "")
    if not target and kind == "secret" and values.get("env"):
        return ""
    if not target and kind == "secret":
        name = values.get("id") or posixpath.basename(values.get("source", ""))
        target = f"/run/secrets/{name}"
    if not target and kind == "ssh":
        return ""
    if not target or "\0" in target:
        raise _wrong(run, f"invalid mount target {show(target)}: a path is needed")
    path = posixpath.normpath("/" + posixpath.join(cwd or "/", target).lstrip("/"))
    if path in ("/", "/proc", "/sys", "/dev"):
        raise _wrong(run, f"invalid mount target {show(target)}")
    return path


def _id(run: Run, kind: str, values: dict[str, str], target: str) -> str:
    text = values.get("id", "")
    if not text and kind == "cache":
        return target
    if not text and kind == "ssh":
        return "default"
    if not text and kind == "secret":
        text = posixpath.basename(values.get("source", "")) or posixpath.basename(target)
    if text and _ID.fullmatch(text) is None:
        raise _wrong(run, f"invalid id {show(text)} of a {kind} mount")
    return text


def _is_read_only(kind: str, values: dict[str, str]) -> bool:
    if "rw" in values:
        return values["rw"] == "false"
    return values.get("ro", "true" if kind == "bind" else "false") == "true"


def _size(run: Run, values: dict[str, str]) -> int:
    text = values.get("size")
    if text is None:
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise _wrong(run, f"invalid size {show(text)} of a tmpfs mount")
    return int(match[1]) * _UNITS[match[2].lower()]


def _number(run: Run, values: dict[str, str], name: str, base: int, default: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    digits = "[0-7]{1,5}" if base == 8 else "[0-9]{1,9}"
    if re.fullmatch(digits, text, re.ASCII) is None:
        raise _wrong(run, f"invalid {name} {show(text)} of a mount")
    return int(text, base)


def _wrong(run: Run, reason: str) -> DockerfileError:
    return DockerfileError(reason, run.origin.place)
