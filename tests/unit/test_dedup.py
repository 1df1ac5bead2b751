from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table


def table_of(*rows: tuple[int, ...]) -> Table:
    width = len(rows[0])
    return Table.from_cells([f"c{j}" for j in range(width)], [[str(row[j]) for row in rows] for j in range(width)])


def test_first_appearance_order_and_inverse() -> None:
    unique = dedup(table_of((5, 1), (3, 1), (5, 1), (5, 2), (3, 1)))
    assert unique.table.rows == 3
    assert unique.inverse.tolist() == [0, 1, 0, 2, 1]
    assert unique.table.codes.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert unique.table.codes.flags.f_contiguous


def test_equal_values_in_different_columns_do_not_merge() -> None:
    assert dedup(table_of((1, 2), (2, 1))).table.rows == 2


def test_disabled_leaves_every_row_its_own() -> None:
    unique = dedup(table_of((1,), (1,)), enabled=False)
    assert unique.table.rows == 2
    assert unique.inverse.tolist() == [0, 1]


def test_fan_out_lists_each_distinct_rows_input_rows() -> None:
    unique = dedup(table_of((7,), (8,), (7,), (9,), (7,)))
    offsets, members = unique.fan_out()
    assert [members[start:end].tolist() for start, end in pairwise(offsets)] == [
        [0, 2, 4],
        [1],
        [3],
    ]
    assert offsets.dtype == members.dtype == np.intp


@pytest.mark.parametrize("rows", [[], ["{}"], [None, None, None]])
def test_rows_without_columns_are_all_equal(rows: list[str | None]) -> None:
    unique = dedup(Table.from_json(rows, []))
    assert unique.table.rows == min(len(rows), 1)
    assert len(unique.inverse) == len(rows)
    assert unique.fan_out()[1].tolist() == list(range(len(rows)))


def test_keys_do_not_overflow_with_many_wide_columns() -> None:
    # 40 columns of 1,000 distinct cells span 1000^40 combinations; only the first column tells twins apart.
    rows = [(i % 2, *(i // 2 * (j + 1) % 1000 for j in range(40))) for i in range(2000)]
    unique = dedup(table_of(*rows, *rows))
    assert unique.table.rows == len(set(rows))
    assert unique.inverse[:2000].tolist() == unique.inverse[2000:].tolist()
    first = {row: i for i, row in reversed(list(enumerate(rows)))}
    assert unique.inverse[:2000].tolist() == [sorted(first.values()).index(first[row]) for row in rows]
