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


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ("ENV A=/usr/bin:$A", "env", ("B=x y", "A=/usr/bin:/bin")),
        ("ENV C=\"${B}z\" D='$B' E=\\$B", "env", ("A=/bin", "B=x y", "C=x yz", "D=$B", "E=$B")),
        ("ENV C $B and 'more'", "env", ("A=/bin", "B=x y", "C=x y and more")),
        ("ENV C=${N:-none}${A:+some}$N", "env", ("A=/bin", "B=x y", "C=nonesome")),
        ('LABEL l="it\'s $A"', "labels", {"l": "it's /bin"}),
        ("WORKDIR $A/x", "working_dir", "/bin/x"),
        ('CMD ["$A"]', "cmd", ("$A",)),
        ('ENV C="a\'b" D=c\\ d', "env", ("A=/bin", "B=x y", "C=a'b", "D=c d")),
    ],
)
def test_variables_are_those_of_the_environment(change, field, expected):
    config = apply(RunConfig(env=("A=/bin", "B=x y")), [change])
    assert getattr(config, field) == expected


def test_a_quote_that_is_not_closed_is_refused():
    with pytest.raises(InvalidArgument, match="quote"):
        apply(RunConfig(), ['ENV A="b'])


def test_instructions_are_applied_in_order():
    changes = ["ENV A=1", "ENV A=2 B=3", 'CMD ["x"]', 'ENTRYPOINT ["y"]']
    assert apply(RunConfig(), changes) == RunConfig(
        env=("A=2", "B=3"), entrypoint=("y",), cmd=("x",)
    )
    before = RunConfig(cmd=("old",))
    assert apply(before, ['ENTRYPOINT ["y"]']) == RunConfig(entrypoint=("y",))
    assert apply(before, ["ONBUILD RUN x"]).on_build == ("RUN x",)


@pytest.mark.parametrize(
    "change",
    ["", "CMD", "FROM x", "RUN x", 'CMD ["a"', "CMD [1]", "ENV A=1 B", 'ENV A="x', "LABEL =x y=1"],
)
def test_what_is_no_such_instruction_is_refused(change):
    with pytest.raises(InvalidArgument, match="change"):
        apply(RunConfig(), [change])
