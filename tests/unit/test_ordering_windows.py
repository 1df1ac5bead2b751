"""Windows: what one has sent is continued by the next, and never forgotten too soon or kept for too long."""

from __future__ import annotations

import json
from itertools import pairwise
from os import path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper_tables import PAPER_TABLES, make
from pg_bridge.asking.prompt import Question, render
from pg_bridge.ordering import Ordering, Sent, plan
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.fixed import order_greedily, order_v1, refine_order
from pg_bridge.ordering.partition import count_all
from pg_bridge.ordering.sent import ROOT, lengthen
from pg_bridge.rows.table import Table
from tests.seeds import each_seed

QUESTION = Question("", ())


def windows_of(columns: list[str], cells: list[list[str]], sizes: list[int]) -> list[Table]:
    """Cut a table into windows, each with its own codes."""
    tables, start = [], 0
    for size in sizes:
        tables.append(Table.from_cells(columns, [column[start : start + size] for column in cells]))
        start += size
    return tables


def planned(windows: list[Table], *, carry: bool = True) -> list[Ordering]:
    """Plan windows one after another; those that carry nothing each as if it were the first of many."""
    orderings: list[Ordering] = []
    for window in windows:
        sent = orderings[-1].sent if carry and orderings else Sent()
        orderings.append(plan(window, after=sent))
    return orderings


def sent_texts(windows: list[Table], orderings: list[Ordering]) -> list[str]:
    """The rows of all windows as they are sent."""
    return [
        text for window, ordering in zip(windows, orderings, strict=True) for text in render(QUESTION, window, ordering)
    ]


def common_chars(one: str, other: str) -> int:
    return len(path.commonprefix((one, other)))  # noqa: RUF071 - characters are meant


def shared_in_a_tree(texts: list[str]) -> int:
    return sum(common_chars(*pair) for pair in pairwise(sorted(texts)))


