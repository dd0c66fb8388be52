"""`--systemd-cgroup`: annotations as properties of the unit."""

from __future__ import annotations

import pytest

from sampan.kernel.cgroups import scope
from sampan.runtime import scopes
from sampan.runtime.failure import InvalidConfig, RuntimeFailure


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'inactive-or-failed'", ("s", "inactive-or-failed")),
        ('"it\'s"', ("s", "it's")),
        ("true", ("b", True)),
        ("boolean false", ("b", False)),
        ("15", ("i", 15)),
        ("-15", ("i", -15)),
        ("uint64 5000000", ("t", 5000000)),
        ("double 2", ("d", 2.0)),
        ("1.5", ("d", 1.5)),
        ("['a', 'b']", ("as", ["a", "b"])),
        ("[]", ("as", [])),
        ("[1, 2]", ("ai", [1, 2])),
    ],
)
def test_values_as_text(text: str, value: tuple[str, object]):
    assert scopes.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "'", "15 16", "uint64", "uint64 -1", "byte 256", "4294967296", "[", "[1, 'a']"),
        *("[[1]]", "nonsense", "string 5", "{}", "uint64 uint64 5", "int32 '5'", "[" * 5000),
    ],
)
def test_what_is_no_value_is_refused(text: str):
    with pytest.raises(ValueError):
        scopes.parse(text)


def claim(monkeypatch: pytest.MonkeyPatch, annotations: dict[str, object], path: str = ""):
    monkeypatch.setattr(
        scope, "place", lambda text, ident: (f"/system.slice/{ident}{text}", f"{ident}.scope")
    )
    spec = {"linux": {"cgroupsPath": path}, "annotations": annotations}
    scopes.claim(spec, "c1")
    return spec["linux"]


def test_annotations_are_properties(monkeypatch: pytest.MonkeyPatch):
    linux = claim(
        monkeypatch,
        {
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.TimeoutStopSec": "uint32 3",
            "org.systemd.property.RuntimeMaxUSec": "uint64 10",
            "org.opencontainers.image.title": "x",
        },
    )
    assert linux["cgroupsPath"] == "/system.slice/c1"
    assert linux["scope"] == {
        "unit": "c1.scope",
        "properties": [
            ("CollectMode", ("s", "inactive-or-failed")),
            ("TimeoutStopUSec", ("t", 3_000_000)),
            ("RuntimeMaxUSec", ("t", 10)),
        ],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Fo", "1"), ("", "1"), ("SuccessAction", "'poweroff-force'"), ("PIDs", "[1]")),
        *(("TimeoutStopSec", "'x'"), ("TimeoutStopSec", "-1"), ("KillSignal", "1 1")),
    ],
)
def test_bad_annotations_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    with pytest.raises(InvalidConfig, match=rf"annotations\[org.systemd.property.{name}\]"):
        claim(monkeypatch, {f"org.systemd.property.{name}": value})


@pytest.mark.parametrize("path", ["/a/b", "a:b", "a:b:c:d", "a.slice:b:", "a:b:c", "x.slice:b:c/d"])
def test_a_path_of_another_form_is_refused(monkeypatch: pytest.MonkeyPatch, path: str, tmp_path):
    monkeypatch.setattr(scope, "BOOTED", str(tmp_path))
    monkeypatch.setattr(scope.cgroups, "mode", lambda: "unified")
    with pytest.raises(InvalidConfig, match="cgroupsPath"):
        scopes.claim({"linux": {"cgroupsPath": path}}, "c1")


def test_a_host_without_systemd_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(scope, "BOOTED", str(tmp_path / "none"))
    with pytest.raises(RuntimeFailure, match="systemd does not run on this host"):
        scopes.claim({"linux": {}}, "c1")
