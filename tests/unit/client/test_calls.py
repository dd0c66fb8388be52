"""Calls are what docker's client sends, and nothing given from outside becomes another path."""

from __future__ import annotations

import pytest

from sampan.client import calls
from sampan.errors import InvalidArgument


@pytest.mark.parametrize(
    ("call", "method", "target"),
    [
        (calls.wait("ab12", "removed"), "POST", "/containers/ab12/wait?condition=removed"),
        (calls.attach("c"), "POST", "/containers/c/attach?stderr=1&stdout=1&stream=1"),
        (calls.stats("c"), "GET", "/containers/c/stats?stream=0"),
        (
            calls.images(everything=True, filters={"dangling": ["false"]}),
            "GET",
            "/images/json?all=1&filters=%7B%22dangling%22%3A%7B%22false%22%3Atrue%7D%7D",
        ),
        (
            calls.image_tag("alpine:3.10", "127.0.0.1:5000/t/alpine:x"),
            "POST",
            "/images/alpine:3.10/tag?repo=127.0.0.1%3A5000%2Ft%2Falpine&tag=x",
        ),
        (
            calls.push("127.0.0.1:5000/t/alpine:x"),
            "POST",
            "/images/127.0.0.1:5000/t/alpine/push?tag=x",
        ),
        (calls.pull("busybox"), "POST", "/images/create?fromImage=busybox&tag=latest"),
        (calls.remove("c", force=True), "DELETE", "/containers/c?force=1"),
        (calls.stop("c", 0), "POST", "/containers/c/stop?t=0"),
        (calls.logs("c", tail="2", follow=True), "GET",
         "/containers/c/logs?follow=1&stderr=1&stdout=1&tail=2"),
        (calls.kill("a/../b?c=d#e"), "POST", "/containers/a%2F..%2Fb%3Fc%3Dd%23e/kill"),
        (calls.image_inspect("x?a=b"), "GET", "/images/x%3Fa%3Db/json"),
    ],
)  # fmt: skip
def test_call(call, method, target):
    assert (call.method, call.target) == (method, "/v1.50" + target)


@pytest.mark.parametrize("ref", ["", ".", "..", "/", "../..", " c"])
def test_container_that_is_a_path_is_refused(ref):
    with pytest.raises(InvalidArgument):
        calls.start(ref)


@pytest.mark.parametrize("image", ["", "..", "a/../b", "../../containers/c"])
def test_image_that_is_a_path_is_refused(image):
    with pytest.raises(InvalidArgument):
        calls.image_inspect(image)


@pytest.mark.parametrize(
    ("image", "name", "tag"),
    [
        ("busybox", "busybox", "latest"),
        ("busybox:1", "busybox", "1"),
        ("localhost:5000/a", "localhost:5000/a", "latest"),
        ("localhost:5000/a:b", "localhost:5000/a", "b"),
        ("a@sha256:00", "a", "sha256:00"),
    ],
)
def test_split_tag(image, name, tag):
    assert calls.split_tag(image) == (name, tag)