def text(seed: int, chars: int) -> str:
    """A cell that shares hardly a prefix with that of another seed."""
    return json.dumps(f"{seed * 7919 % 100_003:05d}" * (chars // 5))


def two_columns(first: list[str], second: list[str]) -> Table:
    return Table.from_cells(["film", "city"], [first, second])


def tables(*fast: str) -> list[Any]:
    """All tables; those that are not named take part in `make test-slow` only."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in PAPER_TABLES]


@pytest.mark.parametrize("sizes", [[40, 80, 120], pytest.param([200, 400, 600], marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", tables("bird", "beer", "fever"))
def test_carrying_from_window_to_window_never_costs_hits(name: str, sizes: list[int]) -> None:
    table = make(name, rows=sum(sizes))
    windows = windows_of(list(table.columns), [list(column) for column in table.cells], sizes)
    carried, alone = (shared_in_a_tree(sent_texts(windows, planned(windows, carry=carry))) for carry in (True, False))
    assert carried >= alone


@pytest.mark.parametrize("name", tables("movies", "products", "fever"))
def test_no_single_order_shares_more_with_what_was_sent(name: str) -> None:
    table = make(name, rows=500)
    first, rest = windows_of(list(table.columns), [list(column) for column in table.cells], [64, 436])
    sent = plan(first, after=Sent(), quick=True).sent
    assert sent is not None
    planned = plan(rest, after=sent)
    cells = Cells(rest, hashed=True)
    greedy = order_greedily(cells)
    tried = [range(cells.columns), order_v1(cells), greedy, refine_order(cells, greedy), sent.order]
    single = [np.broadcast_to(np.array(columns, np.int16), planned.column_order.shape) for columns in tried]
    by_row = planned.column_order[np.argsort(planned.row_order)]
    shared = count_all(cells, by_row, sent)[1]
    assert shared >= max(count_all(cells, columns, sent)[1] for columns in single)
    alone = plan(rest)
    assert shared >= count_all(cells, alone.column_order[np.argsort(alone.row_order)], sent)[1]


def test_every_window_sends_each_of_its_rows_once() -> None:
    cells = [[text(i * 7 % 31, 20) for i in range(300)], [text(i % 11, 40) for i in range(300)]]
    windows = windows_of(["a", "b"], cells, [10, 100, 1, 0, 189])
    for window, ordering in zip(windows, planned(windows), strict=True):
        assert sorted(ordering.row_order.tolist()) == list(range(window.rows))
        assert np.sort(ordering.column_order, axis=1).tolist() == [[0, 1]] * window.rows
        messages = list(render(QUESTION, window, ordering))
        neighbours = sum(common_chars(*pair) - 1 for pair in pairwise(messages))  # the line break in front
        assert ordering.shared_chars == neighbours


def test_a_window_continues_what_the_one_before_has_sent() -> None:
    # In the second window no film comes twice: planned for itself it begins with the cities, which do.
    first = two_columns([text(i % 20, 60) for i in range(60)], [text(100 + i, 20) for i in range(60)])
    second = two_columns([text(i, 60) for i in range(20)], [text(200 + i % 2, 20) for i in range(20)])
    before = plan(first, after=Sent())
    assert before.column_order[:, 0].tolist() == [0] * 60
    assert plan(second).column_order[:, 0].tolist() == [1] * 20
    assert plan(second, after=before.sent).column_order[:, 0].tolist() == [0] * 20


def test_a_column_equal_in_all_rows_does_not_stand_before_what_was_sent() -> None:
    first = two_columns([text(100 + i, 20) for i in range(60)], [text(i % 20, 60) for i in range(60)])
    before = plan(first, after=Sent())
    assert before.column_order[:, 0].tolist() == [1] * 60
    second = two_columns([text(99, 20)] * 20, [text(i, 60) for i in range(20)])
    assert plan(second).column_order.tolist() == [[0, 1]] * 20
    assert plan(second, after=before.sent).column_order.tolist() == [[1, 0]] * 20


def test_branches_move_to_what_was_sent() -> None:
    # Half of the rows share a film with each other, half of the others a city with rows that were sent before.
    n = 40
    first = two_columns([text(1_000 + i, 60) for i in range(n)], [text(i % 10, 60) for i in range(n)])
    before = plan(first, after=Sent())
    films = [text(5_000 + i % 4, 60) if i < n else text(9_000 + i, 60) for i in range(2 * n)]
    cities = [text(7_000 + i, 60) if i < n else text(i % 10, 60) for i in range(2 * n)]
    after = plan(two_columns(films, cities), after=before.sent)
    assert after.strategy == "tree"
    assert after.column_order[np.argsort(after.row_order), 0].tolist() == [0] * n + [1] * n


def test_values_that_were_never_sent_are_planned_as_if_nothing_had_been() -> None:
    first = two_columns([text(i % 20, 60) for i in range(60)], [text(100 + i, 20) for i in range(60)])
    second = two_columns([text(300 + i, 60) for i in range(20)], [text(400 + i % 2, 20) for i in range(20)])
    ordering = plan(second, after=plan(first, after=Sent()).sent)
    assert ordering.column_order.tolist() == plan(second).column_order.tolist()
    assert ordering.shared_chars == plan(second).shared_chars


def test_an_equal_cell_of_another_column_continues_nothing() -> None:
    first = two_columns([text(i % 20, 60) for i in range(60)], [text(100 + i, 20) for i in range(60)])
    second = two_columns([text(400 + i % 2, 60) for i in range(20)], [text(i, 60) for i in range(20)])
    ordering = plan(second, after=plan(first, after=Sent()).sent)
    assert ordering.column_order[:, 0].tolist() == [0] * 20


def test_rows_that_come_back_are_continued_to_their_end() -> None:
    cells = [[text(i % 9, 60) for i in range(60)], [text(100 + i, 20) for i in range(60)]]
    (window,) = windows_of(["film", "city"], cells, [60])
    first, again = planned([window, window])
    assert sorted(sent_texts([window], [again])) == sorted(sent_texts([window], [first]))


def test_an_empty_window_changes_nothing_that_was_sent() -> None:
    before = plan(two_columns([text(0, 20)] * 3, [text(i, 20) for i in range(3)]), after=Sent()).sent
    assert plan(two_columns([], []), after=before).sent is before
    no_columns = Table.from_json(["{}", "{}"], [])
    ordering = plan(no_columns, after=before)
    assert ordering.sent is before
    assert ordering.row_order.tolist() == [0, 1]
    assert ordering.column_order.shape == (2, 0)


def test_a_window_of_one_row_is_remembered() -> None:
    one = plan(two_columns([text(0, 60)], [text(1, 20)]), after=Sent())
    assert (one.row_order.tolist(), one.shared_chars) == ([0], 0)
    # Film 0 is the only thing that the next window's rows could share.
    window = two_columns([text(0, 60), text(5, 60)], [text(7, 20), text(8, 20)])
    after = plan(window, after=one.sent)
    assert after.sent is not None
    assert len(after.sent.prefixes) == 2 + 4 - 1
    assert after.column_order[after.row_order.tolist().index(0)].tolist() == [0, 1]


def test_a_window_of_one_row_continues_what_was_sent() -> None:
    first = two_columns([text(100 + i, 60) for i in range(9)], [text(i % 3, 60) for i in range(9)])
    before = plan(first, after=Sent())
    assert before.column_order[:, 0].tolist() == [1] * 9
    one = plan(two_columns([text(55, 60)], [text(0, 60)]), after=before.sent)
    assert one.column_order.tolist() == [[1, 0]]


def test_a_plan_for_itself_remembers_nothing() -> None:
    table = two_columns([text(0, 20)] * 3, [text(i, 20) for i in range(3)])
    assert plan(table).sent is None
    assert plan(table, after=Sent()).column_order.tolist() == plan(table).column_order.tolist()


def test_the_same_windows_are_planned_the_same() -> None:
    table = make("movies", rows=200)
    windows = windows_of(list(table.columns), [list(column) for column in table.cells], [50, 70, 80])
    for one, other in zip(planned(windows), planned(windows), strict=True):
        assert np.array_equal(one.row_order, other.row_order)
        assert np.array_equal(one.column_order, other.column_order)
        assert one.shared_chars == other.shared_chars


@pytest.mark.parametrize("reorder", ["none", "rows", "rows and columns"])
def test_only_what_may_move_moves(reorder: str) -> None:
    cells = [[text(i * 7 % 31, 20) for i in range(90)], [text(i % 11, 40) for i in range(90)]]
    sent: Sent | None = Sent()
    for window in windows_of(["a", "b"], cells, [40, 50]):
        ordering = plan(window, reorder=reorder, after=sent)  # type: ignore[arg-type]
        sent = ordering.sent
        if reorder != "rows and columns":
            assert ordering.column_order.tolist() == [[0, 1]] * window.rows
        if reorder == "none":
            assert ordering.row_order.tolist() == list(range(window.rows))


# What is counted


@each_seed(20)
def test_what_was_sent_before_is_counted_exactly(seed: int) -> None:
    chance = np.random.default_rng([11, seed])
    words = ["a", "ab", "abc", "b", "long and alike 1", "long and alike 2"]
    cells = [[json.dumps(str(word)) for word in chance.choice(words, 60)] for _ in range(3)]
    first, second = windows_of(["x", "y", "z"], cells, [30, 30])
    orders = [np.array([chance.permutation(3) for _ in range(30)], np.int16) for _ in range(2)]
    rows, cells_sent = np.arange(30), Cells(first, hashed=True)
    sent = Sent().add(cells_sent.hashes_by_place(rows, orders[0]), orders[0])
    known = {row[:depth] for row in as_sent(first, orders[0]) for depth in (1, 2, 3)}
    expected, before = 0, ""
    for row in sorted(as_sent(second, orders[1])):
        depth = max(depth for depth in range(4) if not depth or row[:depth] in known)
        rendered = "{" + ", ".join(row) + "}"
        expected += max(len("{") * bool(depth) + chars(row[:depth]) - (depth == 3), common_chars(before, rendered))
        before = rendered
    assert count_all(Cells(second, hashed=True), orders[1], sent)[1] == expected


def as_sent(table: Table, orders: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> list[tuple[str, ...]]:
    labels = table.labels()
    rows = zip(table.cells(), orders.tolist(), strict=True)
    return [tuple(labels[j] + row[j] for j in order) for row, order in rows]


def chars(pieces: tuple[str, ...]) -> int:
    return sum(len(piece) + 2 for piece in pieces)


# What is remembered


def add(sent: Sent, count: int, start: int, columns: int = 1) -> Sent:
    """What was sent after so many rows, of which no two begin alike."""
    cells = np.arange(start, start + count, dtype=np.uint64)
    return sent.add(iter([cells] * columns), np.broadcast_to(np.arange(columns, dtype=np.int16), (count, columns)))


def test_what_was_sent_before_is_forgotten_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.ordering.sent.MOST_PREFIXES", 1_000)
    kept = add(add(Sent(), 9, 1), 5, 100)
    assert len(kept.prefixes) == 14
    assert kept.prefixes.tolist() == sorted(kept.prefixes.tolist())
    assert kept.steps.tolist() == add(Sent(), 1, 1).steps.tolist()  # all of them begin with column 0
    assert len(add(kept, 986, 10_000).prefixes) == 1_000
    assert len(add(kept, 987, 10_000).prefixes) == 987
    assert len(add(kept, 1_001, 10_000).prefixes) == 1_000


def test_short_prefixes_are_remembered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.ordering.sent.MOST_PREFIXES", 8)
    short = set(add(Sent(), 5, 1).prefixes.tolist())
    sent = add(Sent(), 5, 1, columns=3)
    assert len(sent.prefixes) == 8
    assert short < set(sent.prefixes.tolist())


def test_one_goes_on_behind_a_prefix_where_rows_did() -> None:
    orders = np.array([[0, 1, 2], [0, 2, 1], [0, 1, 2]], np.int16)
    cells = [np.array([7, 7, 7], np.uint64), np.array([8, 9, 8], np.uint64), np.array([1, 2, 3], np.uint64)]
    sent = Sent().add(iter(cells), orders)
    seven = lengthen(np.full(1, ROOT), cells[0][:1])
    which, column = sent.list_steps(np.array([ROOT, seven[0], np.uint64(5)]))
    assert (which.tolist(), column.tolist()) == ([0, 1, 1], [0, 1, 2])


def test_what_was_sent_is_known_and_nothing_else() -> None:
    asked = np.random.default_rng(5).integers(1, 1 << 20, 5_000, dtype=np.uint64) | np.uint64(1 << 63)
    sent = set(asked[:2_000].tolist())
    known = Sent(prefixes=np.unique(asked[:2_000])).knows(asked).tolist()
    assert known == [prefix in sent for prefix in asked.tolist()]
    assert not Sent().knows(asked).any()


def test_prefixes_depend_on_the_order_of_their_cells() -> None:
    cells = np.random.default_rng(6).integers(0, 1 << 63, 300, dtype=np.uint64)
    one = lengthen(np.full(300, ROOT), cells)
    two = lengthen(one[:, np.newaxis], cells[np.newaxis]).ravel()
    assert len(set(one.tolist()) | set(two.tolist())) == 300 + 300 * 300
