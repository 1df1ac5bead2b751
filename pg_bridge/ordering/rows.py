"""The order of rows that fits an order of columns: depth-first through their prefix tree.

In: each row's columns in order. Out: the rows sorted by what they begin with, and what they then share. Rows that
share a prefix stand together, so every prefix is finished before the next begins: neighbours share all that the tree
holds, and a cache that drops the least recently used blocks never drops one that more rows are still to come for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.partition import Partition, divide, split
from pg_bridge.ordering.sent import ROOT, lengthened


def sort_rows(cells: Cells, column_order: NDArray[np.int16]) -> NDArray[np.intp]:
    """Sort rows by their cells in the order in which each row holds them.

    At every depth rows stand alphabetically by their column's name, then by cell. Depth after depth is looked at until
    all rows are told apart. Equal rows keep their order.

    Args:
        cells: The table's cells.
        column_order: (n, k) int16; `column_order[i]` are row i's columns in order.

    Returns:
        (n,) intp; the rows, sorted.
    """
    return walk(cells, column_order)[0]


def prefixes(cells: Cells, column_order: NDArray[np.int16]) -> NDArray[np.uint64]:
    """(n * k,) uint64: the hashes of all that rows begin with."""
    rows = np.arange(cells.rows, dtype=np.intp)
    prefix = np.full(cells.rows, ROOT)
    found = []
    for depth in range(cells.columns):
        prefix = lengthened(prefix, cells.hashes[cells.places(rows, column_order[:, depth])])
        found.append(np.unique(prefix))
    return np.concatenate(found) if found else np.empty(0, np.uint64)


def mean_order(column_order: NDArray[np.int16]) -> tuple[int, ...]:
    """All columns by their mean place in rows' orders.

    Args:
        column_order: (n, k) int16; at least one row.
    """
    n, k = column_order.shape
    place = np.empty((n, k), np.int16)
    place[np.arange(n)[:, np.newaxis], column_order] = np.arange(k, dtype=np.int16)
    return tuple(np.argsort(place.mean(axis=0), kind="stable").tolist())


def walk(cells: Cells, column_order: NDArray[np.int16]) -> tuple[NDArray[np.intp], int]:
    """Walk through the rows' tree, depth after depth.

    Returns:
        rows: (n,) intp; as `sort_rows` has them.
        shared: Characters of cells and names that rows share with the row before them, or with what earlier windows
            have sent; opening braces are not among them.
    """
    sent = np.arange(cells.rows, dtype=np.intp)
    slots = sent.copy()  # where the rows of the groups below will stand
    groups = Partition.whole(cells)
    shared = 0
    by_name = np.array(sorted(range(cells.columns), key=cells.labels.__getitem__), np.int16)
    place_of = np.argsort(by_name).astype(np.int16)
    for depth in range(cells.columns):
        if not groups.count:
            break
        divided, parent, place = divide(groups, place_of[column_order[groups.rows, depth]])
        column = by_name[place]
        parts = split(cells, divided, column)
        first = np.flatnonzero(np.diff(parts.parent, prepend=-1))  # part of each group
        after = np.flatnonzero((parent[1:] == parent[:-1]) & (parts.known[first[1:]] == 0)) + 1
        shared += cells.common_label_chars(column[after - 1], column[after])
        sent[slots] = parts.rows
        shared += int(parts.saved.sum())
        slots = slots[np.repeat(parts.shared, parts.size)]
        groups, _ = parts.groups()
    return sent, shared
