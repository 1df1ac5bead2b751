"""How good characters are in place of tokens, which the planner does not know.

In: the prompts of a table. Out: a `StandIn`. Orderings are planned twice in the same way, once by the characters of
each cell and once by the tokens that it is, and the tokens that a cache then holds are counted. What unequal cells
have in common at their start is weighed in characters both times.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.planner.prefixes import tree_overlaps
from benchmarks.planner.prompts import Prompts
from benchmarks.planner.results import StandIn
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.fixed import order_greedily, refine_order
from pg_bridge.ordering.partition import walk
from pg_bridge.ordering.tree import grow


def stand_in(prompts: Prompts) -> StandIn:
    """Plan a table by characters and by tokens."""
    cells = Cells(prompts.table)
    by_chars = _tokens_found(prompts, cells)
    texts = [
        f"{label}{text}, "
        for label, values in zip(cells.labels, prompts.table.values, strict=True)
        for text in sorted(values)
    ]
    counts = np.fromiter(prompts.count(texts), np.int64, len(texts))
    likeness = float(np.corrcoef(counts, cells.chars)[0, 1]) if np.ptp(counts) and np.ptp(cells.chars) else 1.0
    chars_per_token = cells.chars.sum() / counts.sum()  # keeps the weight of what is still in characters
    cells.chars = np.maximum(np.rint(counts * chars_per_token), 1).astype(np.int64)
    return StandIn(float(chars_per_token), likeness, by_chars, _tokens_found(prompts, cells))


def _tokens_found(prompts: Prompts, cells: Cells) -> float:
    """The share of tokens that an unbounded cache without blocks holds, of the best ordering by the cells' weights."""
    best = max(_column_orders(cells), key=lambda order: walk(cells, order)[1])
    row_order, _ = walk(cells, best)
    tokens = prompts.tokens(row_order, best[row_order])
    return int(tree_overlaps(tokens).sum()) / sum(map(len, tokens))


def _column_orders(cells: Cells) -> Iterator[NDArray[np.int16]]:
    """What competes: (n, k) int16 each. The planner's own strategies, but for those that look at texts."""
    refined = refine_order(cells, order_greedily(cells))
    for columns in (range(cells.columns), refined):
        yield np.broadcast_to(np.array(columns, np.int16), (cells.rows, cells.columns))
    for start in (refined, refine_order(cells, list(range(cells.columns)))):
        yield grow(cells, start)
