"""The command line: runc's rules for flags, and runc's words for mistakes."""

from __future__ import annotations

import pytest

from sampan.runtime.arguments import UsageError, parse
from sampan.runtime.commands import COMMANDS, GLOBAL, command_usage, usage


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


def test_flags_may_follow_the_argument_of_a_closed_command():
    parsed = parse(["id", "KILL", "--all"], COMMANDS["kill"][0], open_ended=False)
    assert parsed.on("all")
    assert parsed.rest == ["id", "KILL"]


@pytest.mark.parametrize(("text", "truth"), [("true", True), ("0", False), ("False", False)])
def test_truth_may_be_spelled_out(text: str, truth: bool):
    assert parse([f"--detach={text}"], COMMANDS["run"][0]).on("detach") is truth


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
        (["--detach=perhaps"], 'invalid boolean value "perhaps" for flag -detach'),
    ],
)
def test_mistakes_are_named(words: list[str], message: str):
    with pytest.raises(UsageError) as caught:
        parse(words, COMMANDS["run"][0])
    assert message in str(caught.value)


def test_help_names_every_command_and_flag():
    text = usage("sampan-oci")
    for name, (table, *_) in COMMANDS.items():
        assert f"\n   {name}" in text
        for flag, kind in table.items():
            if kind[0] not in "=~":
                assert f"--{flag}" in command_usage("sampan-oci", name)
    assert all(f"--{flag}" in text for flag, kind in GLOBAL.items() if not kind.startswith("="))
