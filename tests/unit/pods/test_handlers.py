"""What a pod with a kernel of its own is refused, and any other is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sampan.errors import InvalidArgument
from sampan.pods.handlers import Handler
from sampan.pods.model import Device, ImageSpec, Mode, Namespaces, Request, SandboxConfig, Security

MACHINE = Handler(name="vm", program=("vm",), is_machine=True)
OTHER = Handler(name="runc", program=("runc",))
PLAIN = SandboxConfig(name="p", uid="u", namespace="n", attempt=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"security": Security(namespaces=Namespaces(network=Mode.NODE))}, "node's namespaces"),
        ({"sysctls": {"net.ipv4.ip_forward": "1"}}, "sysctls"),
    ],
)
def test_a_sandbox(changes, words):
    config = replace(PLAIN, **changes)
    OTHER.check_sandbox(config)
    MACHINE.check_sandbox(PLAIN)
    with pytest.raises(InvalidArgument, match=words):
        MACHINE.check_sandbox(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"devices": (Device(source="/dev/null", target="/dev/x", permissions="r"),)},
        {"cdi": ("vendor.com/class=one",)},
    ],
)
def test_a_container(changes):
    plain = Request(name="c", image=ImageSpec(image="i"))
    MACHINE.check(plain)
    OTHER.check(replace(plain, **changes))
    with pytest.raises(InvalidArgument, match="devices of the node"):
        MACHINE.check(replace(plain, **changes))
