"""What the planner knows about a table's columns: cardinality, mean length, functional dependencies.

In: a `Table`, or some of its rows. Out: small arrays, one entry a column. All of it is counted from the
codes, nothing is estimated or sampled. A later planner adds to it; nothing here knows how rows are ordered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.table import Table

_HEAD_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class ColumnStatistics:
    """Figures of some columns over some rows.

    Attributes:
        cardinality: (c,) int64; distinct cells among the rows.
        mean_chars: (c,) float64; mean cell length over the rows, in characters.
    """

    cardinality: NDArray[np.int64]
    mean_chars: NDArray[np.float64]


def column_statistics(
    table: Table,
    lengths: Sequence[NDArray[np.int64]],
    columns: Sequence[int],
    rows: NDArray[np.intp] | None = None,
) -> ColumnStatistics:
    """Count cardinalities and mean lengths.

    Args:
        table: The table.
        lengths: Its `Table.lengths()`.
        columns: The c columns to look at.
        rows: (r,) intp; the rows to look at, at least one; None for all.
    """
    cardinality = np.zeros(len(columns), np.int64)
    mean_chars = np.zeros(len(columns), np.float64)
    for place, j in enumerate(columns):
        codes = table.codes[:, j] if rows is None else table.codes[rows, j]
        counts = np.bincount(codes, minlength=len(lengths[j]))
        cardinality[place] = np.count_nonzero(counts)
        mean_chars[place] = counts @ lengths[j] / len(codes)
    return ColumnStatistics(cardinality, mean_chars)


def representatives(table: Table) -> tuple[NDArray[np.intp], ...]:
    """Per column, (m,) intp: one row that holds each distinct cell; -1 where no row does."""
    every = np.arange(table.rows, dtype=np.intp)
    found = []
    for j, texts in enumerate(table.values):
        row_of = np.full(len(texts), -1, np.intp)
        row_of[table.codes[:, j]] = every
        found.append(row_of)
    return tuple(found)


def functional_dependencies(
    table: Table, row_of: Sequence[NDArray[np.intp]] | None = None
) -> tuple[tuple[int, ...], ...]:
    """Find, for each column, the other columns that it determines: equal there, equal here.

    Exact: column a determines b when every row's b equals the b of the row that represents its a. A pair is
    first tried on a few rows, which refutes most pairs; only the rest costs O(n).

    Args:
        table: The table.
        row_of: Its `representatives`, where the caller has them.

    Returns:
        For each column the columns it determines, ascending.

    >>> functional_dependencies(Table.from_json(['{"a":1,"b":1}', '{"a":2,"b":1}'], ["a", "b"]))
    ((1,), ())
    """
    codes = table.codes
    head = codes[:_HEAD_ROWS]
    dependencies = []
    for a, rows in enumerate(row_of if row_of is not None else representatives(table)):
        twin = rows[codes[:, a]]
        candidates = np.flatnonzero((codes[twin[:_HEAD_ROWS]] == head).all(axis=0)).tolist()
        dependencies.append(tuple(b for b in candidates if b != a and np.array_equal(codes[twin, b], codes[:, b])))
    return tuple(dependencies)
