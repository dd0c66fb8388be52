"""A short run of the chaos: kills at random moments under a load, and nothing is lost or left.

`tests/chaos.py` by hand does it hundreds of times. The moments are random and the seed is not: a
run that fails says what was lost.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chaos import Chaos, judge
from enginelab import Lab, needs_root

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_root


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [5, 6])
def test_nothing_is_lost_and_nothing_is_left(tmp_path: Path, seed: int) -> None:
    lab = Lab(tmp_path)
    try:
        chaos = Chaos(lab, seed)
        chaos.run(10, pause=0.1)
        assert asyncio.run(judge(chaos)) == []
    finally:
        lab.close()
