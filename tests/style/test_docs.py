"""What the documents name exists: files, tests, commands, flags of the environment."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sampan.cli.catalog import COMMANDS, GROUPS
from sampan.runtime.commands import COMMANDS as OCI_COMMANDS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROOF = re.compile(r"`((?:tests|benchmarks|scripts|docs|src|bin)/[\w./-]+)(?:::(\w+))?`")
MODULE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`")
COMMAND = re.compile(r"(?<![\w/.-])sampan ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+))?")
OCI_COMMAND = re.compile(r"(?<![\w/.-])sampan-oci ([a-z]+)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
MEASURED = {"docs/benchmarks.md"}  # written by `make bench`; it may not be there yet
FOREIGN = re.compile(r"/work/|/home/\w|https?://(?!127\.0\.0\.1)")


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.fixture(params=DOCUMENTS, ids=relative)
def document(request):
    return request.param


def anchors(path):
    """The anchors of the headings of a document."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere(document):
    for target in LINK.findall(document.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_files_and_tests_that_are_named_exist(document):
    for name, test in PROOF.findall(document.read_text()):
        path = ROOT / name
        assert path.exists(), name
        if test:
            assert test in functions(path), f"{name}::{test}"


def functions(path):
    """The names of all functions of a file."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)}


def test_modules_that_are_named_exist(document):
    for name in MODULE.findall(document.read_text()):
        places = [ROOT / name, ROOT / "src" / "sampan" / name]
        assert any(path.exists() for path in places), name


def test_commands_exist(document):
    for code in CODE.findall(document.read_text()):
        for name, word in COMMAND.findall(code):
            assert name in COMMANDS or word in GROUPS[name], f"sampan {name} {word}"
        for name in OCI_COMMAND.findall(code):
            assert name in OCI_COMMANDS, f"sampan-oci {name}"


def test_settings_of_the_environment_exist(document):
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for name in re.findall(r"SAMPAN_([A-Z]+)", document.read_text()):
        assert f"SAMPAN_{name}" in sources or f'"{name.lower()}"' in sources, name


def test_nothing_of_one_machine_is_named(document):
    assert FOREIGN.findall(document.read_text()) == []


def test_every_decision_has_the_same_parts():
    numbers = set()
    for path in sorted((ROOT / "docs" / "decisions").iterdir()):
        text = path.read_text()
        number = int(path.name[:4])
        assert number not in numbers, path.name
        numbers.add(number)
        assert text.startswith(f"# {number}. ")
        for part in ("## Context", "## Choice", "## What we gave up"):
            assert part in text, path.name


def test_every_document_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop().resolve()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        targets = [link.partition("#")[0] for link in LINK.findall(path.read_text())]
        waiting += [path.parent / name for name in targets if name and "://" not in name]
    assert {relative(path) for path in DOCUMENTS} - MEASURED == {
        relative(path) for path in reached
    } - MEASURED
