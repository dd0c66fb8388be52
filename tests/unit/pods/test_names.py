"""Where a kubelet's cgroup parents lie, and what the engine calls containers."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.pods.model import ImageSpec, Request, Sandbox, SandboxConfig
from sampan.pods.names import cgroup_parent, engine_name


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("", ""),
        ("/kubepods/burstable/pod1", "/kubepods/burstable/pod1"),
        (
            "kubepods-burstable-pod1_2.slice",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice",
        ),
        ("/kubepods.slice/kubepods-pod1.slice", "/kubepods.slice/kubepods-pod1.slice"),
    ],
)
def test_parents_of_both_drivers(asked: str, path: str):
    assert cgroup_parent(asked) == path


@pytest.mark.parametrize("asked", ["/a/../b", "/a//b", "a--b.slice", "-a.slice", "/a\n"])
def test_what_is_no_parent(asked: str):
    with pytest.raises(InvalidArgument, match="cgroup_parent"):
        cgroup_parent(asked)


@pytest.mark.parametrize(("pod", "name"), [("web", "c_web_ns_iiiiiiiiiiii_2"), ("we b", None)])
def test_errors_name_container_and_pod(pod: str, name: str | None):
    config = SandboxConfig(name=pod, namespace="ns")
    sandbox = Sandbox(id="i" * 64, created_at=1, config=config)
    request = Request(name="c", image=ImageSpec(image="x"), attempt=2)
    assert engine_name(sandbox, request) == name
