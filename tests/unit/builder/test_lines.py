"""Directives, continuations and here-documents, by the reference's rules."""

from __future__ import annotations

import pytest

from sampan.builder.language import lines
from sampan.builder.language.failure import DockerfileError
from sampan.errors import InvalidArgument


def read(text):
    return lines.read(text.encode())


def words(text):
    return [(line.name, line.rest) for line in read(text).lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\n", [("FROM", "a")]),
        ("from a", [("FROM", "a")]),
        ("  FROM\ta  \n", [("FROM", "a")]),
        ("\ufeffFROM a\n", [("FROM", "a")]),
        ("FROM a\r\nRUN b\r\n", [("FROM", "a"), ("RUN", "b")]),
        ("# c\n\nFROM a # b\n", [("FROM", "a # b")]),
        ("RUN a \\\n  b\n", [("RUN", "a   b")]),
        ("RUN a \\  \n  b\n", [("RUN", "a   b")]),
        ("RUN a \\\n# c\n  b\n", [("RUN", "a   b")]),
        ("RUN a \\\n\n  b\n", [("RUN", "a   b")]),
        ("RUN a \\\\\nUSER b\n", [("RUN", "a \\\\"), ("USER", "b")]),
        ("# escape=`\nRUN a `\n b\\\n", [("RUN", "a  b\\")]),
        ("RUN a \\\n", [("RUN", "a")]),
        ("RU\\\nN a\n", [("RUN", "a")]),
        ("#!/usr/bin/x\nFROM a\n", [("FROM", "a")]),
    ],
)
def test_lines_are_joined(text, expected):
    assert words(text) == expected


def test_directives_end_at_the_first_other_line():
    source = read("# Syntax=docker/dockerfile:1\n#ESCAPE = `\nFROM a\n# escape=\\\n")
    assert source.directives == {"syntax": "docker/dockerfile:1", "escape": "`"}
    assert read("\n# escape=`\nFROM a\n").escape == "\\"
    assert read("# about\n# escape=`\nFROM a\n").escape == "\\"
    assert read("# unknown=1\n# escape=`\nFROM a\n").escape == "\\"
    assert read("FROM a\n# escape=`\n").escape == "\\"


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("# escape=x\nFROM a\n", ":1:1", "invalid escape"),
        ("# escape=`\n# escape=`\nFROM a\n", ":2:1", "only one escape"),
        ("# syntax=evil.example/frontend\nFROM a\n", ":1:1", "syntax"),
        ("", ":1:1", "cannot be empty"),
        ("# only\n", ":1:1", "no instructions"),
        ("FROM a\nRUN \0\n", ":2:1", "NUL"),
        ("FROM a\nRUN <<E\nx\n", ":2:1", "unterminated heredoc"),
        ("FROM a\n   RUN " + "x" * (lines.MAX_LINE + 1), ":2:4", "longer than"),
    ],
)
def test_refusals_say_where(text, place, reason):
    with pytest.raises(DockerfileError) as caught:
        read(text)
    assert f"Dockerfile{place}: " in str(caught.value)
    assert reason in caught.value.reason


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(DockerfileError, match="Dockerfile:2:1: the text is not UTF-8"):
        lines.read(b"FROM a\nRUN \xff\n")
    with pytest.raises(InvalidArgument, match="larger than"):
        lines.read(b"x" * (lines.MAX_FILE + 1))
    with pytest.raises(InvalidArgument, match="more than"):
        lines.read(b"RUN x\n" * (lines.MAX_LINES + 1))


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("RUN <<E\na\nb\nE\n", [("E", True, "a\nb\n")]),
        ("RUN <<'E'\n$a\nE\n", [("E", False, "$a\n")]),
        ('RUN <<"E"\n$a\nE\n', [("E", False, "$a\n")]),
        ("RUN <<-E\n\t\ta\n\tE\n", [("E", True, "a\n")]),
        ("COPY <<A <<B /d/\n1\nA\n2\nB\n", [("A", True, "1\n"), ("B", True, "2\n")]),
        ("RUN 3<<E cat <&3\nx\nE\n", [("E", True, "x\n")]),
        ("RUN <<E\n# kept\n\nFROM x\nE\n", [("E", True, "# kept\n\nFROM x\n")]),
        ("ONBUILD RUN <<E\nx\nE\n", [("E", True, "x\n")]),
        ("ENV a=<<E\n", []),
        ('RUN ["<<E"]\n', []),
        ("RUN echo '<<E'\n", []),
        ("RUN cat <<<word\n", []),
        ("RUN <<E\nE\n", [("E", True, "")]),
    ],
)
def test_here_documents(text, documents):
    found = read(text).lines[0].heredocs
    assert [(each.name, each.expand, each.content) for each in found] == documents


def test_the_line_behind_a_here_document_is_its_own():
    found = read("RUN <<E\nx\nE\nUSER a\n").lines
    assert [line.name for line in found] == ["RUN", "USER"]
    assert (found[0].place.line, found[0].last, found[1].place.line) == (1, 3, 4)


def test_empty_continuation_lines_are_remembered():
    assert read("RUN a \\\n\n b\n").lines[0].blank_continuation
    assert not read("RUN a \\\n# c\n b\n").lines[0].blank_continuation
