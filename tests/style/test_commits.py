"""Commit messages: `room: what it does`, in the imperative, and why in the body."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 72
SHAPE = re.compile(r"[a-z][a-z0-9 ,/_-]*: [a-z]\S*( \S+)+(?<![.!])")
NOT_IMPERATIVE = re.compile(r"(added|adds|adding|fixed|fixes|fixing|changed|changes|removed|made)")


def faults(message):
    """What is wrong with a message."""
    subject, _, rest = message.partition("\n")
    if len(subject) > LONGEST:
        yield "too long"
    if not SHAPE.fullmatch(subject):
        yield "shape"
    if NOT_IMPERATIVE.fullmatch(subject.partition(": ")[2].split(" ")[0]):
        yield "not imperative"
    if not rest.strip():
        yield "no body"
    if re.search(r"#\d", message):
        yield "a number that only means something elsewhere"


def messages():
    """Every message of the history; nothing where there is no history."""
    argv = ["git", "-c", f"safe.directory={ROOT}", "log", "--no-merges", "--format=%B%x00"]
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [text.strip() for text in done.stdout.split("\0") if text.strip()]


def test_messages_of_the_history():
    history = messages()
    if not history:
        pytest.skip("not a git repository")
    wrong = {text.partition("\n")[0]: found for text in history if (found := list(faults(text)))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Fix things\n\nwhy", "shape"),
        ("shim: Fix things\n\nwhy", "shape"),
        ("shim: fix things.\n\nwhy", "shape"),
        ("shim: fixed things\n\nwhy", "not imperative"),
        ("shim: fix " + "x" * 72 + "\n\nwhy", "too long"),
        ("shim: fix things", "no body"),
        ("shim: fix things\n\nCloses #12", "a number that only means something elsewhere"),
    ],
)
def test_faults_are_seen(message, fault):
    assert fault in list(faults(message))


def test_a_good_message_has_none():
    assert list(faults("shim: keep a spare ready\n\nA fork costs 0.4 ms on the way.")) == []
