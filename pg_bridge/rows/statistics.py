"""What is known about a table's columns: cardinality, lengths, entropy.

In: a `Table`. Out: small arrays, one entry a column. All of it is counted from the codes, nothing is estimated or
sampled. Nothing here knows how rows are ordered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.rows.table import Table


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
