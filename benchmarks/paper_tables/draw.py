"""Random draws that hold a cardinality exactly.

In: a generator and counts. Out: codes or texts. It knows no table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.intp]
_T = TypeVar("_T")


def scaled(count: int, rows: int, full_rows: int, most: int | None = None) -> int:
    """How many entities `rows` rows have where `full_rows` rows have `count`; at least one, at most a row each.

    >>> scaled(1344, 15000, 15000), scaled(1344, 10, 15000), scaled(313, 10**6, 15000, most=313)
    (1344, 1, 313)
    """
    entities = min(max(1, round(count * rows / full_rows)), rows)
    return entities if most is None else min(entities, most)


def by_rank(chance: np.random.Generator, size: int, ranks: int, skew: float, shift: float = 0.0) -> Codes:
    """Draw ranks by Zipf's law.

    Args:
        chance: The generator.
        size: How many to draw.
        ranks: Codes below this are drawn.
        skew: Rank r (from 1) has weight 1 / (r + shift) ** skew.
        shift: Flattens the first ranks, as Mandelbrot's form of the law does.

    Returns:
        (size,) intp.
    """
    heap = np.cumsum(1.0 / (np.arange(1, ranks + 1) + shift) ** skew)
    codes: Codes = np.minimum(np.searchsorted(heap, chance.random(size) * heap[-1]), ranks - 1).astype(np.intp)
    return codes


def every_one(chance: np.random.Generator, size: int, ranks: int, skew: float = 0.0, shift: float = 0.0) -> Codes:
    """Draw as `by_rank`, but each rank once at least, in random order; `ranks` must not exceed `size`."""
    codes = np.concatenate([np.arange(ranks), by_rank(chance, size - ranks, ranks, skew, shift)])
    return chance.permutation(codes).astype(np.intp)


def pick(values: Sequence[_T], codes: Codes) -> list[_T]:
    """Look codes up; equal codes give one object."""
    return list(map(values.__getitem__, codes.tolist()))


def distinct(texts: list[str]) -> list[str]:
    """Tell equal texts apart by a number at their end.

    >>> distinct(["a", "b", "a"])
    ['a', 'b', 'a 2']
    """
    numbers: dict[str, int] = {}  # the last one tried for each text, so that many equal ones cost no more than few
    for text in texts:
        unique = text
        while unique in numbers:
            numbers[text] += 1
            unique = f"{text} {numbers[text]}"
        numbers[unique] = 1
    return list(numbers)


def identifiers(chance: np.random.Generator, count: int, alphabet: str, length: int, head: str = "") -> list[str]:
    """Draw distinct random identifiers."""
    found: dict[str, None] = {}
    letters = np.array(list(alphabet))
    while len(found) < count:
        drawn = letters[chance.integers(len(letters), size=(count - len(found), length))]
        found.update(dict.fromkeys(head + "".join(each) for each in drawn.tolist()))
    return list(found)
