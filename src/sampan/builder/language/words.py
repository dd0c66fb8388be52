"""Variables and quotes in the words of a Dockerfile.

`Expander` does what a shell does with one word, as far as the Dockerfile reference has it:

* `'...'` is literal; in `"..."` the escape character protects itself, `"` and `$`; elsewhere it
  protects any character;
* `$name`, `${name}`; `${name:-word}`, `${name:+word}`, `${name:?word}` and the same without the
  colon (set instead of set and not empty);
* `${name#pattern}` `##` `%` `%%` take a prefix or suffix away, `${name/pattern/word}` and `//`
  replace; in patterns `*` and `?` are special and the backslash protects.

A name that is not set is empty, and is remembered in `unset` for the linter. `split` gives several
words where an unquoted variable has blanks in it, which EXPOSE alone wants.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sampan.builder.language.globs import Glob
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RESULT: Final = 1 << 20
MAX_NESTING: Final = 32
_SPECIAL: Final = "@*#?-!"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)


class WordError(InvalidArgument):
    """A word cannot be expanded; `column` is where in it, from 0."""

    def __init__(self, reason: str, column: int) -> None:
        super().__init__(reason)
        self.column = column


class Expander:
    """Expands words with the variables of one moment."""

    def __init__(self, values: Mapping[str, str], escape: str = "\\") -> None:
        self._values = values
        self._escape = escape
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def word(self, text: str) -> str:
        """One word out of `text`.

        Raises:
            WordError: a quote or brace is open, a modifier is unknown, `:?` says so.
        """
        return "".join(piece for piece, _ in self._scan(text))

    def split(self, text: str) -> list[str]:
        """The words that `text` gives when blanks of unquoted text and values divide it."""
        words: list[str] = []
        current: list[str] = []
        begun = False
        for piece, divides in self._scan(text):
            if not divides:
                current.append(piece)
                begun = True
                continue
            for char in piece:
                if not char.isspace():
                    current.append(char)
                    begun = True
                elif begun:
                    words.append("".join(current))
                    current, begun = [], False
        if begun:
            words.append("".join(current))
        return words

    def document(self, text: str) -> str:
        """Variables in a here-document: quotes mean nothing there."""
        scan = _Scan(self, text, self._escape)
        return scan.document()

    def _scan(self, text: str) -> list[tuple[str, bool]]:
        return _Scan(self, text, self._escape).run()

    def look_up(self, name: str) -> str | None:
        """The value of a variable, None when it is not set."""
        self.used.add(name)
        value = self._values.get(name)
        if value is None:
            self.unset.add(name)
        return value


class _Scan:
    """One pass over one text."""

    def __init__(self, owner: Expander, text: str, escape: str, depth: int = 0) -> None:
        self._owner = owner
        self._text = text
        self._escape = escape
        self._at = 0
        self._size = 0
        self._depth = depth

    def run(self) -> list[tuple[str, bool]]:
        """Pieces, and whether blanks in them divide words."""
        return self._until("")

    def document(self) -> str:
        """Only variables and escapes of `$` and of the escape itself."""
        pieces: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "$":
                pieces.append(self._dollar())
            elif char == self._escape and self._text[self._at + 1 : self._at + 2] in (
                "$",
                self._escape,
            ):
                pieces.append(self._text[self._at + 1])
                self._at += 2
            else:
                pieces.append(char)
                self._at += 1
        return "".join(pieces)

    def _until(self, stop: str) -> list[tuple[str, bool]]:
        """Everything up to one of the characters `stop`, which is consumed."""
        pieces: list[tuple[str, bool]] = []
        opened = self._at
        while self._at < len(self._text):
            char = self._text[self._at]
            if stop and char in stop:
                self._at += 1
                return pieces
            pieces.append(self._piece(char))
            self._size += len(pieces[-1][0])
            if self._size > MAX_RESULT:
                raise WordError(f"the word becomes longer than {MAX_RESULT} bytes", opened)
        if stop:
            raise WordError(f"syntax error: missing {stop[-1]!r}", opened)
        return pieces

    def _piece(self, char: str) -> tuple[str, bool]:
        if char == "'":
            return self._single(), False
        if char == '"':
            return self._double(), False
        if char == "$":
            return self._dollar(), True
        self._at += 1
        if char == self._escape:
            protected = self._text[self._at : self._at + 1]
            self._at += 1
            return protected, False
        return char, True

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise WordError(
                "unexpected end of statement while looking for a single quote", self._at
            )
        text = self._text[self._at + 1 : end]
        self._at = end + 1
        return text

    def _double(self) -> str:
        opened = self._at
        self._at += 1
        pieces: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return "".join(pieces)
            if char == "$":
                pieces.append(self._dollar())
                continue
            following = self._text[self._at + 1 : self._at + 2]
            if char == self._escape and following and following in ('"', "$", self._escape):
                pieces.append(following)
                self._at += 2
                continue
            pieces.append(char)
            self._at += 1
        raise WordError("unexpected end of statement while looking for a double quote", opened)

    def _dollar(self) -> str:
        self._at += 1
        following = self._text[self._at : self._at + 1]
        if following == "{":
            return self._braces()
        name = self._name()
        if not name:
            return "$"
        return self._owner.look_up(name) or ""

    def _name(self) -> str:
        for grammar in (_NAME, _DIGITS):
            if match := grammar.match(self._text, self._at):
                self._at = match.end()
                return match[0]
        char = self._text[self._at : self._at + 1]
        if char and char in _SPECIAL:
            self._at += 1
            return char
        return ""

    def _braces(self) -> str:
        opened = self._at
        self._at += 1
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise WordError(f"variables are nested more than {MAX_NESTING} deep", opened)
        try:
            name = self._name()
            if not name:
                raise WordError("syntax error: bad substitution", opened)
            value = self._owner.look_up(name)
            return self._modified(name, value, opened)
        finally:
            self._depth -= 1

    def _modified(self, name: str, value: str | None, opened: int) -> str:
        operator = self._text[self._at : self._at + 1]
        self._at += 1
        if operator == "}":
            return value or ""
        if operator == ":":
            operator = self._text[self._at : self._at + 1]
            self._at += 1
            if not operator or operator not in "-+?":
                raise WordError(f"unsupported modifier (:{operator}) in substitution", opened)
            value = value or None
        if operator and operator in "-+?":
            return self._chosen(operator, name, value)
        if operator and operator in "#%":
            return self._trimmed(operator, value or "")
        if operator == "/":
            return self._replaced(value or "")
        if not operator:
            raise WordError("syntax error: missing '}'", opened)
        raise WordError(f"unsupported modifier ({operator}) in substitution", opened)

    def _text_until(self, stop: str) -> str:
        return "".join(piece for piece, _ in self._until(stop))

    def _chosen(self, operator: str, name: str, value: str | None) -> str:
        at = self._at
        known = set(self._owner.unset)
        word = self._text_until("}")
        if operator == "-":
            if value is not None:
                self._owner.unset.intersection_update(known)
            self._owner.unset.discard(name)
            return word if value is None else value
        if operator == "+":
            self._owner.unset.discard(name)
            return "" if value is None else word
        if value is None:
            raise WordError(f"{name}: {word or 'not allowed to be unset'}", at)
        return value

    def _trimmed(self, operator: str, value: str) -> str:
        longest = self._text[self._at : self._at + 1] == operator
        self._at += longest
        pattern = self._pattern("}")
        if operator == "#":
            return value[pattern.prefix(value, longest=longest) or 0 :]
        return value[: len(value) - (pattern.suffix(value, longest=longest) or 0)]

    def _replaced(self, value: str) -> str:
        every = self._text[self._at : self._at + 1] == "/"
        self._at += every
        pattern = self._pattern("/")
        word = self._text_until("}")
        return value if pattern.is_empty else _replace(value, pattern, word, every=every)

    def _pattern(self, stop: str) -> Glob:
        """The pattern up to `stop`."""
        opened = self._at
        parts: list[str | tuple[str]] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == stop:
                self._at += 1
                return Glob(parts)
            if char == "$":
                parts.append((self._dollar(),))
            elif char in "\"'":
                parts.append((self._single() if char == "'" else self._double(),))
            elif char == "\\" and self._at + 1 < len(self._text):
                parts.append((self._text[self._at + 1],))
                self._at += 2
            else:
                parts.append(char)
                self._at += 1
        raise WordError(f"syntax error: missing {stop!r}", opened)


def _replace(value: str, pattern: Glob, word: str, *, every: bool) -> str:
    parts: list[str] = []
    at = size = 0
    while (found := pattern.search(value, at)) is not None:
        parts += (value[at : found[0]], word)
        size += len(word) + found[0] - at
        if size > MAX_RESULT:
            raise WordError(f"the word becomes longer than {MAX_RESULT} bytes", 0)
        if found[1] == found[0]:
            parts.append(value[found[0] : found[0] + 1])
            found = (found[0], found[0] + 1)
        at = found[1]
        if not every or at > len(value):
            break
    parts.append(value[at:])
    return "".join(parts)
