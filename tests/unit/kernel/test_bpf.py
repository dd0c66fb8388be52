"""The assembler, and the device rules that it is used for, run by an interpreter."""

from __future__ import annotations

import pytest

from bpfmachine import run_classic, run_device, seccomp_data
from sampan.kernel import bpf
from sampan.kernel.cgroups import device_program, devices

BLOCK, CHAR = 1, 2
M, R, W = 1, 2, 4


def rule(allow, kind=None, major=None, minor=None, access=None):
    found = {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}
    return {key: value for key, value in found.items() if value is not None}


def allowed(rules, kind, access, major, minor):
    return bool(
        run_device(device_program.program(devices.policy(rules)), kind, access, major, minor)
    )


def by_rules(rules, kind, access, major, minor):
    """What the rules say, without normalising them: each access must be allowed by one rule."""
    policy = devices.policy(rules)
    for (letter, first, second), letters in policy.exceptions.items():
        same = {"b": BLOCK, "c": CHAR}[letter] == kind
        near = first in (-1, major) and second in (-1, minor)
        bits = sum({"m": M, "r": R, "w": W}[x] for x in letters)
        if same and near and (access & bits if policy.allow else access & ~bits == 0):
            return not policy.allow
    return policy.allow


def test_without_rules_only_what_every_container_has():
    for rules in (None, [], [rule(False)], [rule(False, "a", access="rwm")]):
        assert allowed(rules, CHAR, R | W, 1, 3)
        assert allowed(rules, CHAR, R | W, 136, 77)
        assert allowed(rules, BLOCK, M, 8, 0)
        assert not allowed(rules, BLOCK, R, 8, 0)
        assert not allowed(rules, CHAR, R, 1, 1)
        assert not allowed(rules, CHAR, R, 10, 229)


def test_a_list_of_denials_allows_nothing():
    rules = [rule(False, "c", 10, 229, "rwm"), rule(False, "b", 8, 0, "rwm")]
    assert not allowed(rules, BLOCK, R, 8, 1)
    assert not allowed(rules, CHAR, R, 10, 229)
    assert not allowed(rules, CHAR, R, 1, 1)


def test_access_is_of_the_kind_that_was_given():
    rules = [rule(False), rule(True, "b", 8, 0, "r")]
    assert allowed(rules, BLOCK, R, 8, 0)
    assert allowed(rules, BLOCK, M, 8, 0)  # making nodes is always allowed
    assert not allowed(rules, BLOCK, W, 8, 0)
    assert not allowed(rules, BLOCK, R | W, 8, 0)
    assert not allowed(rules, CHAR, R, 8, 0)
    assert not allowed(rules, BLOCK, R, 8, 1)


def test_everything_but():
    rules = [rule(True, "a"), rule(False, "b", 8, None, "w")]
    assert allowed(rules, BLOCK, R, 8, 3)
    assert not allowed(rules, BLOCK, W, 8, 3)
    assert not allowed(rules, BLOCK, R | W, 8, 3)
    assert allowed(rules, CHAR, R | W | M, 1, 1)


def test_later_rules_take_back():
    rules = [rule(True, "c", 1, 1, "rw"), rule(False, "c", 1, 1, "w")]
    assert allowed(rules, CHAR, R, 1, 1)
    assert not allowed(rules, CHAR, W, 1, 1)


def test_a_hole_in_a_wildcard_is_refused():
    with pytest.raises(ValueError, match="cannot deny c 4:5 r inside of the allowed"):
        devices.policy([rule(True, "c", 4, None, "r"), rule(False, "c", 4, 5, "r")])


@pytest.mark.parametrize(
    "bad",
    [
        rule(True, "d", 1, 1),
        rule(True, "p", 1, 1),
        rule("yes", "c", 1, 1),
        rule(True, "c", "1", 1),
        rule(True, "c", 1, -2),
        rule(True, "c", 1 << 32, 1),
        rule(True, "c", True, 1),
        rule(True, "c", 1, 1, "rx"),
        rule(True, "c", 1, 1, ["r"]),
    ],
)
def test_malformed_rules(bad):
    with pytest.raises(ValueError, match=r"linux\.resources\.devices\[0\]"):
        devices.policy([bad])


def test_program_says_what_the_rules_say():
    lists = (
        [],
        [rule(True, "a")],
        [rule(True, "a"), rule(False, "c", 1, 3, "w"), rule(False, "b", None, 3)],
        [rule(True, "b", 8, None, "rw"), rule(True, "c", None, 3, "m"), rule(True, "c", 7, 7)],
        [rule(True, "c", 0xFFFFFFFF, 0x80000000, "r")],
    )
    for rules in lists:
        program = device_program.program(devices.policy(rules))
        for kind in (BLOCK, CHAR):
            for access in range(1, 8):
                for major in (0, 1, 7, 8, 136, 0x80000000, 0xFFFFFFFF):
                    for minor in (0, 3, 7, 0x80000000):
                        got = bool(run_device(program, kind, access, major, minor))
                        assert got == by_rules(rules, kind, access, major, minor)


def test_list_of_version_1_is_read_back():
    rules = devices.policy([rule(True, "b", 8, None, "r")])
    again = devices.parse_list("\n".join([*rules.lines(), ""]))
    assert (again.allow, again.exceptions) == (rules.allow, rules.exceptions)
    assert devices.parse_list("a *:* rwm\n").allow


def test_difference_is_what_has_to_be_written():
    old = devices.policy([rule(True, "b", 8, 0, "rw")])
    new = devices.policy([rule(True, "b", 8, 0, "r"), rule(True, "b", 8, 1, "r")])
    assert devices.difference(old, new) == (["b 8:1 r"], ["b 8:0 w"])
    assert devices.difference(old, old) == ([], [])


def test_classic_jumps_of_any_length():
    program = bpf.Program()
    far = program.returns(1)
    near = program.returns(2)
    for number in range(1000):
        near = program.load(0, program.branch(bpf.JMP_JEQ_K, number, far, near))
    code = program.encode()
    assert run_classic(code, seccomp_data(0, 0))[0] == 1
    assert run_classic(code, seccomp_data(999, 0))[0] == 1
    assert run_classic(code, seccomp_data(1000, 0))[0] == 2


def test_a_branch_that_goes_one_way_is_none():
    program = bpf.Program()
    label = program.returns(7)
    assert program.branch(bpf.JMP_JEQ_K, 1, label, label) == label
    assert len(program) == 1
