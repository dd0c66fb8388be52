"""The lines of a Dockerfile: directives, comments, continuations and here-documents.

`read` turns bytes into logical lines; it knows of instructions only that RUN, COPY and ADD (also
behind ONBUILD) may have here-documents. The rules are those of the Dockerfile reference:

* `# name=value` lines at the very top are directives (syntax, escape, check); the first line that
  is none ends them. An unknown name makes the line a comment.
* A line that ends in the escape character, blanks behind it allowed, goes on in the next one;
  comments and empty lines in between are left out.
* Only the syntax images `docker/dockerfile` are accepted, and mean what is built in here: no
  program is fetched to read a Dockerfile.

Ceilings: 4 MiB for the file, 1 MiB for a logical line, 10,000 of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from sampan.builder.language.failure import DockerfileError, Place, nearest, show
from sampan.errors import InvalidArgument

MAX_FILE: Final = 4 << 20
MAX_LINE: Final = 1 << 20
MAX_LINES: Final = 10_000
MAX_HEREDOCS: Final = 64

_DIRECTIVE: Final = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S.*?)\s*", re.ASCII)
_KNOWN_DIRECTIVES: Final = ("check", "escape", "syntax")
_SYNTAX: Final = re.compile(r"(docker\.io/)?docker/dockerfile(-upstream)?([:@]\S+)?", re.ASCII)
_HEREDOC: Final = re.compile(r"(\d*)<<(-?)([^<]*)", re.ASCII)
_WITH_HEREDOCS: Final = frozenset(("RUN", "COPY", "ADD"))
_CONTINUED: Final = {
    "\\": re.compile(r"(?:^|[^\\])\\[ \t]*$"),
    "`": re.compile(r"(?:^|[^`])`[ \t]*$"),
}


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document: its name, whether variables in it are expanded, and what it says."""

    name: str
    expand: bool
    chomp: bool
    content: str
    descriptor: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One logical line: `word` is the instruction as it was written, `rest` what follows it."""

    word: str
    rest: str
    place: Place
    last: int
    original: str
    heredocs: tuple[Heredoc, ...] = ()
    blank_continuation: bool = False

    @property
    def name(self) -> str:
        """The instruction in capitals."""
        return self.word.upper()


@dataclass(frozen=True, slots=True)
class Source:
    """A Dockerfile as lines, and what its directives said."""

    lines: tuple[Line, ...]
    escape: str = "\\"
    directives: dict[str, str] = field(default_factory=dict)


def read(content: bytes, file: str = "Dockerfile") -> Source:
    """The logical lines of a Dockerfile.

    Raises:
        DockerfileError: it is malformed; the message says where.
        InvalidArgument: it is too large or no text.
    """
    if len(content) > MAX_FILE:
        raise InvalidArgument(f"{file} is larger than {MAX_FILE} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DockerfileError("the text is not UTF-8", Place(file, line)) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DockerfileError("a NUL character is not allowed", Place(file, line))
    physical = [one.removesuffix("\r") for one in text.split("\n")]
    directives, start = _directives(physical, file)
    reader = _Reader(physical, file, directives.get("escape", "\\"), start)
    lines = tuple(reader.run())
    if not lines:
        what = (
            "file with no instructions" if content else f"the Dockerfile ({file}) cannot be empty"
        )
        raise DockerfileError(what, Place(file, 1))
    return Source(lines, reader.escape, directives)


def _directives(physical: list[str], file: str) -> tuple[dict[str, str], int]:
    found: dict[str, str] = {}
    number = 0
    for number, line in enumerate(physical):
        match = _DIRECTIVE.fullmatch(line)
        if match is None or match[1].lower() not in _KNOWN_DIRECTIVES:
            break
        name, place = match[1].lower(), Place(file, number + 1)
        if name in found:
            raise DockerfileError(f"only one {name} parser directive can be used", place)
        found[name] = match[2]
        _check_directive(name, match[2], place)
    return found, number


def _check_directive(name: str, value: str, place: Place) -> None:
    if name == "escape" and value not in ("\\", "`"):
        raise DockerfileError(f"invalid escape {show(value)}: it must be \\ or `", place)
    if name == "syntax" and _SYNTAX.fullmatch(value) is None:
        raise DockerfileError(
            f"syntax {show(value)} is not supported: Dockerfiles are read by the engine itself, "
            "only docker/dockerfile can be named",
            place,
        )


class _Reader:
    """Goes through the physical lines once."""

    def __init__(self, physical: list[str], file: str, escape: str, start: int) -> None:
        self.escape = escape
        self._physical = physical
        self._file = file
        self._at = start
        self._continued = _CONTINUED[escape]

    def run(self) -> list[Line]:
        """All logical lines."""
        lines: list[Line] = []
        while self._at < len(self._physical):
            first = self._physical[self._at]
            if not first.strip() or first.lstrip().startswith("#"):
                self._at += 1
                continue
            lines.append(self._line())
            if len(lines) > MAX_LINES:
                raise InvalidArgument(f"{self._file} has more than {MAX_LINES} instructions")
        return lines

    def _line(self) -> Line:
        start = self._at
        indent = len(self._physical[start]) - len(self._physical[start].lstrip())
        place = Place(self._file, start + 1, indent + 1)
        text, blank = self._joined(place)
        word, _, rest = _split(text)
        heredocs = self._heredocs(word, rest, place)
        return Line(
            word=word,
            rest=rest,
            place=place,
            last=self._at,
            original="\n".join(self._physical[start : self._at]),
            heredocs=heredocs,
            blank_continuation=blank,
        )

    def _joined(self, place: Place) -> tuple[str, bool]:
        """A line with its continuations, and whether an empty line was among them."""
        parts: list[str] = []
        size = 0
        blank = False
        going_on = True
        while going_on and self._at < len(self._physical):
            line = self._physical[self._at]
            self._at += 1
            if parts and (not line.strip() or line.lstrip().startswith("#")):
                blank = blank or not line.strip()
                continue
            going_on = self._continued.search(line) is not None
            if going_on:
                line = line.rstrip(" \t")[:-1]
            parts.append(line if parts else line.lstrip())
            size += len(line)
            if size > MAX_LINE:
                raise DockerfileError(f"the line is longer than {MAX_LINE} bytes", place)
        return "".join(parts).strip(), blank

    def _heredocs(self, word: str, rest: str, place: Place) -> tuple[Heredoc, ...]:
        if "<<" not in rest:
            return ()
        name = word.upper()
        if name == "ONBUILD":
            word, _, rest = _split(rest)
            name = word.upper()
        if name not in _WITH_HEREDOCS or rest.startswith("["):
            return ()
        openers = [opener for part in shell_words(rest, self.escape) if (opener := _opener(part))]
        if len(openers) > MAX_HEREDOCS:
            raise DockerfileError(f"more than {MAX_HEREDOCS} here-documents", place)
        return tuple(self._document(opener, place) for opener in openers)

    def _document(self, opener: Heredoc, place: Place) -> Heredoc:
        body: list[str] = []
        size = 0
        while self._at < len(self._physical):
            line = self._physical[self._at]
            self._at += 1
            stripped = line.lstrip("\t") if opener.chomp else line
            if stripped == opener.name:
                content = "".join(part + "\n" for part in body)
                return Heredoc(opener.name, opener.expand, opener.chomp, content, opener.descriptor)
            body.append(stripped)
            size += len(line)
            if size > MAX_LINE:
                raise DockerfileError(f"a here-document is longer than {MAX_LINE} bytes", place)
        raise DockerfileError(f"unterminated heredoc: no line {show(opener.name)} ends it", place)


def _split(text: str) -> tuple[str, str, str]:
    match = re.match(r"(\S+)(\s*)", text)
    assert match is not None
    return match[1], match[2], text[match.end() :]


def _opener(word: str) -> Heredoc | None:
    """The here-document that a word opens, without its content."""
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    name = re.sub(r"""["']""", "", match[3])
    if not name or re.search(r"\s", match[3]):
        return None
    return Heredoc(name, name == match[3], match[2] == "-", "", match[1])


def shell_words(text: str, escape: str = "\\") -> list[str]:
    """`text` at its blanks, quotes and escapes kept as they are written."""
    words: list[str] = []
    current: list[str] = []
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        if char == escape and quote != "'" and position + 1 < len(text):
            current.append(text[position : position + 2])
            position += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            if current:
                words.append("".join(current))
                current = []
            position += 1
            continue
        current.append(char)
        position += 1
    if current:
        words.append("".join(current))
    return words


def unknown_instruction(line: Line, known: tuple[str, ...]) -> DockerfileError:
    """The error for a word that is no instruction."""
    hint = nearest(line.name, known)
    return DockerfileError(f"unknown instruction: {line.word[:64]}{hint}", line.place)
