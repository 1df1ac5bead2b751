"""Where the blocks of a prefix cache end in prompts of which only a sample was cut into tokens.

In: the characters of each prompt's pieces, and a `Gauge` of their tokens. Out: how many tokens each prompt has, where
in it each block ends, and a key for each block. Prompts that begin alike are cut alike, and so
share their blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.gauge import Gauge

_CLOSE = 1e-6  # of a character: what arithmetic may be off


class LaidOut(NamedTuple):
    """Where the pieces of some prompts begin: the head, the cells, what comes after them.

    Attributes:
        chars: (n, k + 2) float64, the characters before each piece.
        tokens: The same in tokens.
        rates: The same shape: the characters a token of each piece.
    """

    chars: NDArray[np.float64]
    tokens: NDArray[np.float64]
    rates: NDArray[np.float64]


def lay_out(chars: NDArray[np.int64], columns: NDArray[np.int16], head_chars: int, gauge: Gauge) -> LaidOut:
    """Add up the pieces of some prompts.

    Args:
        chars: (n, k) int64, those of each cell's piece, in the order of sending.
        columns: (n, k) int16, the column of each.
        head_chars: Those before the first.
        gauge: How many tokens they are.
    """
    rates = np.maximum(gauge.tokens_per_char, _CLOSE)[columns]

    def of_each(value: float) -> NDArray[np.float64]:
        return np.full((len(chars), 1), float(value))

    return LaidOut(
        np.concatenate([of_each(0), of_each(head_chars), head_chars + np.cumsum(chars, axis=1)], axis=1),
        np.concatenate(
            [of_each(0), of_each(gauge.head_tokens), gauge.head_tokens + np.cumsum(chars * rates, axis=1)], axis=1
        ),
        np.concatenate(
            [
                of_each(head_chars / max(gauge.head_tokens, 1.0)),
                1 / rates,
                of_each(1 / max(gauge.tail_tokens, 1.0)),
            ],
            axis=1,
        ),
    )


def cut_blocks(laid_out: LaidOut, size: int, blocks: int) -> NDArray[np.intp]:
    """(n, blocks) intp: how many characters of each prompt stand before the end of each block.

    It depends on nothing that comes after it, so prompts that begin alike are cut alike.
    """
    ends = size * np.arange(1, blocks + 1, dtype=np.float64)[np.newaxis, :]
    cuts = np.zeros((len(laid_out.chars), blocks))
    for piece in range(laid_out.chars.shape[1]):
        before, start, rate = (of[:, piece : piece + 1] for of in laid_out)
        cuts = np.where(ends >= start, before + (ends - start) * rate, cuts)
    return np.floor(cuts + _CLOSE).astype(np.intp)


def block_keys(text: str, ends: Sequence[int]) -> list[int]:
    """One key a block, as `PrefixCache` has them, of a text that is cut at some characters."""
    keys = []
    key = start = 0
    for end in ends:
        key = hash((key, text[start:end]))
        keys.append(key)
        start = end
    return keys
