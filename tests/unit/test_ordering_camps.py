"""Two camps of rows, each with an order of its own."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.paper_tables import make
from pg_bridge import ordering
from pg_bridge.ordering import plan
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.fixed import _count_paid_by_others, count_fixed, divide_in_camps
from pg_bridge.ordering.measured import SMALL_CELLS
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table


def popular_and_rare() -> Table:
    """Ten things of fifty rows, each with a mark of its own; two hundred things of a pair, with one of four marks."""
    things = [f"popular {i:03}" for i in range(10) for _ in range(50)] + [
        f"rare {i:03}" for i in range(200) for _ in "ab"
    ]
    marks = [f"mark {i:03}" * 3 for i in range(500)] + [f"mark of {i % 4}" * 3 for i in range(400)]
    notes = [f"note {i % 7}" for i in range(900)]
    return Table.from_cells(["thing", "mark", "note"], [list(map(json.dumps, each)) for each in (things, marks, notes)])


def beers() -> Table:
    return dedup(make("beer", 9_000, 0).table()).table


def test_rows_of_rare_values_share_by_another_order() -> None:
    cells = Cells(popular_and_rare())
    order = [0, 1, 2]
    shared = count_fixed(cells, order)
    popular, rare = divide_in_camps(cells, order, shared)
    assert (popular.rows.tolist(), rare.rows.tolist()) == (list(range(500)), list(range(500, 900)))
    assert popular.order.index(0) < popular.order.index(1)
    assert rare.order.index(0) > rare.order.index(1)
    both = sum(count_fixed(cells.some(camp.rows), camp.order) for camp in (popular, rare))
    assert both > 1.1 * shared


@pytest.mark.parametrize(
    "things",
    [
        [f"thing {i}" for i in range(60)],  # nobody shares one
        [f"thing {i // 2}" for i in range(60)],  # none is popular
        [f"thing {i % 3}" for i in range(60)],  # none is rare
        ["thing"] * 60,
    ],
)
def test_there_are_no_camps_where_none_is_rare_or_all_are(things: list[str]) -> None:
    cells = Cells(Table.from_cells(["thing"], [list(map(json.dumps, things))]))
    assert divide_in_camps(cells, [0], count_fixed(cells, [0])) == []


def test_there_are_no_camps_where_they_gain_nothing() -> None:
    cells = Cells(popular_and_rare())
    assert divide_in_camps(cells, [0, 1, 2], 2 * count_fixed(cells, [0, 1, 2])) == []


def test_what_others_pay_is_counted_by_hand() -> None:
    columns = [["1", "1", "1", "2"], ["3", "3", "4", "3"]]
    cells = Cells(Table.from_cells(["a", "b"], columns))
    members = np.array([True, False, True, False])
    a = b = len('"a": 1, ')
    paid = _count_paid_by_others(cells, [0, 1], members)
    assert paid == pytest.approx([a / 2, 2 * a / 3 + b / 2, a / 2, 0])
    assert _count_paid_by_others(cells, [1, 0], members) == pytest.approx([0, b / 2 + a / 2, 0, b / 2])


def test_interrupts_end_it() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    cells = Cells(popular_and_rare())
    shared = count_fixed(cells, [0, 1, 2])
    cells.check_interrupts = interrupt
    with pytest.raises(KeyboardInterrupt):
        divide_in_camps(cells, [0, 1, 2], shared)


@pytest.mark.parametrize(
    ("make_table", "small_cells"),
    [(popular_and_rare, 2_000), pytest.param(beers, SMALL_CELLS, marks=pytest.mark.slow)],
    ids=["made", "beer"],
)
def test_a_plan_gains_by_camps(
    make_table: Callable[[], Table], small_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table()
    k = len(table.columns)
    monkeypatch.setattr(ordering, "SMALL_CELLS", small_cells)
    planned = plan(table)
    assert (np.sort(planned.column_order, axis=1) == np.arange(k)).all()
    assert sorted(planned.row_order.tolist()) == list(range(table.rows))
    monkeypatch.setattr(ordering, "divide_in_camps", lambda *_: [])
    assert planned.shared_chars > 1.004 * plan(table).shared_chars
