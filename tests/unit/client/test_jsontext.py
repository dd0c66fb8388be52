"""Our JSON is the standard library's JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.jsontext import decode, encode

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_encode_is_what_json_writes(value):
    assert json.loads(encode(value)) == value
    assert encode(value, "    ") == json.dumps(value, indent=4, ensure_ascii=False)


@given(VALUES)
def test_decode_is_what_json_reads(value):
    assert decode(json.dumps(value)) == value
    assert decode(b" \r\n" + json.dumps(value).encode() + b"\n ") == value


@pytest.mark.parametrize("text", ["", "{", "nul", "[1,]", "{} {}", "NaN", '"\x01"', "[" * 100_000])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(ValueError):
        decode(text)
