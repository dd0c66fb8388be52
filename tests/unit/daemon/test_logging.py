"""The log's two shapes, and that nobody forges a line of it."""

from __future__ import annotations

import io
import json
import logging as standard

import pytest

from sampan.daemon import logging


@pytest.fixture
def log():
    """A logger, and what it wrote."""
    root = standard.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()

    def configured(level, form):
        logging.configure(level, form, stream)
        return standard.getLogger("sampan.test"), stream

    yield configured
    root.handlers[:], root.level = before


def test_text(log):
    logger, stream = log("info", "text")
    logger.debug("not this")
    with logging.about(container="c1"), logging.about(op="start"):
        logger.warning("it is %s", "slow")
    logger.info("done")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("Z warning sampan.test: it is slow (container=c1 op=start)")
    assert second.endswith("Z info sampan.test: done")


def test_json(log):
    logger, stream = log("debug", "json")
    with logging.about(request="7"):
        logger.debug("hello\n\x1b]x")
    record = json.loads(stream.getvalue())
    assert record == {
        "time": record["time"],
        "level": "debug",
        "logger": "sampan.test",
        "message": "hello\n\x1b]x",
        "request": "7",
    }


def test_control_characters_make_no_line(log):
    logger, stream = log("info", "text")
    logger.info("a\n2026-01-01 forged\x1b[2J\r")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_tracebacks(log):
    logger, stream = log("info", "text")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logger.exception("failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("error sampan.test: failed")
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[-1] == "    RuntimeError: broken"
