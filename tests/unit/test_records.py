"""Our frozen classes beside the standard library's."""

from __future__ import annotations

import dataclasses
from dataclasses import FrozenInstanceError, field, fields, replace

import msgspec
import pytest

from sampan import records


def point(dataclass):
    class Point:
        """A point."""

        x: int
        y: int = 2
        tags: dict[str, str] = field(default_factory=dict, hash=False)
        note: str = field(default="", compare=False)

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("x")

    return dataclass(frozen=True, slots=True, kw_only=True)(Point)


KINDS = [point(records.dataclass), point(dataclasses.dataclass)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_a_dataclass(kind):
    one = kind(x=1)
    assert (one, hash(one)) == (kind(x=1, y=2, tags={}, note="n"), hash(kind(x=1, tags={"a": "b"})))
    assert one != kind(x=1, tags={"a": "b"})
    assert one != kind(x=2)
    assert one != (1, 2, {})
    assert repr(one).endswith("Point(x=1, y=2, tags={}, note='')")
    assert replace(one, y=3) == kind(x=1, y=3)
    assert [entry.name for entry in fields(one)] == ["x", "y", "tags", "note"]
    assert one.tags is not kind(x=1).tags
    assert msgspec.json.decode(msgspec.json.encode(one)) == {"x": 1, "y": 2, "tags": {}, "note": ""}
    assert not hasattr(one, "__dict__")


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be(kind):
    one = kind(x=1)
    with pytest.raises(FrozenInstanceError):
        one.x = 2
    with pytest.raises(FrozenInstanceError):
        del one.x
    for wrong in ({}, {"x": 1, "z": 2}):
        with pytest.raises(TypeError):
            kind(**wrong)
    with pytest.raises(TypeError):
        kind(1)
    with pytest.raises(ValueError, match="x"):
        replace(one, x=-1)


def test_fields_by_position():
    @records.dataclass(frozen=True, slots=True)
    class Pair:
        """Two."""

        left: int
        right: int = 2

    assert Pair(1) == Pair(1, 2) == Pair(right=2, left=1)
    assert msgspec.json.decode(b'{"left":5}', type=Pair) == Pair(5)


def test_others_are_not_made():
    with pytest.raises(TypeError, match="frozen"):
        records.dataclass(frozen=False, slots=True)
