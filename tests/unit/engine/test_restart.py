from __future__ import annotations

import pytest

from sampan.engine import restart
from sampan.engine.model import RestartName, RestartPolicy, State, Status

ENDED = {"status": Status.EXITED, "started_at": 1}


@pytest.mark.parametrize(
    ("name", "retries", "state", "again"),
    [
        (RestartName.NO, 0, State(**ENDED, exit_code=1), False),
        (RestartName.ALWAYS, 0, State(**ENDED), True),
        (RestartName.ALWAYS, 0, State(**ENDED, stopped_by_user=True), False),
        (RestartName.UNLESS_STOPPED, 0, State(**ENDED, exit_code=3), True),
        (RestartName.UNLESS_STOPPED, 0, State(**ENDED, stopped_by_user=True), False),
        (RestartName.ON_FAILURE, 0, State(**ENDED), False),
        (RestartName.ON_FAILURE, 0, State(**ENDED, exit_code=1, restart_count=900), True),
        (RestartName.ON_FAILURE, 2, State(**ENDED, exit_code=1, restart_count=1), True),
        (RestartName.ON_FAILURE, 2, State(**ENDED, exit_code=1, restart_count=2), False),
    ],
)
def test_when_a_policy_restarts(name, retries, state, again):
    policy = RestartPolicy(name=name, max_retries=retries)
    assert restart.should_restart(policy, state) is again


def test_at_boot():
    always = RestartPolicy(name=RestartName.ALWAYS)
    unless = RestartPolicy(name=RestartName.UNLESS_STOPPED)
    stopped = State(**ENDED, stopped_by_user=True)
    assert restart.should_start_at_boot(always, stopped)
    assert not restart.should_start_at_boot(unless, stopped)
    assert restart.should_start_at_boot(unless, State(**ENDED))
    assert not restart.should_start_at_boot(always, State())
    assert not restart.should_start_at_boot(RestartPolicy(), State(**ENDED))


def test_delay_doubles_to_a_minute_and_a_good_run_clears_it():
    delays, delay = [], 0.0
    for _ in range(12):
        delay = restart.next_delay(delay, 0.0)
        delays.append(delay)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    assert restart.next_delay(60.0, 10.0) == 0.1
    assert all(10.0 <= restart.with_jitter(10.0) <= 12.5 for _ in range(100))
