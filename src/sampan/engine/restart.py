"""Restart policies: whether, and after how long. Pure.

The delay doubles from 100 ms to a minute and gets up to a quarter of itself as jitter, so that
containers that fail together do not come back together. A run of ten seconds clears the record.
"""

from __future__ import annotations

import random

from sampan.engine.model import RestartName, RestartPolicy, State

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
GOOD_RUN = 10.0
JITTER = 0.25


def should_restart(policy: RestartPolicy, state: State) -> bool:
    """Whether a container that has just ended, or failed to start by policy, starts again."""
    if state.stopped_by_user or policy.name is RestartName.NO:
        return False
    if policy.name is RestartName.ON_FAILURE:
        tried_out = 0 < policy.max_retries <= state.restart_count
        return state.exit_code != 0 and not tried_out
    return True


def should_start_at_boot(policy: RestartPolicy, state: State) -> bool:
    """Whether a container is started when the machine has come up."""
    if not state.started_at:
        return False
    if policy.name is RestartName.ALWAYS:
        return True
    return policy.name is RestartName.UNLESS_STOPPED and not state.stopped_by_user


def next_delay(previous: float, ran_for: float) -> float:
    """Seconds until the next try, without jitter; `previous` 0 before the first."""
    if not previous or ran_for >= GOOD_RUN:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)


def with_jitter(delay: float) -> float:
    """A little more than `delay`."""
    return delay * (1 + JITTER * random.random())  # noqa: S311 - chance, not secrecy
