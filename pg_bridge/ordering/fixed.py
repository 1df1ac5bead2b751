"""Orderings with one column order for all rows: the paper's v1, and the fallback of GGR.

In: a table, or some rows and columns of it. Out: a column order, and rows sorted by their cells in that
order. Paper: arXiv 2403.05821v1, fixed field ordering; MLSys 2025, the early stop of GGR.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.texts import Texts
from pg_bridge.statistics import column_statistics
from pg_bridge.table import Table


def v1_columns(table: Table, texts: Texts) -> list[int]:
    """Columns by descending `mean length * n / cardinality`; equal scores keep the row's order."""
    columns = range(len(table.columns))
    figures = column_statistics(table, texts.lengths, columns)
    return _descending(columns, figures.mean_chars * table.rows / figures.cardinality)


def fallback_columns(table: Table, texts: Texts, rows: NDArray[np.intp], columns: Sequence[int]) -> list[int]:
    """Columns of a subtable by descending `mean length^2 * (n / cardinality - 1)`: GGR's early stop."""
    figures = column_statistics(table, texts.lengths, columns, rows)
    return _descending(columns, figures.mean_chars**2 * (len(rows) / figures.cardinality - 1))


def sort_rows(table: Table, texts: Texts, rows: NDArray[np.intp], columns: Sequence[int]) -> NDArray[np.intp]:
    """Sort rows alphabetically by their cells in the given column order.

    Columns are taken one by one until all rows are told apart, so that a long unique column behind others is
    not sorted in vain. Equal rows keep their order.

    Args:
        table: The table.
        texts: Its texts.
        rows: (r,) intp; the rows to sort.
        columns: The columns, most significant first.

    Returns:
        (r,) intp; the same rows, sorted.
    """
    group = np.zeros(len(rows), np.int64)
    groups = 1
    for j in columns:
        if groups == len(rows):
            break
        codes = table.codes[rows, j]
        if len(texts.lengths[j]) == 1:
            continue
        ranks = texts.ranks(j)
        distinct, group = np.unique(group * len(ranks) + ranks[codes], return_inverse=True)
        groups = len(distinct)
    return rows[np.argsort(group, kind="stable")]


def _descending(columns: Sequence[int], scores: NDArray[np.float64]) -> list[int]:
    return [columns[place] for place in np.argsort(-scores, kind="stable").tolist()]
