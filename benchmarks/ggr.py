"""Greedy group recursion (GGR), the paper's planner: what the product's own is measured against.

In: a table and what is known about it. Out: an order of rows and, row by row, of columns. Paper: "Optimizing
LLM Queries in Relational Data Analytics Workloads" (MLSys 2025), its algorithm 1 with its functional
dependencies and its early stops.

The step: of all (column, value) pairs take the one with the largest `(len(v)^2 + sum of len(v')^2 over the
columns that the column determines) * (count - 1)`. The rows that hold it are one group, sent with that cell
and the determined ones in front and ordered among themselves by the remaining columns; the other rows are
ordered with all columns and follow. A subtable is not split further, but sent in one fixed order, at row
depth 4 (four groups taken off), column depth 2 (two groups within groups) or a score under 100,000.

Deviation: the paper's functional dependencies are declared by hand, these are counted from the rows, so that
no user has to know them.
Deviation: a stack stands where the paper recurses: no depth limit of Python can be hit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.analysis.dependencies import functional_dependencies, representatives
from pg_bridge.rows.table import Table


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """When a subtable is sent in one fixed order instead of being split; the defaults are the paper's.

    Attributes:
        row_depth: Groups taken off before it.
        column_depth: Groups around it.
        smallest_score: A best group that scores less is not taken.
    """

    row_depth: float = 4
    column_depth: float = 2
    smallest_score: int = 100_000


PUBLISHED = EarlyStop()


@dataclass(frozen=True, slots=True, eq=False)
class _Subtable:
    rows: NDArray[np.intp]
    front: tuple[int, ...]  # columns settled by the groups around it
    columns: tuple[int, ...]  # columns still to be ordered
    row_depth: int
    column_depth: int


@dataclass(frozen=True, slots=True)
class _Group:
    score: int
    column: int
    code: int


class _Scorer:
    """Finds the best (column, value) of a subtable."""

    def __init__(self, table: Table) -> None:
        self._codes = table.codes
        self._squares = [lengths * lengths for lengths in table.lengths()]
        self._row_of = representatives(table)
        self.determined = functional_dependencies(table, self._row_of)

    def best(self, subtable: _Subtable) -> _Group:
        """The group with the largest score; of equals that of the first column, then of the lowest code."""
        best = _Group(0, -1, -1)
        remaining = set(subtable.columns)
        for j in subtable.columns:
            counts = np.bincount(self._codes[subtable.rows, j])
            repeated = np.flatnonzero(counts > 1)
            if not repeated.size:
                continue
            weight = self._squares[j][repeated]
            rows = self._row_of[j][repeated]
            for other in self.determined[j]:
                if other in remaining:
                    weight = weight + self._squares[other][self._codes[rows, other]]
            scores = weight * (counts[repeated] - 1)
            place = int(scores.argmax())
            if scores[place] > best.score:
                best = _Group(int(scores[place]), j, int(repeated[place]))
        return best


def ggr(table: Table, stop: EarlyStop = PUBLISHED) -> tuple[NDArray[np.intp], NDArray[np.int16]]:
    """Order a table.

    Args:
        table: At least one row and one column.
        stop: When to stop splitting.

    Returns:
        row_order: (n,) intp; `row_order[i]` is the row sent i-th.
        column_order: (n, k) int16; its columns in order.
    """
    scorer = _Scorer(table)
    alphabetical = _Alphabetical(table)
    k = len(table.columns)
    row_order = np.empty(table.rows, np.intp)
    column_order = np.empty((table.rows, k), np.int16)
    sent = 0
    stack = [_Subtable(np.arange(table.rows, dtype=np.intp), (), tuple(range(k)), 0, 0)]
    while stack:
        subtable = stack.pop()
        parts = _split(table, scorer, subtable, stop)
        if parts:
            stack += reversed(parts)
            continue
        columns = fallback_columns(table, subtable.rows, subtable.columns)
        end = sent + len(subtable.rows)
        row_order[sent:end] = alphabetical.sort(subtable.rows, columns)
        column_order[sent:end] = (*subtable.front, *columns)
        sent = end
    return row_order, column_order


def _split(table: Table, scorer: _Scorer, subtable: _Subtable, stop: EarlyStop) -> list[_Subtable]:
    """Split a subtable into its best group and the other rows; empty where an early stop holds."""
    if (
        subtable.row_depth >= stop.row_depth
        or subtable.column_depth >= stop.column_depth
        or len(subtable.rows) <= 1
        or len(subtable.columns) <= 1
    ):
        return []
    best = scorer.best(subtable)
    if best.column < 0 or best.score < stop.smallest_score:
        return []
    inside = table.codes[subtable.rows, best.column] == best.code
    determined = set(scorer.determined[best.column])
    taken = (best.column, *(j for j in subtable.columns if j in determined))
    group = _Subtable(
        subtable.rows[inside],
        subtable.front + taken,
        tuple(j for j in subtable.columns if j not in taken),
        subtable.row_depth,
        subtable.column_depth + 1,
    )
    others = _Subtable(
        subtable.rows[~inside],
        subtable.front,
        subtable.columns,
        subtable.row_depth + 1,
        subtable.column_depth,
    )
    return [part for part in (group, others) if part.rows.size]


def fallback_columns(table: Table, rows: NDArray[np.intp], columns: Sequence[int]) -> list[int]:
    """Columns of a subtable by descending `mean length^2 * (n / cardinality - 1)`: the early stop."""
    scores = []
    for j in columns:
        counts = np.bincount(table.codes[rows, j])
        present = np.flatnonzero(counts)
        lengths = np.fromiter((len(table.values[j][code]) for code in present.tolist()), np.int64, len(present))
        scores.append((counts[present] @ lengths / len(rows)) ** 2 * (len(rows) / len(present) - 1))
    return [columns[place] for place in np.argsort(-np.array(scores), kind="stable").tolist()] if scores else []


class _Alphabetical:
    """Sorts rows by their cells' texts; a column's texts are sorted when first needed."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._ranks: dict[int, NDArray[np.int64]] = {}

    def sort(self, rows: NDArray[np.intp], columns: Sequence[int]) -> NDArray[np.intp]:
        """(r,) intp: the rows by their cells in the given columns, most significant first; equal ones as they stood."""
        group = np.zeros(len(rows), np.int64)
        groups = 1
        for j in columns:
            if groups == len(rows):
                break
            ranks = self._of(j)
            distinct, group = np.unique(group * len(ranks) + ranks[self._table.codes[rows, j]], return_inverse=True)
            groups = len(distinct)
        return rows[np.argsort(group, kind="stable")]

    def _of(self, column: int) -> NDArray[np.int64]:
        if column not in self._ranks:
            texts = self._table.values[column]
            ranks = np.empty(len(texts), np.int64)
            ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
            self._ranks[column] = ranks
        return self._ranks[column]
