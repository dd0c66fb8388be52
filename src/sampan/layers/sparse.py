"""Sparse files: the four ways in which tars write down where the holes are.

GNU's old format keeps the map in the header and in extension blocks; PAX 0.0 and 0.1 keep it in the
extended header; PAX 1.0 puts it before the data. All end as a list of (offset, length) that must
ascend, must not overlap, must fit the file, and must add up to exactly the bytes stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sampan.layers import pax
from sampan.layers.header import BLOCK, Entry, number
from sampan.layers.limits import MAX_FILE_SIZE, MAX_SPARSE_EXTENTS, LayerError

_PREFIX: Final = b"GNU.sparse."
_MAP_NUMBER: Final = 20  # digits of a number in a PAX 1.0 map, with its newline

ReadBlock = Callable[[], bytes]


def check(entry: Entry, extents: pax.Extents, size: int) -> None:
    """Give `entry` its map and its apparent size, when the map is sound."""
    if size > MAX_FILE_SIZE or len(extents) > MAX_SPARSE_EXTENTS:
        raise LayerError("parse sparse map: larger than the limits")
    position = total = 0
    for offset, length in extents:
        if offset < position or offset + length > size:
            raise LayerError("parse sparse map: extents overlap or leave the file")
        position = offset + length
        total += length
    if total != entry.stored:
        raise LayerError("parse sparse map: extents do not add up to the stored size")
    entry.extents = extents
    entry.size = size


def read_old(entry: Entry, raw: bytes, read_block: ReadBlock) -> None:
    """GNU's old format: 4 pairs in the header (`raw` starts at byte 345), 21 in each extension."""
    size = number(raw[138:150], "real size")
    if size < 0:
        raise LayerError("parse sparse map: negative size")
    extents: pax.Extents = []
    more = raw[137] != 0
    _old_pairs(raw[41:137], extents)
    while more:
        block = read_block()
        _old_pairs(block[:504], extents)
        more = block[504] != 0
        if len(extents) > MAX_SPARSE_EXTENTS:
            raise LayerError("parse sparse map: larger than the limits")
    check(entry, extents, size)


def _old_pairs(raw: bytes, extents: pax.Extents) -> None:
    for start in range(0, len(raw), 24):
        offset, length = raw[start : start + 12], raw[start + 12 : start + 24]
        if not offset[0] and not length[0]:
            return
        pair = (number(offset, "sparse offset"), number(length, "sparse length"))
        if min(pair) < 0:
            raise LayerError("parse sparse map: negative number")
        extents.append(pair)


def read_pax(entry: Entry, records: pax.Records, pairs: pax.Extents, read_block: ReadBlock) -> None:
    """PAX 0.0, 0.1 or 1.0, whichever the extended header shows; nothing when it shows none."""
    version = (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor"))
    if version == (b"1", b"0"):
        name, size = records.get(b"GNU.sparse.name"), records.get(b"GNU.sparse.realsize")
        if pairs or b"GNU.sparse.map" in records or name is None or size is None:
            raise LayerError("parse sparse map: incomplete or mixed versions")
        entry.name = name
        real = pax.number(b"GNU.sparse.realsize", size)
        check(entry, _read_map(entry, read_block), real)
    elif version in ((None, None), (b"0", b"0"), (b"0", b"1")):
        _read_zero(entry, records, pairs)
    else:
        raise LayerError("parse sparse map: unknown version")


def _read_zero(entry: Entry, records: pax.Records, pairs: pax.Extents) -> None:
    if not pairs and not any(key.startswith(_PREFIX) for key in records):
        return
    size, text = records.get(b"GNU.sparse.size"), records.get(b"GNU.sparse.map")
    if size is None or (text is not None and pairs) or b"GNU.sparse.realsize" in records:
        raise LayerError("parse sparse map: incomplete or mixed versions")
    if text is not None:
        numbers = [pax.number(b"GNU.sparse.map", part) for part in text.split(b",")]
        if len(numbers) % 2:
            raise LayerError("parse sparse map: odd count of numbers")
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    entry.name = records.get(b"GNU.sparse.name", entry.name)
    _check_count(records, pairs)
    check(entry, pairs, pax.number(b"GNU.sparse.size", size))


def _check_count(records: pax.Records, pairs: pax.Extents) -> None:
    count = records.get(b"GNU.sparse.numblocks")
    if count is not None and pax.number(b"GNU.sparse.numblocks", count) != len(pairs):
        raise LayerError("parse sparse map: count of extents differs from what was said")


def _read_map(entry: Entry, read_block: ReadBlock) -> pax.Extents:
    """The map of PAX 1.0: decimal lines in whole blocks before the data."""
    buffer = b""
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        line, newline, rest = buffer.partition(b"\n")
        if not newline:
            if len(line) > _MAP_NUMBER or entry.stored < BLOCK:
                raise LayerError("parse sparse map: map is not closed")
            buffer += read_block()
            entry.stored -= BLOCK
            continue
        buffer = rest
        numbers.append(pax.number(b"GNU.sparse.map", line))
        if len(numbers) == 1:
            if numbers[0] > MAX_SPARSE_EXTENTS:
                raise LayerError("parse sparse map: larger than the limits")
            wanted = 1 + 2 * numbers[0]
    return list(zip(numbers[1::2], numbers[2::2], strict=True))
