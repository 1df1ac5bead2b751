"""Which of many rows are near one another: by embeddings, or by the letters of their texts.

In: an embedding of each row, or texts. Out: unit vectors; of each row the pairs with those nearest to it. What is held
besides the vectors is a few megabytes, however many rows there are. Nothing here is asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.resolution import Pair

LETTERS_DIMENSIONS = 512

_AT_ONCE = 1 << 22  # numbers that are held at one time, besides the vectors
_DECIMALS = 6  # of a cosine; the rest depends on how many are computed at one time
_WORD = re.compile(r"\w+")

Vectors = NDArray[np.float32]


def to_units(vectors: Vectors) -> Vectors:
    """(n, d) float32: each vector with a length of 1; one of zeros, which points nowhere, stays as it is.

    >>> to_units(np.array([[3, 4], [0, 0]], np.float32)).round(1).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scaled = vectors / np.where(largest, largest, 1)  # squares of what a real holds may be more than one holds
    lengths = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, np.newaxis]
    units: Vectors = (scaled / np.where(lengths, lengths, 1)).astype(np.float32)
    return units


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Rows, as many at a time as may be held with so many numbers each."""
    at_once = max(1, _AT_ONCE // columns)
    return (slice(start, start + at_once) for start in range(0, rows, at_once))


def letters_of(texts: Sequence[str], work: Callable[[], None] = lambda: None) -> Vectors:
    """(n, 512) float32: unit vectors of which those are near whose texts have rare runs of three letters in common.

    >>> one, same, other = letters_of(["Acme Ltd.", "ACME, Limited", "Bolt Ltd."])
    >>> bool(one @ same > one @ other)
    True
    """
    counts = np.zeros((len(texts), LETTERS_DIMENSIONS), np.float32)
    for row, text in enumerate(texts):
        if row % 1024 == 0:
            work()
        words = (f"  {word} " for word in _WORD.findall(text.casefold()))
        runs = Counter(word[at : at + 3] for word in words for at in range(len(word) - 2))
        for run, count in runs.items():
            counts[row, crc32(run.encode(errors="surrogatepass")) % LETTERS_DIMENSIONS] += count
    held_by = (counts > 0).sum(axis=0)
    return to_units(counts * np.log((1 + len(texts)) / np.maximum(held_by, 1)).astype(np.float32))


def nearest_pairs(
    units: Vectors, most: int | None, least: float = -1.0, work: Callable[[], None] = lambda: None
) -> list[Pair]:
    """The pairs of each row with those nearest to it, the nearest pair first.

    Args:
        units: (n, d) unit vectors; those of zeros are near to nothing, and paired only where all are with all.
        most: With how many others each row is paired; None for all.
        least: The least cosine of a pair.
        work: Called now and then.
    """
    count = len(units)
    every = most is None and least <= -1
    most = count - 1 if most is None else min(most, count - 1)
    if most < 1:
        return []
    nowhere = np.flatnonzero(~units.any(axis=1))
    found: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for some in blocks(count, count):
        work()
        near = units[some] @ units.T
        rows = np.arange(count)[some]
        near[rows - some.start, rows] = -np.inf
        columns = np.argpartition(near, count - most, axis=1)[:, count - most :] if most < count - 1 else _all(near)
        cosines = np.round(np.take_along_axis(near, columns, axis=1).astype(np.float64), _DECIMALS).ravel()
        ones, others = np.repeat(rows, columns.shape[1]), columns.ravel()
        fits = (ones != others) & (cosines >= least)
        if not every:
            fits &= ~(np.isin(ones, nowhere) | np.isin(others, nowhere))
        ones, others = ones[fits], others[fits]
        found.append((np.minimum(ones, others) * count + np.maximum(ones, others), cosines[fits]))
    keys, cosines = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.lexsort((keys, -cosines))
    _, firsts = np.unique(keys[order], return_index=True)  # each pair where it is first, from whichever of the two
    chosen = keys[order][np.sort(firsts)]
    return list(zip((chosen // count).tolist(), (chosen % count).tolist(), strict=True))


def _all(near: Vectors) -> NDArray[np.int64]:
    return np.broadcast_to(np.arange(near.shape[1]), near.shape)
