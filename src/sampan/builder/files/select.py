"""Which files a COPY means: wildcards, links, exclusions, and the names that they get.

`select` turns the words of an instruction into picks: a path in the source and the name below the
target (b"" for what is in a directory, which goes into the target itself). `fingerprint` is the
hash of everything that the picks would copy: names, kinds, modes, contents and links, and not the
times and owners, which a checkout changes.

Wildcards are those of Go's filepath.Match: `*`, `?`, `[a-z]`, and the backslash protects; a star
does not cross a slash, and links are not followed while a wildcard is looked for. Exclusions have
the grammar of ignore files; they are asked for the path below what was named.
"""

from __future__ import annotations

import hashlib
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from sampan.builder.files import nodes
from sampan.builder.files.nodes import join, resolve
from sampan.builder.language.ignore import Ignore, clean, translate_component
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sampan.builder.files.nodes import Node, Source

_META = re.compile(rb"[*?\[\\]")


class Pick(NamedTuple):
    """Something to copy. `name` is its place below the target."""

    path: bytes
    node: Node
    name: bytes


class Wish(NamedTuple):
    """What an instruction asks for; `is_directory` is whether the target must be one."""

    sources: Sequence[str]
    is_directory: bool
    parents: bool = False
    exclude: Sequence[str] = ()


def ignore_of(wish: Wish) -> Ignore:
    """The exclusions. Raises InvalidArgument when one is malformed."""
    return Ignore([pattern for text in wish.exclude if (pattern := clean(text))])


def select(source: Source, wish: Wish) -> list[Pick]:
    """The picks of all words, in order.

    Raises:
        InvalidArgument: a word means nothing that is there, or leaves the source.
    """
    picks: list[Pick] = []
    ignore = ignore_of(wish)
    for word in wish.sources:
        found = list(_find(source, word, wish))
        if ignore:
            found = [pick for pick in found if not _is_excluded(ignore, pick, wish)]
        picks += found
    if not picks and not ignore:
        raise InvalidArgument("COPY failed: no source files were specified")
    if len(picks) > 1 and not wish.is_directory:
        raise InvalidArgument(
            "COPY failed: when using COPY with more than one source file, the destination must be "
            "a directory and end with a /"
        )
    return picks


def walk(source: Source, pick: Pick, ignore: Ignore) -> Iterator[tuple[bytes, bytes, Node]]:
    """What is in a picked directory: (path in the source, path below the pick, node), sorted.

    A directory comes before what is in it. What is excluded is left out, but a directory stays
    when exceptions may bring something in it back.
    """
    stack = [(pick.path, b"")]
    while stack:
        directory, below = stack.pop()
        inner: list[tuple[bytes, bytes]] = []
        for name in source.names(directory):
            path, relative = join(directory, name), join(below, name)
            node = source.node(path)
            if node is None:
                continue
            if ignore and ignore.excludes(_text(relative)):
                if node.kind == nodes.DIRECTORY and ignore.has_exceptions:
                    inner.append((path, relative))
                continue
            yield path, relative, node
            if node.kind == nodes.DIRECTORY:
                inner.append((path, relative))
        stack += reversed(inner)


def fingerprint(source: Source, picks: Sequence[Pick], ignore: Ignore) -> str:
    """The hash of everything that the picks copy, in hexadecimal."""
    total = hashlib.sha256()
    for pick in picks:
        _digest(total, b"pick", pick.name, source.hashed(pick.path, pick.node))
        if pick.node.kind == nodes.DIRECTORY:
            for path, below, node in walk(source, pick, ignore):
                _digest(total, b"file", below, source.hashed(path, node))
    return total.hexdigest()


def _digest(total: hashlib._Hash, word: bytes, name: bytes, node: Node) -> None:
    content = node.link if node.kind == nodes.LINK else node.digest
    mode = 0 if node.kind == nodes.LINK else node.mode
    packed = struct.pack(
        "<4sIcIQQ", word, len(name), node.kind.encode(), mode, node.rdev, len(content)
    )
    total.update(packed + name + content)


def _find(source: Source, word: str, wish: Wish) -> Iterator[Pick]:
    raw = word.encode("utf-8", "surrogateescape")
    pivot, inside = _pivot(raw, wish)
    parts = [part for part in (pivot + b"/" + inside).split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        depth = 0
        for part in parts:
            depth += -1 if part == b".." else 1
            if depth < 0:
                raise InvalidArgument(
                    f"COPY failed: forbidden path outside the build context: {word[:200]} ()"
                )
    skipped = len([part for part in pivot.split(b"/") if part not in (b"", b".")])
    if not any(_META.search(part) for part in parts):
        yield _literal(source, word, parts, skipped, wish)
        return
    for path in _expand(source, parts):
        yield _picked(source, path, path.split(b"/"), skipped, wish)


def _pivot(raw: bytes, wish: Wish) -> tuple[bytes, bytes]:
    """With --parents, what lies in front of `/./` is not repeated below the target."""
    if wish.parents and b"/./" in raw:
        before, _, behind = raw.partition(b"/./")
        return before, behind
    return b"", raw


def _literal(source: Source, word: str, parts: list[bytes], skipped: int, wish: Wish) -> Pick:
    path = b"/".join(parts)
    if source.node(b"") is None or resolve(source, path)[1] is None:
        raise InvalidArgument(
            "COPY failed: file not found in build context or excluded by .dockerignore: "
            f"stat {word[:200].lstrip('/')}: file does not exist"
        )
    return _picked(source, path, parts, skipped, wish)


def _picked(source: Source, path: bytes, parts: list[bytes], skipped: int, wish: Wish) -> Pick:
    """A word's own file: a link in the last place is followed."""
    reached, node = resolve(source, path)
    if node is None:
        raise InvalidArgument(f"COPY failed: {_text(path)[:200]} is a link to nothing")
    if wish.parents:
        return Pick(reached, node, b"/".join(parts[skipped:]))
    if node.kind == nodes.DIRECTORY:
        return Pick(reached, node, b"")
    return Pick(reached, node, parts[-1])


def _expand(source: Source, parts: list[bytes]) -> list[bytes]:
    """The paths that match, sorted as a walk meets them."""
    first = next(number for number, part in enumerate(parts) if _META.search(part))
    start, node = resolve(source, b"/".join(parts[:first]))
    found = [start] if node is not None and node.kind == nodes.DIRECTORY else []
    for number, part in enumerate(parts[first:], first):
        last = number == len(parts) - 1
        pattern = translate_component(_text(part))
        found = [
            join(directory, name)
            for directory in found
            for name in source.names(directory)
            if pattern.fullmatch(_text(name))
            and (last or _is_directory(source, join(directory, name)))
        ]
    return found


def _is_directory(source: Source, path: bytes) -> bool:
    node = source.node(path)
    return node is not None and node.kind == nodes.DIRECTORY


def _is_excluded(ignore: Ignore, pick: Pick, wish: Wish) -> bool:
    """Whether a word's own file is excluded, by its name or, with --parents, its path."""
    if pick.node.kind == nodes.DIRECTORY and not wish.parents:
        return False
    return bool(pick.name) and ignore.excludes(_text(pick.name))


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
