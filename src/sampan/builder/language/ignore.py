"""`.dockerignore` patterns, by the rules of the reference.

A line is a pattern; `#` in the first column makes it a comment; `!` takes an exclusion back; the
last line that matches a path, or one of its parents, decides. `*` is any text without a slash, `?`
one such character, `[a-z]` a class, `**` any number of directories, and the backslash protects.
Leading and trailing slashes mean nothing.
"""

from __future__ import annotations

import posixpath
import re
from typing import Final

from sampan.errors import InvalidArgument

MAX_FILE: Final = 1 << 20
MAX_PATTERNS: Final = 10_000
_ESCAPED: Final = frozenset(".+()|{}$^")


def read_patterns(content: bytes, name: str = ".dockerignore") -> list[str]:
    """The patterns of an ignore file, cleaned.

    Raises:
        InvalidArgument: it is too large or no text.
    """
    if len(content) > MAX_FILE:
        raise InvalidArgument(f"{name} is larger than {MAX_FILE} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{name} is not UTF-8") from error
    lines = [line for line in text.split("\n") if not line.startswith("#")]
    patterns = [pattern for line in lines if (pattern := clean(line))]
    if len(patterns) > MAX_PATTERNS:
        raise InvalidArgument(f"{name} has more than {MAX_PATTERNS} patterns")
    return patterns


def clean(line: str) -> str:
    """One pattern in its plain form, "" for none."""
    text = line.strip()
    sign = ""
    if text.startswith("!"):
        sign, text = "!", text[1:].strip()
    if not text:
        return sign
    text = posixpath.normpath(text)
    return sign + (text.lstrip("/") if len(text) > 1 else text)


class Ignore:
    """Patterns, ready to be asked."""

    def __init__(self, patterns: list[str]) -> None:
        """`patterns` as `read_patterns` gives them.

        Raises:
            InvalidArgument: a pattern is malformed.
        """
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for pattern in patterns:
            back = pattern.startswith("!")
            text = pattern[1:] if back else pattern
            if not text:
                raise InvalidArgument('illegal exclusion pattern: "!"')
            if text != ".":
                self._rules.append((back, compiled(text)))
        self.has_exceptions = any(back for back, _ in self._rules)
        self._parents: dict[str, tuple[bool, ...]] = {"": ()}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, path: str) -> bool:
        """Whether `path`, relative and with slashes, is left out."""
        excluded = False
        for (back, _), hit in zip(self._rules, self._hits(path), strict=True):
            if hit:
                excluded = not back
        return excluded

    def _hits(self, path: str) -> tuple[bool, ...]:
        """Which rules match the path or a parent of it."""
        parent = path.rpartition("/")[0]
        above = self._hits_of_directory(parent) if parent else (False,) * len(self._rules)
        return tuple(
            was or rule.fullmatch(path) is not None
            for was, (_, rule) in zip(above, self._rules, strict=True)
        )

    def _hits_of_directory(self, path: str) -> tuple[bool, ...]:
        found = self._parents.get(path)
        if found is None:
            found = self._parents[path] = self._hits(path)
        return found


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression of one pattern.

    Raises:
        InvalidArgument: a class is open or empty.
    """
    try:
        return re.compile("".join(_translated(pattern)), re.DOTALL)
    except re.error as error:
        raise InvalidArgument(f"invalid pattern {pattern[:80]!r}: {error}") from None


def _translated(pattern: str) -> list[str]:
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            at = _star(pattern, at, parts)
        elif char == "?":
            parts.append("[^/]")
        elif char == "\\":
            parts.append(re.escape(pattern[at : at + 1] or "\\"))
            at += 1
        elif char == "[":
            at = _class(pattern, at, parts)
        else:
            parts.append(re.escape(char))
    return parts


def _star(pattern: str, at: int, parts: list[str]) -> int:
    if pattern[at : at + 1] != "*":
        if not parts or parts[-1] != "[^/]*":
            parts.append("[^/]*")
        return at
    at += 1
    if pattern[at : at + 1] == "/":
        at += 1
    part = ".*" if at >= len(pattern) else "(?:.*/)?"
    if not parts or parts[-1] != part:
        parts.append(part)
    return at


def _class(pattern: str, at: int, parts: list[str]) -> int:
    """A class of characters; its text is kept, what re would read into it is protected."""
    end = at + (pattern[at : at + 1] in ("^", "!"))
    while end < len(pattern) and pattern[end] != "]":
        end += 1 + (pattern[end] == "\\")
    if end >= len(pattern):
        raise InvalidArgument(f"invalid pattern {pattern[:80]!r}: a class is not closed")
    inner = pattern[at:end]
    sign = "^" if inner[:1] in ("^", "!") else ""
    inner = inner[len(sign) :].replace("[", r"\[").replace("&&", r"&\&").replace("||", r"|\|")
    parts.append(f"[{sign}{inner.replace('~~', '~' + chr(92) + '~')}]")
    return end + 1


def translate_component(pattern: str) -> re.Pattern[str]:
    """The regular expression of one component of a wildcard, where `**` is no more than `*`.

    Raises:
        InvalidArgument: a class is open or empty.
    """
    return compiled(re.sub(r"(?<!\\)\*{2,}", "*", pattern))
