"""Variables, quotes and modifiers."""

from __future__ import annotations

import itertools
import subprocess

import pytest

from sampan.builder.language.words import Expander, WordError

VALUES = {
    "a": "foo.tar.gz",
    "empty": "",
    "path": "/usr/lib/x",
    "blanks": "1 2  3",
    "quoted": 'it\'s "x"',
    "1": "one",
}


def expand(text, escape="\\"):
    return Expander(VALUES, escape).word(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$a", "foo.tar.gz"),
        ("${a}b", "foo.tar.gzb"),
        ("$ab", ""),
        ("$none", ""),
        ("${none}", ""),
        ("\\$a", "$a"),
        ("\\\\$a", "\\foo.tar.gz"),
        ("'$a'", "$a"),
        ('"$a"', "foo.tar.gz"),
        ('"\\$a \\n \\" \\\\"', '$a \\n " \\'),
        ("a'b'\"c\"d", "abcd"),
        ("''", ""),
        ("$", "$"),
        ("a$", "a$"),
        ("$.", "$."),
        ("$1x", "onex"),
        ("x\\", "x"),
        ("${none:-d}", "d"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${none-d}", "d"),
        ("${a:-d}", "foo.tar.gz"),
        ("${a:+d}", "d"),
        ("${empty:+d}", ""),
        ("${empty+d}", "d"),
        ("${none+d}", ""),
        ("${none:-${a}}", "foo.tar.gz"),
        ("${none:-${none:-x}}", "x"),
        ("${none:-'a b'}", "a b"),
        ("${none:-\\}}", "}"),
        ("${a?no}", "foo.tar.gz"),
        ("${a#*.}", "tar.gz"),
        ("${a##*.}", "gz"),
        ("${a%.*}", "foo.tar"),
        ("${a%%.*}", "foo"),
        ("${a#foo}", ".tar.gz"),
        ("${a#bar}", "foo.tar.gz"),
        ("${a#f?o}", ".tar.gz"),
        ("${a%\\*}", "foo.tar.gz"),
        ("${a/o/0}", "f0o.tar.gz"),
        ("${a//o/0}", "f00.tar.gz"),
        ("${a//./-}", "foo-tar-gz"),
        ("${a/o*/X}", "fX"),
        ("${a/x/y}", "foo.tar.gz"),
        ("${a//o/}", "f.tar.gz"),
        ("${path//\\//_}", "_usr_lib_x"),
        ("${none#x}", ""),
        ("$quoted", 'it\'s "x"'),
    ],
)
def test_words(text, expected):
    assert expand(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("'x", "single quote"),
        ('"x', "double quote"),
        ("${a", "missing '}'"),
        ("${", "bad substitution"),
        ("${}", "bad substitution"),
        ("${a!x}", "unsupported modifier"),
        ("${a:x}", "unsupported modifier"),
        ("${none:?is missing}", "none: is missing"),
        ("${none?}", "not allowed to be unset"),
        ("${empty:?gone}", "empty: gone"),
        ("${a:-x", "missing '}'"),
        ("${a/x", "missing '/'"),
        ("${none:-" * 40 + "}" * 40, "nested"),
    ],
)
def test_refusals(text, reason):
    with pytest.raises(WordError, match=reason):
        expand(text)


def test_the_escape_character_can_be_another():
    assert expand("`$a\\x", "`") == "$a\\x"


def test_splitting_at_the_blanks_of_values():
    words = Expander(VALUES)
    assert words.split("$blanks") == ["1", "2", "3"]
    assert words.split('"$blanks"') == ["1 2  3"]
    assert words.split("x$blanks") == ["x1", "2", "3"]
    assert words.split("$empty") == []
    assert words.split("''") == [""]


def test_documents_keep_their_quotes():
    assert Expander(VALUES).document("'$a' \"${a}\" \\$a \\x\n") == (
        "'foo.tar.gz' \"foo.tar.gz\" $a \\x\n"
    )


def test_what_is_not_set_is_remembered():
    words = Expander(VALUES)
    words.word("$none ${other:-x} ${third+y} $a")
    assert words.unset == {"none"}
    assert "a" in words.used


def test_patterns_agree_with_a_shell():
    texts = ["foo", "a.b.c", "", "aaa", "x*y?z", "abcabc"]
    patterns = ["*", "?", "a", "a*", "*a", "?*", "*.*", "a*c", "\\*", "x\\*y\\?z", "", "*b*", "aa"]
    cases, script = [], []
    for text, pattern, form in itertools.product(texts, patterns, ("#", "##", "%", "%%")):
        cases.append((text, f"${{v{form}{pattern}}}"))
        script.append(f"v='{text}'; printf '%s\\0' \"${{v{form}{pattern}}}\"\n")
    done = subprocess.run(["bash", "-c", "".join(script)], capture_output=True, check=True)
    theirs = done.stdout.decode().split("\0")[:-1]
    ours = [Expander({"v": text}).word(form) for text, form in cases]
    assert ours == theirs


def test_replacing_agrees_with_a_shell():
    texts = ["foo", "a.b.c", "aaa", "abcabc"]
    patterns = ["?", "a", "a*", "*a", "*.*", "a*c", "b", "b?"]
    cases, script = [], []
    for text, pattern, form in itertools.product(texts, patterns, ("/", "//")):
        cases.append((text, f"${{v{form}{pattern}/-}}"))
        script.append(f"v='{text}'; printf '%s\\0' \"${{v{form}{pattern}/-}}\"\n")
    done = subprocess.run(["bash", "-c", "".join(script)], capture_output=True, check=True)
    theirs = done.stdout.decode().split("\0")[:-1]
    assert [Expander({"v": text}).word(form) for text, form in cases] == theirs


def test_hostile_patterns_end():
    value = "a" * 200_000
    words = Expander({"v": value})
    assert words.word("${v##" + "*a" * 50 + "*b}") == value
    assert words.word("${v//" + "*a" * 50 + "b/x}") == value
    with pytest.raises(WordError, match="longer than"):
        words.word("${v//a/" + "x" * 100 + "}")
