"""The bill of materials: what package managers wrote down, and the same document each time."""

from __future__ import annotations

import json

from sampan.builder.sbom import document, packages

DPKG = b"""\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u4
Description: a library
 Package: not-one

Package: gone
Status: deinstall ok config-files
Version: 1

Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b2
"""
APK = b"C:Q1x=\nP:musl\nV:1.2.4-r2\nA:x86_64\no:musl\nL:MIT\n\nP:busybox\nV:1.36.1-r5\nA:x86_64\n\n"
TEXTS = {
    "var/lib/dpkg/status": DPKG,
    "var/lib/dpkg/status.d/base": b"Package: base-files\nVersion: 12.4\nArchitecture: amd64\n",
    "lib/apk/db/installed": APK,
    "etc/os-release": b'NAME="Debian"\nID=debian\n',
}


def test_packages_of_all_databases():
    found = {(one.kind, one.name, one.version, one.source) for one in packages(TEXTS)}
    assert found == {
        ("apk", "busybox", "1.36.1-r5", "busybox"),
        ("apk", "musl", "1.2.4-r2", "musl"),
        ("deb", "base-files", "12.4", "base-files"),
        ("deb", "bash", "5.2.15-2+b2", "bash"),
        ("deb", "libc6", "2.36-9+deb12u4", "glibc"),
    }


def test_the_document():
    digest = "sha256:" + "0" * 64
    made = document("x:1", digest, "2020-09-13T12:26:40Z", TEXTS)
    assert made == document("x:1", digest, "2020-09-13T12:26:40Z", dict(reversed(TEXTS.items())))
    content = json.loads(made)
    assert content["spdxVersion"] == "SPDX-2.3"
    assert len(content["packages"]) == 6
    locators = {
        one["externalRefs"][0]["referenceLocator"]
        for one in content["packages"]
        if one["name"] != "x:1"
    }
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64" in locators
    ids = [one["SPDXID"] for one in content["packages"]]
    assert len(set(ids)) == len(ids)
    assert {one["relationshipType"] for one in content["relationships"]} == {
        "DESCRIBES",
        "CONTAINS",
    }


def test_noise_is_no_package():
    assert (
        packages({"var/lib/dpkg/status": b"\xff\xfe\n\n:\n", "lib/apk/db/installed": b"P\n"}) == []
    )
    assert json.loads(document("x", "sha256:0", "", {}))["packages"][0]["name"] == "x"
