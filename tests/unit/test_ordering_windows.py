"""Windows: what one has sent is continued by the next, and never forgotten too soon or kept for too long."""

from __future__ import annotations

import json
from itertools import pairwise
from os import path

import numpy as np
import pytest

from benchmarks.paper_tables import PAPER_TABLES, make
from pg_bridge.asking.prompt import Question, render
from pg_bridge.ordering import Ordering, Sent, plan
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.rows import mean_order, prefixes, walk
from pg_bridge.ordering.sent import ROOT, UNKNOWN, Lookup, lengthened
from pg_bridge.ordering.tree import grow
from pg_bridge.rows.table import Table
from tests.seeds import each_seed

QUESTION = Question("", ())
MOST_PREFIXES = 2_000_000


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


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "pdmx" else name for name in PAPER_TABLES]
)
def test_carrying_from_window_to_window_never_costs_hits(name: str) -> None:
    table = make(name, rows=1_200)
    windows = windows_of(list(table.columns), [list(column) for column in table.cells], [200, 400, 600])
    carried, alone = (shared_in_a_tree(sent_texts(windows, planned(windows, carry=carry))) for carry in (True, False))
    assert carried >= alone


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
    assert grow(Cells(second), [0, 1], candidates=2, regrouped=0).tolist() == [[0, 1]] * 20
    assert grow(Cells(second, before.sent), [0, 1], candidates=2, regrouped=0).tolist() == [[1, 0]] * 20


def test_values_that_were_never_sent_are_planned_as_if_nothing_had_been() -> None:
    first = two_columns([text(i % 20, 60) for i in range(60)], [text(100 + i, 20) for i in range(60)])
    second = two_columns([text(300 + i, 60) for i in range(20)], [text(400 + i % 2, 20) for i in range(20)])
    ordering = plan(second, after=plan(first, after=Sent()).sent)
    assert ordering.column_order.tolist() == plan(second).column_order[::-1].tolist()
    assert ordering.shared_chars == plan(second).shared_chars


def test_an_equal_cell_of_another_column_continues_nothing() -> None:
    first = two_columns([text(i % 20, 60) for i in range(60)], [text(100 + i, 20) for i in range(60)])
    second = two_columns([text(400 + i % 2, 60) for i in range(20)], [text(i, 60) for i in range(20)])
    ordering = plan(second, after=plan(first, after=Sent()).sent)
    assert ordering.column_order[:, 0].tolist() == [0] * 20


def test_every_other_window_goes_from_the_end_of_the_alphabet_to_its_beginning() -> None:
    films, cities = [text(i % 9, 60) for i in range(90)], [text(100 + i, 20) for i in range(90)]
    windows = windows_of(["film", "city"], [films, cities], [30, 30, 30])
    orderings = planned(windows)
    assert [ordering.sent.turned for ordering in orderings if ordering.sent is not None] == [True, False, True]
    texts = [list(render(QUESTION, window, ordering)) for window, ordering in zip(windows, orderings, strict=True)]
    assert texts == [sorted(texts[0]), sorted(texts[1], reverse=True), sorted(texts[2])]
    for before, after in pairwise(texts):
        assert common_chars(before[-1], after[0]) > 60


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
    assert len(after.sent.windows) == 2
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
    table = make("movies", rows=900)
    windows = windows_of(list(table.columns), [list(column) for column in table.cells], [100, 400, 400])
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
    sent = Sent().and_then(prefixes(Cells(first, Sent()), orders[0]), mean_order(orders[0]))
    known = {row[:depth] for row in as_sent(first, orders[0]) for depth in (1, 2, 3)}
    expected, before = 0, None
    for row in sorted(as_sent(second, orders[1])):
        depth = max(depth for depth in range(4) if not depth or row[:depth] in known)
        equal = next((i for i in range(3) if row[i] != before[i]), 3) if before is not None else -1
        if before is None or depth > equal:
            expected += chars(row[:depth])
        else:
            expected += chars(row[:equal]) + (common_chars(row[equal], before[equal]) if equal < 3 else 0)
        before = row
    assert walk(Cells(second, sent), orders[1])[1] == expected


def as_sent(table: Table, orders: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> list[tuple[str, ...]]:
    labels = table.labels()
    rows = zip(table.cells(), orders.tolist(), strict=True)
    return [tuple(labels[j] + row[j] for j in order) for row, order in rows]


def chars(pieces: tuple[str, ...]) -> int:
    return sum(len(piece) + 2 for piece in pieces)


# What is remembered


def test_the_oldest_windows_are_forgotten_first() -> None:
    sent = Sent()
    for window in range(5):
        sent = sent.and_then(np.arange(1, 700_001, dtype=np.uint64) + np.uint64(10**6 * window), (0,))
    assert [int(prefix[0]) // 10**6 for prefix in sent.windows] == [4, 3]
    assert sum(map(len, sent.windows)) <= MOST_PREFIXES


def test_the_latest_window_is_remembered_whatever_its_size() -> None:
    sent = Sent().and_then(np.arange(1, 10, dtype=np.uint64), (0,))
    sent = sent.and_then(np.arange(1, MOST_PREFIXES + 2, dtype=np.uint64), (0,))
    assert [len(prefix) for prefix in sent.windows] == [MOST_PREFIXES + 1]


def test_a_window_remembers_each_prefix_once() -> None:
    sent = Sent().and_then(np.array([9, 3, 9, 5], np.uint64), (1, 0))
    assert [prefix.tolist() for prefix in sent.windows] == [[3, 5, 9]]
    assert (sent.turned, sent.order) == (True, (1, 0))
    assert Sent().windows == ()


def test_what_was_sent_is_known_and_nothing_else() -> None:
    chance = np.random.default_rng(5)
    # Numbers that fall into few slots of the filter, so that it alone could not tell them apart.
    asked = chance.integers(1, 1 << 20, 5_000, dtype=np.uint64) | np.uint64(1 << 63)
    windows = (np.unique(asked[:1_000]), np.unique(asked[500:2_000]))
    sent = set(asked[:2_000].tolist())
    known = Lookup(Sent(windows)).known(asked).tolist()
    assert known == [prefix if prefix in sent else int(UNKNOWN) for prefix in asked.tolist()]
    assert Lookup(Sent()).known(asked).tolist() == [int(UNKNOWN)] * len(asked)


def test_prefixes_depend_on_the_order_of_their_cells_and_are_never_unknown() -> None:
    cells = np.random.default_rng(6).integers(0, 1 << 63, 300, dtype=np.uint64)
    one = lengthened(np.full(300, ROOT), cells)
    two = lengthened(one[:, np.newaxis], cells[np.newaxis]).ravel()
    assert len(set(one.tolist()) | set(two.tolist())) == 300 + 300 * 300
    assert UNKNOWN not in one
    assert UNKNOWN not in two
