"""The command line: runc's rules for flags, and runc's words for mistakes."""

from __future__ import annotations

import pytest

from sampan.runtime.arguments import COMMANDS, GLOBAL, UsageError, command_usage, parse, usage


def test_values_come_after_a_space_or_an_equals_sign():
    table = COMMANDS["run"][0]
    for words in (["--bundle", "/b", "x"], ["--bundle=/b", "x"], ["-b", "/b", "x"]):
        parsed = parse(words, table)
        assert parsed.text("bundle") == "/b"
        assert parsed.rest == ["x"]


def test_flags_end_at_the_first_argument():
    parsed = parse(["-t", "id", "sh", "-c", "x"], COMMANDS["exec"][0])
    assert parsed.on("tty")
    assert parsed.rest == ["id", "sh", "-c", "x"]


def test_lists_collect():
    parsed = parse(["-e", "A=b", "--env", "C=d", "id"], COMMANDS["exec"][0])
    assert parsed.list("env") == ["A=b", "C=d"]


def test_two_dashes_end_the_flags():
    assert parse(["--", "--all"], COMMANDS["kill"][0]).rest == ["--all"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nope"], "flag provided but not defined: --nope"),
        (["--bundle"], "flag needs an argument: --bundle"),
        (["--preserve-fds", "x"], 'invalid value "x" for flag -preserve-fds: not a number'),
        (["--preserve-fds=\u0661"], "not a number"),
    ],
)
def test_mistakes_are_named(words: list[str], message: str):
    with pytest.raises(UsageError) as caught:
        parse(words, COMMANDS["run"][0])
    assert message in str(caught.value)


def test_help_names_every_command_and_flag():
    text = usage()
    for name, (table, _, _) in COMMANDS.items():
        assert f"\n   {name}" in text
        for flag, kind in table.items():
            if not kind.startswith("="):
                assert f"--{flag}" in command_usage(name)
    assert all(f"--{flag}" in text for flag, kind in GLOBAL.items() if not kind.startswith("="))
