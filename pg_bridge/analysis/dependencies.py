"""Which columns determine which: functional dependencies, exact and approximate.

In: a `Table`. Out: pairs of columns. All of it is counted from the codes, nothing is estimated or sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.rows.statistics import column_statistics
from pg_bridge.rows.table import Table

_HEAD_ROWS = 256


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
