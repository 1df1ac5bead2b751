"""The forms that answers are held to: exactly what was meant, in the syntax of every engine."""

from __future__ import annotations

import random
import re

import pytest

from pg_bridge.engine.forms import grammar_of_pattern
from pg_bridge.options.forms import whole_numbers
from tests.seeds import each_seed

LEAST, MOST = -(2**31), 2**31 - 1


def near(low: int, high: int, rng: random.Random) -> set[int]:
    """Numbers in and about a range."""
    drawn = {rng.randint(low, high) for _ in range(20)} | {rng.randint(LEAST, MOST) for _ in range(5)}
    return drawn | {low - 1, low, low + 1, high - 1, high, high + 1, -low, -high, 0, low * 10, high // 10}


@each_seed(200)
def test_a_range_takes_its_numbers_and_no_others(seed: int) -> None:
    rng = random.Random(seed)
    largest = 10 ** rng.randint(1, 9) * 2
    low, high = sorted(rng.randint(-largest, largest) for _ in range(2))
    pattern = whole_numbers(low, high)
    for number in near(low, high, rng):
        assert bool(re.fullmatch(pattern, str(number))) == (low <= number <= high), (low, high, number)
    for text in ("", "-", "-0", "00", "+1", "1.0", " 1", f"0{abs(high)}", "one"):
        assert not re.fullmatch(pattern, text), (low, high, text)


@pytest.mark.parametrize(("low", "high"), [(LEAST, MOST), (LEAST, LEAST), (MOST, MOST), (0, 0), (-1, 0), (0, MOST)])
def test_the_widest_ranges_are_patterns_of_some_hundred_characters(low: int, high: int) -> None:
    pattern = whole_numbers(low, high)
    assert len(pattern) < 700
    assert all(re.fullmatch(pattern, str(number)) for number in (low, high))
    assert not any(re.fullmatch(pattern, str(number)) for number in (low - 1, high + 1))


def test_llama_cpp_is_told_the_same() -> None:
    assert grammar_of_pattern(whole_numbers(-12, 100)).count("(") == 1
    assert grammar_of_pattern(whole_numbers(1, 10)) == '( [1-9] | "1" "0" )'
