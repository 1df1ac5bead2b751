"""A smaller list of choices that is still interesting: what is left over is what matters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

Made = Callable[[Sequence[int]], list[int] | None]


def shrink(made: Sequence[int], still: Made, budget_s: float) -> list[int]:
    """Return a shorter list, or one of smaller numbers, for which `still` holds.

    Args:
        made: Choices for which it holds.
        still: Tries choices; returns those that were really made if they are still interesting, None if not.
        budget_s: When to be content, in seconds.
    """
    best = list(made)
    deadline = time.monotonic() + budget_s

    def better(candidate: list[int]) -> bool:
        nonlocal best
        if time.monotonic() > deadline or _size(candidate) >= _size(best):
            return False
        found = still(candidate)
        if found is None or _size(found) >= _size(best):
            return False
        best = found
        return True

    improved = True
    while improved and time.monotonic() < deadline:
        improved = False
        for width in (32, 16, 8, 4, 2, 1):
            start = 0
            while start < len(best) and time.monotonic() < deadline:
                zeros = best[:start] + [0] * len(best[start : start + width]) + best[start + width :]
                if better(best[:start] + best[start + width :]) or better(zeros):
                    improved = True
                else:
                    start += width
        for position in range(len(best)):
            for smaller in range(min(best[position] if position < len(best) else 0, 4)):
                if better([*best[:position], smaller, *best[position + 1 :]]):
                    improved = True
                    break
    return best


def _size(choices: Sequence[int]) -> tuple[int, int]:
    """What is smaller comes first: fewer choices that are not the simplest, then fewer at all."""
    return sum(1 for choice in choices if choice) * 2 + len(choices), sum(choices)
