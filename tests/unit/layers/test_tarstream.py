"""The parser alone: what it reads equals what tarfile wrote, in whatever pieces it comes."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer_tars import END, file, long_name, pad, pax, record, symlink
from sampan.layers import header
from sampan.layers import pax as pax_reader
from sampan.layers.limits import LayerError
from sampan.layers.tarstream import TarStream
from sampan.layers.tree import split
from sampan.layers.whiteouts import Whiteout, classify


def stream_of(data: bytes, piece: int = 1 << 20) -> TarStream:
    source = io.BytesIO(data)
    return TarStream(lambda: memoryview(source.read(piece)))


def names(data: bytes, piece: int = 1 << 20) -> list[tuple[bytes, int, int, bytes]]:
    stream = stream_of(data, piece)
    found = []
    while (entry := stream.next()) is not None:
        found.append((entry.name, entry.kind, entry.size, entry.link))
    return found


@pytest.mark.parametrize("piece", [1 << 20, 512, 7])
def test_padding_and_end_may_be_missing(piece):
    """As in the archive that docker's command sends for `build -f -`."""
    whole = file(b"a", b"x" * 600) + file(b"b", b"y" * 5)
    assert names(whole[: -512 + 5], piece) == names(whole + END, piece)
    with pytest.raises(LayerError, match="ends in the middle"):
        names(whole[: -512 + 4], piece)
    with pytest.raises(LayerError, match="ends in the middle"):
        names(whole[: -512 + 9], piece)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]),
    min_size=1,
    max_size=140,
).map(lambda text: text.strip("/") or "x")
MEMBERS = st.tuples(
    NAMES,
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE]),
    st.binary(max_size=1500),
    st.integers(0, 0xFFFFFFFE),
    st.integers(0, 1 << 33),
)


@settings(max_examples=150, deadline=None, database=None)
@given(
    members=st.lists(MEMBERS, max_size=6),
    kind=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    piece=st.integers(1, 3000),
)
def test_same_entries_as_tarfile(members: list, kind: int, piece: int) -> None:
    out = io.BytesIO()
    expected = []
    with tarfile.open(fileobj=out, mode="w", format=kind, encoding="utf-8") as tar:
        for name, type_, data, uid, mtime in members:
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.mtime = type_, uid, mtime
            info.size = len(data) if type_ == tarfile.REGTYPE else 0
            info.linkname = name[::-1] if type_ == tarfile.SYMTYPE else ""
            tar.addfile(info, io.BytesIO(data))
            expected.append((name, type_, info.size, info.linkname, uid, mtime * 10**9))
    stream = stream_of(out.getvalue(), piece)
    found = []
    while (entry := stream.next()) is not None:
        name, link = entry.name.decode().rstrip("/"), entry.link.decode()
        found.append((name, bytes([entry.kind]), entry.size, link, entry.uid, entry.mtime))
    assert found == [(name.rstrip("/"), *rest) for name, *rest in expected]
    assert stream.closed


@settings(max_examples=400, deadline=None, database=None)
@given(data=st.binary(max_size=3000), piece=st.integers(1, 700))
def test_any_bytes_give_entries_or_a_layer_error(data: bytes, piece: int) -> None:
    try:
        names(data, piece)
    except LayerError:
        pass


@settings(max_examples=400, deadline=None, database=None)
@given(data=st.binary(max_size=200) | st.text("0123456789 =\npathsize", max_size=60))
def test_any_pax_header(data: bytes | str) -> None:
    raw = data.encode() if isinstance(data, str) else data
    try:
        records, _ = pax_reader.parse(raw)
    except LayerError:
        return
    assert all(key and b"\0" not in key for key in records)


@pytest.mark.parametrize("piece", [1, 511, 512, 513, 5000])
def test_chunk_borders(piece: int) -> None:
    data = (
        pax((b"path", b"long/" + b"n" * 600))
        + file(b"x", b"1" * 1000)
        + long_name(b"m" * 700)
        + symlink(b"x", b"target")
        + END
        + bytes(2000)
    )
    assert names(data, piece) == [
        (b"long/" + b"n" * 600, header.REGULAR, 1000, b""),
        (b"m" * 700, header.SYMLINK, 0, b"target"),
    ]


def test_pax_size_counts() -> None:
    """The size of the extended header, not the header's: a hidden entry stays data."""
    hidden = file(b"hidden")
    data = pax((b"size", b"%d" % len(hidden))) + file(b"x", b"", size=0) + pad(hidden) + END
    assert [name for name, *_ in names(data)] == [b"x"]


def test_pax_size_is_for_the_file_not_for_the_long_name_between() -> None:
    data = pax((b"size", b"5")) + long_name(b"real") + file(b"x", b"12345", size=0) + END
    assert names(data) == [(b"real", header.REGULAR, 5, b"")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"644\0\0\0\0\0", 0o644),
        (b"\0" * 8, 0),
        (b" " * 8, 0),
        (b"77777777", 0o77777777),
        (b"\x80\0\0\0\0\0\1\0", 256),
        (b"\xff" * 8, -1),
        (b"\xff" * 7 + b"\xfe", -2),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    assert header.number(field, "field") == value


@pytest.mark.parametrize(
    "field",
    [b"0o644\0\0\0", b"+644\0\0\0\0", b"-644\0\0\0\0", b"6_44\0\0\0\0", b"6 44\0\0\0\0", b"8"],
)
def test_bad_numbers(field: bytes) -> None:
    with pytest.raises(LayerError):
        header.number(field, "field")


def test_pax_records() -> None:
    data = record(b"path", b"a=b\nc") + record(b"comment", b"") + record(b"SCHILY.xattr.u.x", b"\0")
    assert pax_reader.parse(data)[0] == {b"path": b"a=b\nc", b"SCHILY.xattr.u.x": b"\0"}


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1", 10**9),
        (b"1.5", 15 * 10**8),
        (b"0.000000001", 1),
        (b"1.0000000019", 10**9 + 1),
        (b"-1.25", -125 * 10**7),
        (b"7.", 7 * 10**9),
    ],
)
def test_pax_times(text: bytes, nanoseconds: int) -> None:
    assert pax_reader.time(b"mtime", text) == nanoseconds


def test_split() -> None:
    assert split(b"//a/./b//c/") == [b"a", b"b", b"c"]
    assert split(b"/./.") == []
    assert split(b"..a/b..") == [b"..a", b"b.."]
    for bad in (b"..", b"a/../b", b"a\0b", b"n" * 256):
        with pytest.raises(LayerError):
            split(bad)


def test_classify() -> None:
    assert classify(b".wh.a") is Whiteout.REMOVED
    assert classify(b".wh..hidden") is Whiteout.REMOVED
    assert classify(b".wh..wh..opq") is Whiteout.OPAQUE
    assert classify(b".wh..wh.plnk") is Whiteout.IGNORED
    for bad in (b".wh.", b".wh..", b".wh..."):
        with pytest.raises(LayerError):
            classify(bad)
