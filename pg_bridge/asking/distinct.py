"""How many different questions to expect, by what PostgreSQL's statistics say of the columns that they are made of.

In: how many values each column has, and how many rows their tables. Out: how many combinations of them there are, as
PostgreSQL's own planner foretells groups (`estimate_num_groups` in its `selfuncs.c`), but that statistics of several
columns together are not used. Nothing is read for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod

COMBINED = 0.1  # of a table's rows: that many combinations of several of its columns are expected at most


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column of a table.

    Attributes:
        table: Which table.
        number: Which of its columns.
        values: Its different values; None where nobody knows, or the role may not.
    """

    table: int
    number: int
    values: float | None


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The rows of a table: all of them, and those that are read."""

    all: float
    read: float


def count_distinct(columns: Collection[SourceColumn], tables: Mapping[int, SourceRows], rows: float) -> float | None:
    """Estimate the different combinations of some columns' values in some rows.

    Args:
        columns: The columns.
        tables: Their tables, by number.
        rows: The rows, of a join of the tables maybe.

    Returns:
        At least 1, and no more than the rows; None where it is not known of some column.

    >>> count_distinct([SourceColumn(1, 1, 20.0)], {1: SourceRows(600, 600)}, 600)
    20.0
    """
    of_tables: dict[int, dict[int, float]] = {}
    for column in columns:
        if column.values is None:
            return None
        of_tables.setdefault(column.table, {})[column.number] = column.values
    together = prod(_of_table(found.values(), tables[table]) for table, found in of_tables.items())
    return max(1.0, min(together, rows))


def count_left(distinct: float, rows: float, left: float) -> float:
    """Those of some different values that are still there, when fewer rows are left.

    >>> count_left(20, 600, 600), round(count_left(20, 600, 30), 1)
    (20, 15.7)
    """
    if not 0 < left < rows or distinct <= 0:
        return distinct
    return float(distinct * (1 - ((rows - left) / rows) ** (rows / distinct)))


def _of_table(values: Iterable[float], rows: SourceRows) -> float:
    counts = list(values)
    most = rows.all
    if len(counts) > 1:
        most = max(most * COMBINED, min(max(counts), most))
    return max(1.0, count_left(min(prod(counts), most), rows.all, rows.read))
