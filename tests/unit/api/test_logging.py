"""LogConfig: drivers, their options, and what is refused by name."""

from __future__ import annotations

import pytest

from sampan.api.docker.logging import details, log_config
from sampan.engine.model import LogDriver
from sampan.errors import InvalidArgument
from sampan.wire.hostconfig import LogConfig


def parsed(driver="", **options):
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return log_config(LogConfig(type=driver, config=named))


def test_what_every_driver_takes():
    log = parsed("local", max_size="10m", max_file="4", compress="false", mode="non-blocking")
    assert (log.driver, log.max_size, log.max_file) == (LogDriver.LOCAL, 10 << 20, 4)
    assert log.compress is False
    assert parsed("json-file", mode="non-blocking", max_buffer_size="4m").compress is None
    assert parsed("none").driver is LogDriver.NONE


def test_patterns_of_attributes():
    log = parsed(labels="a.b,c", labels_regex="^x", env="PATH")
    assert log.labels == (r"^a\.b$", "^c$", "^x")
    assert log.env == ("^PATH$",)


@pytest.mark.parametrize(
    ("driver", "options", "sentence"),
    [
        ("cri", {}, "no log driver named 'cri'"),
        ("none", {"max_size": "1m"}, "unknown log opt 'max-size' for none log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for local log driver"),
        ("", {"compress": "maybe"}, "compress='maybe'"),
        ("", {"max_file": "1000"}, "a number up to 999"),
        ("", {"max_file": "\u0661"}, "a number up to 999"),
        ("", {"mode": "quick"}, "logging mode not supported: quick"),
        ("", {"max_buffer_size": "1m"}, "only supported with 'mode=non-blocking'"),
        ("", {"env_regex": "("}, "invalid log opt env-regex="),
    ],
)
def test_what_is_refused(driver, options, sentence):
    with pytest.raises(InvalidArgument) as failure:
        parsed(driver, **options)
    assert sentence in str(failure.value)


def test_details():
    assert details({}) == b" "
    assert details({"b": "2", "a": "1"}) == b"a=1,b=2 "
