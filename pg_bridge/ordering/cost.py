"""The exact worth of an ordering: characters that each sent row shares with the one sent before it.

In: a table and an ordering's two arrays. Out: two sums over the rows as `prompt.render` writes them, braces,
names, commas and all. Of two cells that differ, the characters before the first difference count too.

It never renders a row: equal codes are skipped as whole cells, and only the cells at which a pair of
neighbours parts are compared as texts. One pair's common prefix always ends inside those two cells, because
no JSON value continues another except a number, and a number is followed by a comma or a brace.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.texts import Texts
from pg_bridge.table import Table

_SEPARATOR_CHARS = 2  # ', ' after a cell; for the last cell of a row the two braces around it stand in


def total_chars(table: Table, texts: Texts) -> int:
    """Characters of all rows as rendered, without the question."""
    cells = sum(
        int(np.bincount(table.codes[:, j], minlength=len(lengths)) @ lengths)
        for j, lengths in enumerate(texts.lengths)
        if len(lengths)
    )
    names = sum(len(label) + _SEPARATOR_CHARS for label in texts.labels)
    return cells + table.rows * names


def shared_chars(table: Table, texts: Texts, row_order: NDArray[np.intp], column_order: NDArray[np.int16]) -> int:
    """Characters that each sent row shares with the one before it, summed over all rows but the first.

    Args:
        table: The table.
        texts: Its texts.
        row_order: (n,) intp; the rows in sending order.
        column_order: (n, k) int16; the columns of each sent row in order.
    """
    codes = table.codes
    if table.rows == 0 or not table.columns:
        return 0
    offsets = np.cumsum([0, *(len(lengths) for lengths in texts.lengths[:-1])])
    piece_chars = np.concatenate(
        [lengths + len(label) + _SEPARATOR_CHARS for label, lengths in zip(texts.labels, texts.lengths, strict=True)]
    )
    alike = np.arange(1, table.rows)  # places in sending order whose row equals the one before it so far
    shared = len(alike)  # each its opening brace
    for place in range(len(table.columns)):
        column, column_before = column_order[alike, place], column_order[alike - 1, place]
        code, code_before = codes[row_order[alike], column], codes[row_order[alike - 1], column_before]
        same_column = column == column_before
        same = same_column & (code == code_before)
        shared += int(piece_chars[offsets[column[same]] + code[same]].sum())
        part = same_column & ~same
        shared += _within_column(texts, column[part], code[part], code_before[part])
        shared += _across_columns(texts, column[~same_column], column_before[~same_column])
        alike = alike[same]
        if not alike.size:
            return shared
    return shared - len(alike)  # equal rows: ', ' was counted after their last cell, where only '}' stands


def _within_column(
    texts: Texts, column: NDArray[np.int16], code: NDArray[np.int32], code_before: NDArray[np.int32]
) -> int:
    """Shared characters of pairs that part in two cells of one column."""
    shared = 0
    for j in np.unique(column).tolist():
        here = column == j
        shared += int(here.sum()) * len(texts.labels[j])
        shared += texts.common_chars(j, code[here], code_before[here])
    return shared


def _across_columns(texts: Texts, column: NDArray[np.int16], column_before: NDArray[np.int16]) -> int:
    """Shared characters of pairs that part where they hold different columns: those of the two names."""
    k = len(texts.labels)
    pairs, counts = np.unique(column_before.astype(np.int64) * k + column, return_counts=True)
    return sum(
        texts.common_label(*divmod(pair, k)) * count
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
    )
