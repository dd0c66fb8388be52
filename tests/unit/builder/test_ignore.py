"""Ignore files: the reference's rules, line by line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sampan.builder import builder
from sampan.builder.language.ignore import MAX_FILE, Ignore, read_patterns
from sampan.errors import InvalidArgument

FOREIGN = ".dockerfile.0123456789abcdef"


def excluded(patterns, path):
    return Ignore(read_patterns(patterns.encode())).excludes(path)


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        ("a", "a", True),
        ("a", "b/a", False),
        ("a", "a/b/c", True),
        ("/a", "a", True),
        ("a/", "a", True),
        ("./a", "a", True),
        ("x/../a", "a", True),
        ("  a  ", "a", True),
        ("# a\n", "a", False),
        (" # a\n", "# a", True),
        ("*", "a", True),
        ("*.md", "a.md", True),
        ("*.md", "d/a.md", False),
        ("*/a", "d/a", True),
        ("*/*/a", "d/e/a", True),
        ("**/a", "a", True),
        ("**/a", "d/e/a", True),
        ("d/**", "d/a", True),
        ("d/**", "d", False),
        ("d/**/a", "d/a", True),
        ("d/**/a", "d/x/y/a", True),
        ("**", "x/y", True),
        ("**/*.go", "x/y.go", True),
        ("a?", "ab", True),
        ("a?", "a", False),
        ("a?", "a/", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("a.b", "axb", False),
        ("a+b", "a+b", True),
        ("*\n!a", "a", False),
        ("*\n!a", "b", True),
        ("*\n!d/a", "d/a", False),
        ("*\n!d/a", "d/b", True),
        ("!a\na", "a", True),
        ("d\n!d/keep\n", "d/keep", False),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("! a", "a", False),
        ("\ufeffa", "a", True),
        ("a\r\n", "a", True),
        (".", "a", False),
    ],
)
def test_patterns(patterns, path, expected):
    assert excluded(patterns, path) is expected


@pytest.mark.parametrize("pattern", ["[a", "[", "[]", "a[b-", "!"])
def test_malformed_patterns(pattern):
    with pytest.raises(InvalidArgument):
        Ignore(read_patterns(pattern.encode()))


def test_bounds():
    with pytest.raises(InvalidArgument, match="larger than"):
        read_patterns(b"x" * (MAX_FILE + 1))
    with pytest.raises(InvalidArgument, match="more than"):
        read_patterns(b"x\n" * 20_000)
    with pytest.raises(InvalidArgument, match="not UTF-8"):
        read_patterns(b"\xff")


@pytest.mark.parametrize(
    ("text", "name", "hidden"),
    [
        (b"", "Dockerfile", ()),
        (b"Dockerfile\n", "Dockerfile", ("Dockerfile",)),
        (b".dockerignore\n", "Dockerfile", (".dockerignore",)),
        (None, FOREIGN, (FOREIGN, FOREIGN + ".dockerignore")),
        (b"x\n", FOREIGN, (FOREIGN, FOREIGN + ".dockerignore")),
        (b".dockerignore\n", FOREIGN, (FOREIGN, FOREIGN + ".dockerignore", ".dockerignore")),
    ],
)
def test_what_is_sent_only_to_be_read(text, name, hidden):
    """Clients send these files always, and put a Dockerfile from elsewhere beside them."""
    context = SimpleNamespace(texts={} if text is None else {".dockerignore": text})
    assert builder.hidden(context, SimpleNamespace(dockerfile=name)) == hidden
