from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from os import path

import numpy as np
import pytest

from benchmarks.ggr import EarlyStop, ggr
from pg_bridge.asking.prompt import Question, render
from pg_bridge.options import REORDER, Reorder
from pg_bridge.ordering import STRATEGIES, Ordering, order_by, plan, weigh
from pg_bridge.rows.table import Table
from tests.seeds import each_seed


def table_of(columns: dict[str, list[str]]) -> Table:
    return Table.from_cells(list(columns), [[f'"{text}"' for text in texts] for texts in columns.values()])


def text(seed: int, chars: int) -> str:
    """A text that shares hardly a prefix with that of another seed."""
    return f"{seed * 7919 % 100_003:05d}" * (chars // 5)


def two_halves(n: int) -> Table:
    """Half of the rows share a long cell of one column, half of another: no fixed order serves both."""
    half = n // 2
    return table_of(
        {
            "a": [text(0, 300)] * half + [text(i, 300) for i in range(1, half + 1)],
            "b": [text(i, 300) for i in range(half + 1, n + 1)] + [text(0, 300)] * half,
        }
    )


def shared_by_neighbours(table: Table, ordering: Ordering) -> int:
    """Characters that rows share with the row before them, as text, without the question's line break."""
    messages = render(Question("", ()), table, ordering)
    return sum(len(path.commonprefix(pair)) - 1 for pair in pairwise(messages))  # noqa: RUF071 - characters are meant


def random_table(seed: int, n: int, k: int) -> Table:
    """Cells that repeat and begin alike."""
    chance = np.random.default_rng([23, seed])
    words = ["a", "ab", "abc", "abd", "b", "long and alike, one", "long and alike, two", ""]
    return table_of({f"c{j}": chance.choice(chance.choice(words, 5), n).tolist() for j in range(k)})


def test_v1_puts_the_repeated_column_first_and_groups_its_rows() -> None:
    films = [f"film {i % 5} " + "x" * 200 for i in range(60)]
    table = table_of({"review": [text(i, 100) for i in range(60)], "film": films})
    ordering = plan(table)
    assert ordering.column_order.tolist() == [[1, 0]] * 60
    sent = [films[row] for row in ordering.row_order]
    assert sum(one != other for one, other in pairwise(sent)) == 4
    assert ordering.hit_rate > 0.5 > plan(table, reorder="rows").hit_rate


def test_a_tree_wins_where_no_one_column_order_serves_all_rows() -> None:
    ordering = plan(two_halves(200))
    assert ordering.strategy == "tree"
    first = ordering.column_order[:, 0]
    assert [int((first == j).sum()) for j in (0, 1)] == [100, 100]
    assert ordering.hit_rate > 0.45


def test_sorting_alone_keeps_the_columns_where_they_are() -> None:
    table = table_of({"a": ["y", "x", "y", "x"], "b": ["1", "2", "3", "4"]})
    ordering = plan(table, reorder="rows")
    assert ordering.strategy == "rows only"
    assert ordering.row_order.tolist() == [1, 3, 0, 2]
    assert ordering.column_order.tolist() == [[0, 1]] * 4


def test_the_original_order_stands_where_nothing_beats_it() -> None:
    table = table_of({"a": ["x", "x", "y"], "b": ["1", "2", "3"]})
    assert plan(table).strategy == "original"
    assert plan(table).row_order.tolist() == [0, 1, 2]


def test_partly_equal_cells_are_sent_side_by_side() -> None:
    table = table_of({"url": ["web/a/1", "dom/b/1", "web/a/2", "dom/b/2"]})
    ordering = plan(table)
    assert ordering.row_order.tolist() == [1, 3, 0, 2]
    # {"url": "dom/b/1"} and its neighbour share 15 characters, and so do the web ones; between the pairs 9.
    assert ordering.shared_chars == 15 + 9 + 15


@pytest.mark.parametrize("alike", [0, 1, 14, 15, 16, 78, 79, 80, 334, 335, 336, 5000, 20_000])
def test_common_prefixes_of_any_length_are_counted(alike: int) -> None:
    table = table_of({"a": ["日" * alike + end for end in ("x", "y", "xz", "")]})
    in_front = len('{"a": "') + alike
    assert plan(table, reorder="none").shared_chars == in_front + in_front + in_front


@pytest.mark.parametrize("reorder", REORDER)
@pytest.mark.parametrize(("n", "k"), [(0, 0), (0, 3), (1, 0), (5, 0), (1, 1), (1, 3), (2, 1), (2, 300), (40, 1)])
@pytest.mark.parametrize("distinct", [1, 10**9])
def test_degenerate_shapes(n: int, k: int, distinct: int, reorder: Reorder) -> None:
    rows = ["{" + ",".join(f'"c{j}":{(i * k + j) % distinct}' for j in range(k)) + "}" for i in range(n)]
    ordering = plan(Table.from_json(rows, [f"c{j}" for j in range(k)]), reorder=reorder)
    assert sorted(ordering.row_order.tolist()) == list(range(n))
    assert np.array_equal(np.sort(ordering.column_order, axis=1), np.tile(np.arange(k), (n, 1)))
    assert ordering.column_order.dtype == np.int16
    assert ordering.row_order.dtype == np.intp
    assert 0 <= ordering.hit_rate <= 1
    if distinct == 1 and n and k:
        assert ordering.shared_chars * n == ordering.total_chars * (n - 1)


@pytest.mark.parametrize("k", [200, pytest.param(1600, marks=pytest.mark.slow)])
def test_as_many_columns_as_a_table_can_have(k: int) -> None:
    rows = ["{" + ",".join(f'"c{j}":"{i % 3} {j}"' for j in range(k)) + "}" for i in range(4)]
    table = Table.from_json(rows, [f"c{j}" for j in range(k)])
    assert plan(table).shared_chars > plan(table, reorder="none").shared_chars


@contextmanager
def calls_nested(most: int) -> Iterator[None]:
    """Let calls be nested no deeper than so many below here."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + most)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def test_more_columns_than_python_calls_can_be_nested() -> None:
    k = 200
    table = Table.from_cells([f"c{j}" for j in range(k)], [[f"{j}", f"{j}1", f"{j}"] for j in range(k)])
    with calls_nested(k // 2):
        ordering = order_by("tree", table)
    assert ordering.row_order.tolist() in ([0, 2, 1], [1, 0, 2])
    assert ordering.shared_chars == shared_by_neighbours(table, ordering) > 0.32 * ordering.total_chars
    assert np.sort(ordering.column_order, axis=1).tolist() == [list(range(k))] * 3


@pytest.mark.slow
def test_a_tree_as_deep_as_the_table_is_wide_needs_no_nested_calls() -> None:
    # Every column sets one row apart, so that every level of the tree takes one column.
    k = 50
    table = table_of({f"c{j}": ["other" if i == j else "the same" for i in range(k)] for j in range(k)})
    with calls_nested(k - 8):
        ordering = order_by("tree", table)
    assert sorted(ordering.row_order.tolist()) == list(range(k))
    assert ordering.shared_chars == shared_by_neighbours(table, ordering)
    assert ordering.hit_rate > 0.38


def test_cells_of_a_megabyte_are_compared_to_their_last_character() -> None:
    long = "m" * (1 << 20)
    table = table_of({"id": ["1", "2", "3"], "long": [long + "a", "m", long + "b"]})
    ordering = plan(table)
    assert ordering.shared_chars == shared_by_neighbours(table, ordering)
    assert ordering.shared_chars == len('{"long": "') + len(long) + len('{"long": "m')


@pytest.mark.parametrize(
    ("n", "largest_short"), [(700, 255), pytest.param(70_000, np.iinfo(np.uint16).max, marks=pytest.mark.slow)]
)
def test_more_distinct_cells_than_sixteen_bits_can_number(
    n: int, largest_short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pg_bridge.ordering.cells._LARGEST_SHORT", largest_short)
    many = [f"{i * 7919 % n:05d}" for i in range(n - n // 140)]
    table = table_of({"few": [f"{i % 3}" for i in range(n)], "many": many + many[: n // 140]})
    ordering = plan(table)
    assert sorted(ordering.row_order.tolist()) == list(range(n))
    assert np.array_equal(np.sort(ordering.column_order, axis=1), np.tile([0, 1], (n, 1)))
    assert ordering.shared_chars == shared_by_neighbours(table, ordering)
    assert ordering.shared_chars >= max(order_by(s, table).shared_chars for s in ("original", "rows only", "greedy"))


def test_rows_without_a_common_beginning_stay_as_they_came() -> None:
    table = table_of({name: [f"{letter} {name}" for letter in "zyxwvutsrqponm"] for name in ("a", "b", "c")})
    ordering = plan(table)
    assert (ordering.strategy, ordering.row_order.tolist()) == ("original", list(range(14)))
    assert ordering.shared_chars == 13 * len('{"a": "')


def test_an_equal_text_in_another_column_is_another_cell() -> None:
    long = "equal in both" * 5
    table = table_of({"a": [long, "1", long, "2"], "b": ["3", long, "4", long]})
    ordering = plan(table)
    assert ordering.shared_chars == shared_by_neighbours(table, ordering)
    # A pair for each column; the second pair shares '{"' with the first.
    assert ordering.shared_chars == 2 * len(f'{{"a": "{long}", "b": "') + len('{"')


def test_rows_that_are_null_are_rows_of_null_cells() -> None:
    table = Table.from_json([None, '{"a":"x","b":""}', None, '{"a":"x","b":null}', '{"a":null,"b":""}'], ["a", "b"])
    ordering = plan(table)
    assert ordering.shared_chars == shared_by_neighbours(table, ordering)
    sent = ordering.row_order.tolist()
    assert abs(sent.index(0) - sent.index(2)) == 1
    assert ordering.shared_chars == max(order_by(strategy, table).shared_chars for strategy in STRATEGIES)


def test_what_an_interrupt_raises_ends_planning() -> None:
    calls = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan(two_halves(200), check_interrupts=interrupt)
    assert len(calls) == 5


@each_seed(4)
@pytest.mark.parametrize("n", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_of_larger_tables_too_the_plan_shares_most(n: int, seed: int) -> None:
    table = random_table(seed, n, 5)
    most = plan(table).shared_chars
    for strategy in STRATEGIES:
        other = order_by(strategy, table)
        assert other.strategy == strategy
        assert other.shared_chars == shared_by_neighbours(table, other)
        assert other.shared_chars <= most
    assert weigh("ggr", table, *ggr(table)).shared_chars <= most


def test_a_table_too_large_for_a_tree_is_planned_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(0, 40, 5)
    monkeypatch.setattr("pg_bridge.ordering.TREE_CELLS", 40 * 5 - 1)
    ordering = plan(table)
    assert ordering.strategy != "tree"
    assert ordering.shared_chars >= max(order_by(strategy, table).shared_chars for strategy in ("v1", "greedy"))
    assert order_by("tree", table).strategy == "tree"


@each_seed(3)
@pytest.mark.parametrize("most_cells", [1, 50])
def test_refined_orders_weighed_on_a_sample_leave_no_plan_behind(
    seed: int, most_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = random_table(seed, 40, 5)
    monkeypatch.setattr("pg_bridge.ordering.WEIGHED_CELLS", most_cells)
    assert plan(table).shared_chars >= max(order_by(strategy, table).shared_chars for strategy in STRATEGIES)


def test_a_quick_plan_is_the_best_single_order() -> None:
    table = two_halves(200)
    quick = plan(table, quick=True)
    best = max(order_by(strategy, table).shared_chars for strategy in STRATEGIES if strategy != "tree")
    assert quick.shared_chars == best < plan(table).shared_chars


def test_an_ordering_of_ones_own_is_weighed() -> None:
    table = table_of({"a": ["x", "y", "x"], "b": ["1", "2", "1"]})
    ordering = weigh("mine", table, np.array([0, 2, 1]), np.array([[1, 0], [1, 0], [0, 1]], np.int16))
    assert ordering.strategy == "mine"
    assert ordering.total_chars == 3 * len('{"a": "x", "b": "1"}')
    assert ordering.shared_chars == len('{"a": "x", "b": "1"}') + len('{"')


def test_no_nesting_of_groups_is_too_deep() -> None:
    deeper = 200
    cells = [text(i // 2, 10) for i in range(2 * deeper)]
    table = table_of({"a": cells, "b": [text(i, 10) for i in range(2 * deeper)]})
    with calls_nested(deeper // 2):
        row_order, column_order = ggr(table, EarlyStop(float("inf"), float("inf"), 1))
    assert sorted(row_order.tolist()) == list(range(2 * deeper))
    assert column_order[:, 0].tolist() == [0] * (2 * deeper)


def test_the_published_early_stops() -> None:
    assert EarlyStop() == EarlyStop(row_depth=4, column_depth=2, smallest_score=100_000)


@pytest.mark.parametrize(("count", "taken"), [(10, False), (11, True)])
def test_a_group_is_taken_from_a_score_of_100_000_on(count: int, taken: bool) -> None:
    # The repeated cell of the first column has 100 characters with its quotes: 10,000 for each row but one. Its
    # other cells are short and unique, so that a fixed order puts the second column first.
    table = table_of(
        {
            "mixed": ["v" * 98] * count + [text(i, 5) for i in range(200)],
            "steady": [f"{i % 2}" * 10 for i in range(count + 200)],
        }
    )
    _, column_order = ggr(table)
    assert int((column_order[:, 0] == 0).sum()) == (count if taken else 0)


def test_columns_beyond_int16_are_refused() -> None:
    columns = [str(j) for j in range(32_768)]
    with pytest.raises(ValueError, match="32767 columns"):
        plan(Table.from_cells(columns, [["1"]] * len(columns)))


PROGRAM = """
import hashlib
import numpy as np
from pg_bridge.rows.dedup import dedup
from pg_bridge.ordering import Sent, plan
from pg_bridge.rows.table import Table
def unique(i):
    return f"{i * 7919 % 100003:05d}" * 30
cells = [("same" * 40, unique(i)) if i % 3 else (unique(i), "alike" * 40) for i in range(300)]
rows = [f'{{"a":"{a}","b":"{b}","c":{i % 7}}}' for i, (a, b) in enumerate(cells)]
table = dedup(Table.from_json(rows, ["a", "b", "c"])).table
for reorder in ("rows", "rows and columns"):
    ordering = plan(table, reorder=reorder)
    digest = hashlib.sha256(ordering.row_order.tobytes() + ordering.column_order.tobytes()).hexdigest()
    print(ordering.strategy, ordering.shared_chars, digest, sep=",")
sent = Sent()
for start in range(0, table.rows, 90):
    ordering = plan(table.take(np.arange(start, min(start + 90, table.rows))), after=sent)
    sent = ordering.sent
    digest = hashlib.sha256(ordering.row_order.tobytes() + ordering.column_order.tobytes()).hexdigest()
    print("window", ordering.strategy, ordering.shared_chars, digest, sent.order, sep=",")
"""


def test_every_process_plans_the_same() -> None:
    outputs = set()
    for seed in ("0", "4294967295"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True
        )
        outputs.add(done.stdout)
    (output,) = outputs
    assert [line.split(",")[0] for line in output.splitlines()] == ["rows only", "tree", *["window"] * 4]


def test_planning_ends_when_it_is_interrupted() -> None:
    class Cancelled(Exception):
        pass

    calls = 0

    def check_interrupts() -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Cancelled

    table = table_of({name: [text(i % m, 20) for i in range(500)] for name, m in (("a", 3), ("b", 7), ("c", 50))})
    stop_at = 0
    plan(table, check_interrupts=check_interrupts)
    every = calls
    assert every > 10
    for stop_at in (1, every // 2, every):
        calls = 0
        with pytest.raises(Cancelled):
            plan(table, check_interrupts=check_interrupts)
        assert calls == stop_at
