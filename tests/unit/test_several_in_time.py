"""Several engines in virtual time: they share the work by what they can do, and hardly compute more than one does."""

from __future__ import annotations

import pytest

from benchmarks.replicas_in_time import ask, speeds_of, things
from pg_bridge.testing.speeds import H100_8B

ROWS = things(1000, 40)
ONE = ask([H100_8B], ROWS)


@pytest.mark.some(1)
@pytest.mark.parametrize("slowness", [[1, 1], [1, 2], [1, 1, 1, 2], [1] * 8])
def test_the_last_ends_within_a_tenth_of_the_first(slowness: list[float]) -> None:
    several = ask(speeds_of(H100_8B, slowness), ROWS)
    assert sum(several.asked) == len(ROWS)
    assert several.apart < 0.1
    assert several.cached >= 0.98 * ONE.cached
    ideal_s = ONE.seconds / sum(1 / each for each in slowness)
    assert several.seconds < 1.2 * ideal_s


@pytest.mark.slow
def test_scattered_rows_lose_what_neighbours_share() -> None:
    speeds = speeds_of(H100_8B, [1] * 8)
    scattered, placed = ask(speeds, ROWS, placed=False), ask(speeds, ROWS)
    assert scattered.computed > 1.03 * placed.computed
