"""Lists that are joined of encoded lines: what protobuf reads of them."""

from __future__ import annotations

from sampan.api.cri.lists import MAX_ITEMS, Lines, Whole, item, pieces
from sampan.wire.cri import api_pb2 as pb


def made(number, size=0):
    return pb.Container(id=f"c{number}", labels={"l": "x" * size})


def test_joined_lines_are_a_list():
    containers = [made(0), made(1, 100), made(2, 1000), made(3, 100_000)]
    data = b"".join(item(one) for one in containers)
    assert data == pb.ListContainersResponse(containers=containers).SerializeToString()


def test_a_line_is_made_again_when_something_changed():
    lines, source = Lines(), object()
    first = lines.get("k", source, True, lambda: made(1))
    assert lines.get("k", source, True, lambda: made(2)) is first
    assert lines.get("k", source, False, lambda: made(2)) != first
    assert lines.get("k", object(), False, lambda: made(3)) == item(made(3))


def test_a_streamed_list_is_cut():
    lines = [item(made(number)) for number in range(MAX_ITEMS + 1)]
    sizes = [len(pb.StreamContainersResponse.FromString(one).containers) for one in pieces(lines)]
    assert sizes == [MAX_ITEMS, 1]


def test_a_whole_list_is_made_again_when_one_of_its_sources_is_another():
    whole, sources = Whole(), [[1], [2]]
    assert whole.get(sources, lambda: b"first") == b"first"
    assert whole.get(list(sources), lambda: b"second") == b"first"
    assert whole.get([sources[0], [2]], lambda: b"second") == b"second"
    assert whole.get([sources[0]], lambda: b"third") == b"third"
    assert whole.get([], lambda: b"") == b""
