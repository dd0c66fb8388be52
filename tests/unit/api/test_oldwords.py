"""What is said to clients of API 1.41 and before."""

from __future__ import annotations

import pytest

from sampan.api.docker import app, oldwords


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("invalid filter 'x=y'", "Invalid filter 'x=y'"),
        ("invalid signal: 99", "Invalid signal: 99"),
        ("container c1 is paused, unpause it", "Container c1 is paused, unpause it"),
        (
            'cannot remove container "web": container is running: stop it',
            (
                "You cannot remove a running container web. "
                "Stop the container before attempting removal or force remove"
            ),
        ),
        ("the invalid filter", "the invalid filter"),
        ("No such container: x", "No such container: x"),
    ],
)
def test_words_of_the_time(now, then):
    assert oldwords.of(now, 41) == then
    assert oldwords.of(now, 42) == now


@pytest.mark.parametrize(
    ("path", "minor"),
    [("/v1.41/x", 41), ("/v1.24", 24), ("/containers/json", 41), ("/volumes", 41), ("/vx.y/z", 41)],
)
def test_the_version_in_a_path(path, minor):
    assert app.asked_minor(path) == minor


def test_every_path_may_be_asked_for_its_options():
    handler, _, minor = app.route("OPTIONS", "/v1.41/whatever")
    assert (handler, minor) == (app.options, 41)
