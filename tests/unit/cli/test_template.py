"""The part of Go's templates that is spoken here."""

from __future__ import annotations

import pytest

from sampan.cli.template import Template

DATA = {
    "Name": "/box",
    "On": True,
    "None": None,
    "Empty": [],
    "List": [1, 2],
    "Map": {"b": "2", "a": "<1>"},
    "Deep": {"State": {"Status": "running"}},
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{{.Name}}", "/box"),
        ("a {{ .Deep.State.Status | upper }} b", "a RUNNING b"),
        ("{{json .Map}}", '{"b":"2","a":"\\u003c1\\u003e"}'),
        ("{{.Map}} {{.List}} {{.On}} {{.None}}", "map[a:<1> b:2] [1 2] true <no value>"),
        ("{{range .List}}{{.}},{{end}}", "1,2,"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{if .Empty}}a{{else if .On}}b{{else}}c{{end}}", "b"),
        ("{{with .Deep}}{{.State.Status}} {{$.Name}}{{end}}", "running /box"),
        ('{{join (split "a,b" ",") "-"}}', "a-b"),
        ('{{if eq .Name "/box"}}y{{end}}', "y"),
        ('{{index .Map "a"}} {{index .List 1}} {{len .List}}', "<1> 2 2"),
        ('{{printf "%s:%d" .Name 5}}', "/box:5"),
        ("{{println .Name}}", "/box\n"),
        ("a {{- .Name -}} b", "a/boxb"),
        ("{{/* nothing */}}x", "x"),
        ("{{if and .On (not .Empty)}}y{{end}}", "y"),
        ("{{truncate .Name 2}}", "/b"),
    ],
)
def test_render(text, result):
    assert Template(text).render(DATA) == result


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{.Nope}}", 'map has no entry for key "Nope"'),
        ("{{.Name.Deeper}}", "can't evaluate field Deeper"),
        ("{{nope .Name}}", "nope"),
        ("{{.Name", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{if .On}}x", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{(.Name}}", "unclosed left paren"),
        ('{{"abc}}', "unterminated quoted string"),
        ("{{lower .List}}", "error calling lower"),
    ],
)
def test_wrong_templates_say_why(text, words):
    with pytest.raises(ValueError) as caught:
        Template(text).render(DATA)
    assert words in str(caught.value)
