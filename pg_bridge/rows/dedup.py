"""One request per distinct row: unique rows, the inverse, and the fan-out back to the input rows.

In: a `Table`. Out: `UniqueRows`. The paper's exact deduplication (its section on SQL optimisations): equal
rows make equal prompts, and at temperature 0 equal prompts have equal answers.

It never compares texts: equal codes are equal texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.rows.table import Table

_LARGEST_KEY = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class UniqueRows:
    """The distinct rows of a table.

    Attributes:
        table: The u distinct rows, in order of first appearance; it shares the input's `values`.
        inverse: (n,) intp; input row i is distinct row `inverse[i]`.
    """

    table: Table
    inverse: NDArray[np.intp]

    def fan_out(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Turn the inverse around.

        Returns:
            offsets: (u + 1,) intp.
            members: (n,) intp; `members[offsets[u]:offsets[u + 1]]` are distinct row u's input rows,
                ascending.
        """
        counts = np.bincount(self.inverse, minlength=self.table.rows)
        offsets = np.zeros(self.table.rows + 1, np.intp)
        np.cumsum(counts, out=offsets[1:])
        return offsets, np.argsort(self.inverse, kind="stable").astype(np.intp, copy=False)


def dedup(table: Table, *, enabled: bool = True) -> UniqueRows:
    """Find the distinct rows.

    Args:
        table: The rows.
        enabled: False leaves every row its own, equal or not.
    """
    n = table.rows
    every = np.arange(n, dtype=np.intp)
    if not enabled or n <= 1:
        return UniqueRows(table, every)
    keys = row_keys(table)
    if keys is None:
        return UniqueRows(table, every)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == n:
        return UniqueRows(table, every)
    by_appearance = np.argsort(first)
    place = np.empty(len(first), np.intp)
    place[by_appearance] = np.arange(len(first))
    codes = np.asfortranarray(table.codes[first[by_appearance]])
    return UniqueRows(Table(table.columns, codes, table.values), place[inverse])


def row_keys(table: Table) -> NDArray[np.int64] | None:
    """One number a row, equal for equal rows only.

    Returns:
        (n,) int64, or None where some column alone tells all rows apart.
    """
    n = table.rows
    cardinalities = [len(texts) for texts in table.values]
    if n in cardinalities and len(np.unique(table.codes[:, cardinalities.index(n)])) == n:
        return None
    keys = np.zeros(n, np.int64)
    span = 1  # keys lie in [0, span)
    for j in sorted(range(len(cardinalities)), key=lambda j: -cardinalities[j]):  # rows are soon told apart
        cardinality = cardinalities[j]
        if cardinality <= 1:
            break
        if span > _LARGEST_KEY // cardinality:
            distinct, inverse = np.unique(keys, return_inverse=True)
            keys, span = inverse.astype(np.int64), len(distinct)
            if span == n:
                return None
        keys = keys * cardinality + table.codes[:, j]
        span *= cardinality
    return keys
