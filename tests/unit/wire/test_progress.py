"""Progress lines, word for word as dockerd's."""

from __future__ import annotations

import pytest

from sampan.wire import progress


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (36445, "36.45kB"),
        (1069832, "1.07MB"),
        (19968, "19.97kB"),
        (1984482, "1.984MB"),
        (2140160, "2.14MB"),
        (5 * 10**9, "5GB"),
    ],
)
def test_sizes(count, text):
    assert progress.size(count) == text


@pytest.mark.parametrize(
    ("current", "total", "text"),
    [
        (36445, 1069832, "[=>" + " " * 49 + "]  36.45kB/1.07MB"),
        (1069832, 1069832, "[" + "=" * 50 + ">]   1.07MB/1.07MB"),
        (19968, 1984482, "[>" + " " * 50 + "]  19.97kB/1.984MB"),
        (2140160, 1984482, "[" + "=" * 50 + ">]   2.14MB"),
        (5000, 0, "     5kB"),
    ],
)
def test_bars(current, total, text):
    assert progress.bar(current, total) == text


def test_lines():
    assert progress.message("Pulling from library/busybox", "latest") == (
        b'{"status":"Pulling from library/busybox","id":"latest"}\r\n'
    )
    assert progress.step("16", "Verifying Checksum") == (
        b'{"status":"Verifying Checksum","progressDetail":{},"id":"16"}\r\n'
    )
    assert progress.aux({"Tag": "x", "Digest": "sha256:a7", "Size": 527}) == (
        b'{"progressDetail":{},"aux":{"Tag":"x","Digest":"sha256:a7","Size":527}}\r\n'
    )
    assert progress.failure("it broke", 1) == (
        b'{"errorDetail":{"code":1,"message":"it broke"},"error":"it broke"}\r\n'
    )


def test_lines_are_read_back():
    line = progress.decode(progress.step("16", "Downloading", 5, 10))
    assert (line.id, line.status, line.detail.current, line.detail.total) == (
        "16",
        "Downloading",
        5,
        10,
    )
