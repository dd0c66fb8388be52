"""Manual pages: one for each command, which man(1) formats without a complaint."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from sampan.cli.commands import manual
from sampan.cli.session import Failed

needs_groff = pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")


def formatted(text: str) -> tuple[str, str]:
    """What a terminal shows, and what groff complains of."""
    command = ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u", "-ww"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    return done.stdout.decode(), done.stderr.decode()


@needs_groff
@pytest.mark.parametrize("path", ["sampan", "sampan run", "sampan volume", "sampan volume create"])
def test_a_page_is_formatted_without_complaints(path):
    text, complaints = formatted(manual.page(path))
    assert complaints == ""
    assert text.startswith(path.replace(" ", "-").upper())
    assert "SYNOPSIS" in text


@needs_groff
def test_the_page_of_run_has_its_flags():
    text, _ = formatted(manual.page("sampan run"))
    assert "sampan run [OPTIONS] IMAGE" in text
    for flag in ("--userns", "--depends-on", "-v, --volume", "--log-opt"):
        assert flag in text


def test_every_command_has_a_page(tmp_path):
    assert manual._install(str(tmp_path)) == len(manual.paths())
    names = {path.name for path in (tmp_path / "man1").iterdir()}
    assert {"sampan.1", "sampan-run.1", "sampan-image-ls.1", "sampan-manual.1"} <= names


def test_text_is_no_request():
    assert manual._escape(".so /etc/passwd\n'x") == "\\&.so /etc/passwd\n\\&'x"
    with pytest.raises(Failed):
        manual.page("sampan nothing")
