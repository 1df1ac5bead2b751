"""A fixed order of columns, followed down: the groups of equal rows after each of its columns.

In: groups of rows and, for each, an order of columns. Out: one split after another. The sum of what they save is the
exact worth of sorting a group's rows by that order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.partition import Partition, Split, split

NONE = -1  # pads orders of unequal length


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One more column of a fixed order.

    Attributes:
        parts: What the groups were split into.
        owner: (p,) intp; the group of the original partition to which each part belongs.
    """

    parts: Split
    owner: NDArray[np.intp]

    def saved(self, count: int) -> NDArray[np.float64]:
        """(count,) float64: characters saved in each group of the original partition."""
        return np.bincount(self.owner, weights=self.parts.saved, minlength=count).astype(np.float64, copy=False)


def descend(cells: Cells, partition: Partition, order: NDArray[np.int16]) -> Iterator[Level]:
    """Split groups by one column after another.

    Args:
        cells: The table's cells.
        partition: The groups.
        order: (count, w) int16; each group's columns, padded at the end.
    """
    owner = np.arange(partition.count)
    for place in range(order.shape[1]):
        column = order[owner, place]
        going_on = column != NONE
        if not going_on.all():
            partition, owner, column = partition.of(going_on), owner[going_on], column[going_on]
        if not partition.count:
            return
        parts = split(cells, partition, column)
        yield Level(parts, owner[parts.parent])
        partition, large = parts.groups()
        owner = owner[parts.parent[large]]
