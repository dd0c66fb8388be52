"""What pods say about rights, in the engine's words, on hosts with security modules and without."""

from __future__ import annotations

import pytest

from sampan.api.cri import requests
from sampan.errors import FailedPrecondition
from sampan.pods import security
from sampan.pods.model import Profile, ProfileKind, Security, SELinux
from sampan.wire.cri import api_pb2 as pb

PROFILE = Profile(ProfileKind.LOCALHOST, "web")
LABEL = SELinux(type="container_t", level="s0:c1,c2")


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Files as the kernel's, of a host that has both modules."""
    (tmp_path / "apparmor").write_text("Y\n")
    (tmp_path / "enforce").write_text("1")
    monkeypatch.setattr(security, "_APPARMOR", str(tmp_path / "apparmor"))
    monkeypatch.setattr(security, "_SELINUX", str(tmp_path / "enforce"))


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A host that has neither."""
    monkeypatch.setattr(security, "_APPARMOR", str(tmp_path / "nosuch"))
    monkeypatch.setattr(security, "_SELINUX", str(tmp_path / "nosuch"))


def test_labels_are_the_engines(modules):
    said = security.options(Security(apparmor=PROFILE, selinux=LABEL))
    assert said[2:] == ("apparmor=web", "label=type:container_t", "label=level:s0:c1,c2")


def test_the_privileged_have_none(modules):
    assert len(security.options(Security(apparmor=PROFILE, selinux=LABEL, privileged=True))) == 2


@pytest.mark.parametrize("kind", [ProfileKind.DEFAULT, ProfileKind.UNCONFINED])
def test_no_profile_of_the_host_is_meant(modules, kind):
    assert len(security.options(Security(apparmor=Profile(kind, "")))) == 2


def test_a_host_without_modules(bare):
    assert len(security.options(Security(selinux=LABEL))) == 2
    with pytest.raises(FailedPrecondition, match="profile web: this host has no AppArmor"):
        security.options(Security(apparmor=PROFILE))


@pytest.mark.parametrize(
    ("word", "profile"),
    [
        ("localhost/web", PROFILE),
        ("runtime/default", None),
        ("unconfined", None),
        ("", None),
    ],
)
def test_the_word_of_older_kubelets(word, profile):
    context = pb.LinuxContainerSecurityContext(apparmor_profile=word)
    assert requests._apparmor(context) == profile
