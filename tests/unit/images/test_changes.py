"""`--change` of import: Dockerfile instructions that set the config."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.images.changes import apply
from sampan.spec.image import RunConfig


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('CMD ["a", "b"]', RunConfig(cmd=("a", "b"))),
        ("cmd echo $HOME", RunConfig(cmd=("/bin/sh", "-c", "echo $HOME"))),
        ('ENTRYPOINT ["/x"]', RunConfig(entrypoint=("/x",))),
        ('ENV A=1 B="two words"', RunConfig(env=("A=1", "B=two words"))),
        ("ENV A one two", RunConfig(env=("A=one two",))),
        ("LABEL a=b", RunConfig(labels={"a": "b"})),
        ("EXPOSE 80 53/udp", RunConfig(exposed_ports=("53/udp", "80/tcp"))),
        ('VOLUME ["/a", "/b"]', RunConfig(volumes=("/a", "/b"))),
        ("VOLUME /a /b", RunConfig(volumes=("/a", "/b"))),
        ("USER me:us", RunConfig(user="me:us")),
        ("WORKDIR /w", RunConfig(working_dir="/w")),
        ("STOPSIGNAL SIGINT", RunConfig(stop_signal="SIGINT")),
        ('SHELL ["/bin/bash", "-c"]', RunConfig(shell=("/bin/bash", "-c"))),
    ],
)
def test_an_instruction_sets_its_field(change, expected):
    assert apply(RunConfig(), [change]) == expected


def test_instructions_are_applied_in_order():
    changes = ["ENV A=1", "ENV A=2 B=3", 'CMD ["x"]', 'ENTRYPOINT ["y"]']
    assert apply(RunConfig(), changes) == RunConfig(env=("A=2", "B=3"), entrypoint=("y",))


@pytest.mark.parametrize(
    "change",
    ["", "CMD", "FROM x", "RUN x", 'CMD ["a"', "CMD [1]", "ENV A=1 B", 'ENV A="x', "LABEL =x y=1"],
)
def test_what_is_no_such_instruction_is_refused(change):
    with pytest.raises(InvalidArgument, match="change"):
        apply(RunConfig(), [change])
