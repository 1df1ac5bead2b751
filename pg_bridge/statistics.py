"""What is known about a table's columns: cardinality, lengths, entropy, functional dependencies.

In: a `Table`. Out: small arrays, one entry a column. All of it is counted from the codes, nothing is estimated or
sampled. Nothing here knows how rows are ordered.
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
    """Figures of k columns over n rows; a cell's length is that of its JSON text, in characters.

    Attributes:
        rows: n.
        cardinality: (k,) int64; distinct cells.
        mean_chars: (k,) float64; 0 where there are no rows.
        median_chars: (k,) int64.
        most_chars: (k,) int64.
        repeated_chars: (k,) int64; characters in cells whose text has come before in their column.
        entropy_bits: (k,) float64; of the groups of equal cells: 0 for a constant column, log2(n) for a unique one.
    """

    rows: int
    cardinality: NDArray[np.int64]
    mean_chars: NDArray[np.float64]
    median_chars: NDArray[np.int64]
    most_chars: NDArray[np.int64]
    repeated_chars: NDArray[np.int64]
    entropy_bits: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dependency:
    """One column as a function of another.

    Attributes:
        determinant: The column that determines.
        dependent: The column that is determined.
        exceptions: The least number of rows to leave out for the dependency to be exact; 0 where it is. As a share
            of the rows this is g3 of Kivinen and Mannila (1995).
    """

    determinant: int
    dependent: int
    exceptions: int


def column_statistics(table: Table) -> ColumnStatistics:
    """Count what there is to know about each column.

    >>> figures = column_statistics(Table.from_json(['{"a":1,"b":7}', '{"a":1,"b":80}'], ["a", "b"]))
    >>> figures.cardinality.tolist(), figures.repeated_chars.tolist(), figures.entropy_bits.tolist()
    ([1, 2], [1, 0], [0.0, 1.0])
    """
    k, n = len(table.columns), table.rows
    cardinality, median, most, repeated = (np.zeros(k, np.int64) for _ in range(4))
    mean, entropy = np.zeros(k), np.zeros(k)
    for j, length_of in enumerate(table.lengths() if n else ()):
        occurrences = np.bincount(table.codes[:, j], minlength=len(length_of))
        counts, lengths = occurrences[occurrences > 0], length_of[occurrences > 0]
        chars = int(counts @ lengths)
        cardinality[j] = len(counts)
        mean[j] = chars / n
        most[j] = lengths.max()
        repeated[j] = chars - int(lengths.sum())
        by_length = np.argsort(lengths)
        median[j] = lengths[by_length][np.searchsorted(np.cumsum(counts[by_length]), (n + 1) // 2)]
        entropy[j] = max(np.log2(n) - float(counts @ np.log2(counts)) / n, 0.0)
    return ColumnStatistics(n, cardinality, mean, median, most, repeated, entropy)


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


def approximate_dependencies(table: Table, most_exceptions: float = 0.05) -> list[Dependency]:
    """Find the pairs of columns of which one is, but for a few rows, a function of the other.

    Pairs that hold of any table are left out: those whose dependent is constant, and those whose determinant is
    unique or whose exceptions are so few only because nearly all of its cells are. So an exception counts against
    the rows that could be one: all but the first of each of the determinant's cells.

    Args:
        table: The table.
        most_exceptions: Largest share of exceptions among the rows that could be one.

    Returns:
        The exact ones and the approximate ones, by determinant, then by dependent.

    >>> rows = ['{"a":1,"b":1}', '{"a":1,"b":1}', '{"a":2,"b":3}', '{"a":2,"b":4}']
    >>> approximate_dependencies(Table.from_json(rows, ["a", "b"]), 0.5)
    [Dependency(determinant=0, dependent=1, exceptions=1), Dependency(determinant=1, dependent=0, exceptions=0)]
    """
    n = table.rows
    cardinality = column_statistics(table).cardinality.tolist()
    found = []
    for a in range(len(table.columns)):
        could_be_one = n - cardinality[a]
        if not could_be_one:
            continue
        for b in range(len(table.columns)):
            if b == a or cardinality[b] <= 1:
                continue
            key = table.codes[:, a].astype(np.int64) * len(table.values[b]) + table.codes[:, b]
            pairs, counts = np.unique(key, return_counts=True)
            determinant = pairs // len(table.values[b])
            first = np.flatnonzero(np.diff(determinant, prepend=-1))
            exceptions = n - int(np.maximum.reduceat(counts, first).sum())
            if exceptions <= most_exceptions * could_be_one:
                found.append(Dependency(a, b, exceptions))
    return found
