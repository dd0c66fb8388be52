"""References: the grammar and the normalisation of Docker and containerd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.spec.digest import Digest
from sampan.spec.reference import Reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"),
        ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("HOST/app", "HOST/app", "HOST/app"),
        ("a__b/c-d.e_f", "docker.io/a__b/c-d.e_f", "a__b/c-d.e_f"),
        (f"x@sha256:{HEX}", f"docker.io/library/x@sha256:{HEX}", f"x@sha256:{HEX}"),
        (f"x:t@sha256:{HEX}", f"docker.io/library/x:t@sha256:{HEX}", f"x:t@sha256:{HEX}"),
        ("foo:5000/bar", "foo:5000/bar", "foo:5000/bar"),
        ("foo:5000", "docker.io/library/foo:5000", "foo:5000"),
    ],
)
def test_a_reference_has_one_full_and_one_familiar_form(text, full, familiar):
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar() == familiar
    assert Reference.parse(full) == reference
    assert Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "@sha256:" + HEX,
        "Busybox",
        "a/Busybox",
        "../etc/passwd",
        "a/../b",
        "/a",
        "a/",
        "a//b",
        "a b",
        "a\n",
        "a:",
        "a:t\n",
        "a:-t",
        "a:" + "t" * 129,
        "a@sha256:abc",
        "a@sha256:" + HEX.upper(),
        "a@md5:" + "a" * 32,
        "a@",
        HEX,
        "-a.b/c",
        "host.x:port/a",
        "a.b:123456/c",
        "x" * 256,
        "a/" * 700,
        "a\0b",
        "é",
        "a._b",
        "_a",
        "http://a.b/c",
    ],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(InvalidArgument):
        Reference.parse(text)


def test_the_default_tag_is_given_only_where_nothing_is_named():
    assert Reference.parse("a").with_default_tag().tag == "latest"
    assert Reference.parse("a:b").with_default_tag().tag == "b"
    assert Reference.parse(f"a@sha256:{HEX}").with_default_tag().tag is None
    assert Reference.parse(f"a:b@sha256:{HEX}").target == f"sha256:{HEX}"
    digest = Digest.parse(f"sha256:{HEX}")
    assert Reference.parse("a:b").with_digest(digest).familiar() == f"a@sha256:{HEX}"


@given(st.text(alphabet="aA0.:/-_@[]é\n\0 ", max_size=40))
def test_whatever_is_accepted_comes_back_unchanged_and_is_no_path(text):
    try:
        reference = Reference.parse(text)
    except InvalidArgument:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference
    assert ".." not in reference.repository
    assert not reference.repository.startswith("/")
    assert str(reference).isprintable()
