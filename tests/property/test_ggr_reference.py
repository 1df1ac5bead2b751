"""GGR against a second, naive writing of the paper's algorithm: recursive, on texts instead of codes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ggr import EarlyStop, ggr
from pg_bridge.rows.table import Table

Row = tuple[str, ...]
Sent = tuple[int, tuple[int, ...]]  # a row and the order of its columns


class Reference:
    def __init__(self, rows: list[Row], stop: EarlyStop) -> None:
        self.rows, self.stop = rows, stop
        width = range(len(rows[0]))
        self.determined = {a: [b for b in width if b != a and self.is_function(a, b)] for a in width}

    def is_function(self, a: int, b: int) -> bool:
        return len({(row[a], row[b]) for row in self.rows}) == len({row[a] for row in self.rows})

    def order(
        self, ids: list[int], front: list[int], columns: list[int], row_depth: int, column_depth: int
    ) -> list[Sent]:
        if not ids:
            return []
        stopped = row_depth >= self.stop.row_depth or column_depth >= self.stop.column_depth
        if stopped or len(ids) == 1 or len(columns) <= 1:
            return self.fixed(ids, front, columns)
        best_score, best_column, best_value = 0, -1, ""
        for column in columns:
            for value in dict.fromkeys(row[column] for row in self.rows):
                group = [i for i in ids if self.rows[i][column] == value]
                if not group:
                    continue
                taken = [column, *(j for j in columns if j in self.determined[column])]
                score = sum(len(self.rows[group[0]][j]) ** 2 for j in taken) * (len(group) - 1)
                if score > best_score:
                    best_score, best_column, best_value = score, column, value
        if best_column < 0 or best_score < self.stop.smallest_score:
            return self.fixed(ids, front, columns)
        taken = [best_column, *(j for j in columns if j in self.determined[best_column])]
        inside = [i for i in ids if self.rows[i][best_column] == best_value]
        outside = [i for i in ids if self.rows[i][best_column] != best_value]
        rest = [j for j in columns if j not in taken]
        return self.order(inside, front + taken, rest, row_depth, column_depth + 1) + self.order(
            outside, front, columns, row_depth + 1, column_depth
        )

    def fixed(self, ids: list[int], front: list[int], columns: list[int]) -> list[Sent]:
        def score(j: int) -> float:
            cells = [self.rows[i][j] for i in ids]
            mean = sum(map(len, cells)) / len(cells)
            return float(mean * mean * (len(cells) / len(set(cells)) - 1))

        order = sorted(columns, key=score, reverse=True)  # stable: equal scores keep the row's order
        return [(i, (*front, *order)) for i in sorted(ids, key=lambda i: [self.rows[i][j] for j in order])]


@given(
    st.integers(1, 4).flatmap(
        lambda k: st.lists(st.tuples(*[st.sampled_from(["a", "bb", "ccc", "dddd"])] * k), min_size=1, max_size=14)
    ),
    st.builds(EarlyStop, st.integers(0, 5), st.integers(0, 3), st.sampled_from([1, 30, 100])),
)
def test_ggr_is_the_papers_algorithm(rows: list[Row], stop: EarlyStop) -> None:
    columns = list(range(len(rows[0])))
    encoded = [tuple(map(json.dumps, row)) for row in rows]
    table = Table.from_cells([str(j) for j in columns], list(zip(*encoded, strict=True)))
    row_order, column_order = ggr(table, stop)
    sent = list(zip(row_order.tolist(), map(tuple, column_order.tolist()), strict=True))
    reference = Reference(encoded, stop).order(list(range(len(rows))), [], columns, 0, 0)
    assert sent == reference
