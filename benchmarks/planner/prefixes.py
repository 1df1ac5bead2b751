"""How much of a run's prompts a prefix cache holds, counted on the prompts themselves.

In: the prompts in sending order, as text and as token ids. Out: shares of their characters or tokens. It knows no
table, no column and no planner, so that it cannot share an error with them.

Without a bound on the cache, what is computed is the radix tree of all prompts, whatever their order. Sorted prompts
stand in the tree's order, so what is found is the sum of what neighbours among them share; in whole blocks, that
rounded down to blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.prefix_cache import PrefixCache

BOUNDED_CACHE = 0.1
"""The bounded cache, as a share of the prompts' tokens."""

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares, 0 to 1, of what the prompts hold.

    Attributes:
        chars: Characters that an unbounded cache holds.
        neighbours: Characters that each prompt shares with the one before it.
        blocks_16: Tokens in an unbounded cache of blocks of 16.
        bounded_16: Tokens in a cache of such blocks with room for a tenth of the prompts' tokens.
        blocks_32: As `blocks_16`, with blocks of 32.
        bounded_32: As `bounded_16`, with blocks of 32.
        tokens: Tokens in an unbounded cache that knows no blocks.
    """

    chars: float
    neighbours: float
    blocks_16: float
    bounded_16: float
    blocks_32: float
    bounded_32: float
    tokens: float


def rates(texts: Sequence[str], tokens: Sequence[Integers], cache_tokens: int) -> Rates:
    """Measure prompts.

    Args:
        texts: The prompts in sending order.
        tokens: Their token ids.
        cache_tokens: Room in the bounded cache.
    """
    chars = sum(map(len, texts))
    total = sum(map(len, tokens))
    found = tree_overlaps(tokens)

    def blocks(size: int) -> float:
        return int((found // size * size).sum()) / total

    return Rates(
        chars=tree_chars(texts) / chars,
        neighbours=sum(overlaps([_points(text) for text in texts])) / chars,
        blocks_16=blocks(16),
        bounded_16=bounded(tokens, 16, cache_tokens),
        blocks_32=blocks(32),
        bounded_32=bounded(tokens, 32, cache_tokens),
        tokens=blocks(1),
    )


def tree_chars(texts: Sequence[str]) -> int:
    """How many of the prompts' characters an unbounded cache holds, whatever their order.

    >>> tree_chars(["abc1", "x", "abc2", "abd"])
    5
    """
    return sum(overlaps([_points(text) for text in sorted(texts)]))


def tree_overlaps(tokens: Sequence[Integers]) -> NDArray[np.int64]:
    """(prompts - 1,) int64: tokens that neighbours in the tree's order share; the last of a prompt is never found."""
    keys = [each.tobytes() for each in tokens]  # of equally wide numbers, so that equal beginnings stand together
    sent = [tokens[i] for i in sorted(range(len(keys)), key=keys.__getitem__)]
    most = np.fromiter((len(each) - 1 for each in sent[1:]), np.int64, max(len(sent) - 1, 0))
    return np.minimum(np.array(overlaps(sent), np.int64), most)


def bounded(tokens: Sequence[Integers], block_size: int, cache_tokens: int) -> float:
    """The hit rate of a cache that drops the least recently used block."""
    cache = PrefixCache(block_size, capacity=cache_tokens // block_size)
    for each in tokens:
        cache.query(each)
    return cache.hit_rate


def overlaps(sequences: Sequence[Integers]) -> list[int]:
    """How many leading entries each sequence but the first shares with the one before it.

    >>> overlaps([np.array(each) for each in ([1, 2, 3], [1, 2], [1, 2, 4], [4])])
    [2, 2, 0]
    """
    return [_overlap(one, other) for one, other in pairwise(sequences)]


def _overlap(one: Integers, other: Integers) -> int:
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    first = int(differ.argmax()) if length else 0
    return first if length and differ[first] else length


def _points(text: str) -> NDArray[np.uint32]:
    """(characters,) uint32: a text's code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
