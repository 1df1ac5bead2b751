"""All groups of rows, and the bound that they give."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paper_tables import make
from pg_bridge.analysis.bound import most_shared_by_groups, most_shared_by_neighbours, search_optimum, searchable
from pg_bridge.analysis.groups import Groups, _Beginnings, _Search, find_groups
from pg_bridge.analysis.shares import ROUNDS, Ways, least_tree_chars
from pg_bridge.ordering import plan, weigh
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.partition import NONE, walk
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table

MANY = 10_000_000
NAMES = ("a", "ab", "b", "review/x", "review/y")
CELLS = ("null", "1", "12", '""', '"x"', '"ab"', '"abc"', '"abd"', '"a longer text here"', '"a longer text there"')


@st.composite
def tables(draw: st.DrawFn, rows: int, columns: int) -> Table:
    """Small tables of unique rows, whose names and cells often begin alike."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=columns, unique=True))
    pool = draw(st.lists(st.sampled_from(CELLS), min_size=2, max_size=5, unique=True))
    cell = st.tuples(*[st.sampled_from(pool)] * len(names))
    drawn = draw(st.lists(cell, min_size=2, max_size=rows, unique=True))
    return Table.from_cells(names, list(zip(*drawn, strict=True)))


def groups_of(table: Table, beginnings: bool = True) -> tuple[Cells, Groups]:
    cells = Cells(table)
    alike = _Beginnings.of(cells) if beginnings else _Beginnings(np.full((1, len(cells.chars)), NONE), np.empty(0, int))
    assert alike is not None
    groups = _Search(cells, alike, MANY).run(lambda: None)
    assert groups is not None
    return cells, groups


def members(groups: Groups) -> list[tuple[int, ...]]:
    return [tuple(part.tolist()) for part in np.split(groups.rows, groups.begin[1:-1])]


def bound_of(table: Table) -> int:
    most = most_shared_by_groups(Cells(table), MANY)
    assert most is not None
    return most


@given(tables(rows=8, columns=4))
def test_groups_are_all_rows_that_share_some_cells(table: Table) -> None:
    cells, groups = groups_of(table, beginnings=False)
    rows = range(table.rows)
    expected = {tuple(rows)}
    for number in range(1, cells.columns + 1):
        for columns in combinations(range(cells.columns), number):
            by_cells: dict[tuple[int, ...], list[int]] = {}
            for row in rows:
                by_cells.setdefault(tuple(cells.ranks[list(columns), row].tolist()), []).append(row)
            expected |= {tuple(group) for group in by_cells.values() if len(group) > 1}
    found = members(groups)
    assert len(found) == len(set(found))
    assert set(found) == expected
    for group, chars in zip(found, groups.chars.tolist(), strict=True):
        equal = (cells.ranks[:, group] == cells.ranks[:, [group[0]]]).all(axis=1)
        place = cells.ranks[:, group[0]].astype(np.intp) + cells.offsets
        assert chars == int(cells.chars[place][equal].sum())


@given(tables(rows=8, columns=4), st.booleans())
def test_edges_go_to_smaller_groups_that_share_more(table: Table, beginnings: bool) -> None:
    _, groups = groups_of(table, beginnings)
    found = members(groups)
    reached = {0}
    for source, target in zip(groups.source.tolist(), groups.target.tolist(), strict=True):
        assert set(found[target]) <= set(found[source])
        assert groups.chars[target] > groups.chars[source]
        reached.add(target)
    assert reached == set(range(len(found)))


@given(tables(rows=8, columns=4), st.integers(0, 2**32))
def test_no_ordering_shares_more_than_the_bound(table: Table, seed: int) -> None:
    most = bound_of(table)
    chance = np.random.default_rng(seed)
    n, k = table.rows, len(table.columns)
    few = [chance.permutation(k) for _ in range(3)]
    for column_order in (
        np.array([chance.permutation(k) for _ in range(n)], np.int16),
        np.array([few[i] for i in chance.integers(0, 3, n)], np.int16),
    ):
        rows = walk(Cells(table), column_order)[0]
        assert weigh("random", table, rows, column_order[rows]).shared_chars <= most
    assert plan(table).shared_chars <= most


@given(tables(rows=4, columns=3))
def test_the_bound_is_never_below_the_optimum(table: Table) -> None:
    assert search_optimum(table).shared_chars <= bound_of(table)


def test_rows_may_share_a_beginning_with_others_rather_than_a_cell_with_each_other() -> None:
    """Two of them have `ab` in common, but begin alike with all four; the bound was one below the optimum once."""
    cells = [["1", "1", "12", "12"], ["12", '""', "1", '""'], ['""', "1", '""', "12"]]
    table = Table.from_cells(["a", "ab", "review/x"], cells)
    assert search_optimum(table).shared_chars == 51 <= bound_of(table)


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_the_bound_is_the_optimum_as_a_rule(count: int) -> None:
    chance = np.random.default_rng(0)
    exact = tried = 0
    for _ in range(count):
        pool = chance.choice(len(CELLS), 4, replace=False)
        cells = [[CELLS[pool[i]] for i in chance.integers(0, 4, 4)] for _ in range(3)]
        table = dedup(Table.from_cells(NAMES[:3], cells)).table
        tried += 1
        exact += bound_of(table) == search_optimum(table).shared_chars
    assert exact >= 0.95 * tried


@pytest.mark.parametrize("rows", [60, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param("beer", marks=pytest.mark.slow), "fever", "squad", "movies", "products"])
def test_little_is_left_to_gain_on_tables_of_the_papers_shape(name: str, rows: int) -> None:
    table = dedup(make(name, rows, 0).table()).table
    cells = Cells(table)
    shared, most = plan(table).shared_chars, bound_of(table)
    assert shared <= most <= most_shared_by_neighbours(cells)
    assert most - shared <= 0.01 * cells.total_chars()


def test_three_rows_of_which_each_two_share_a_cell_share_one_and_a_half() -> None:
    """Only two of the three can stand together, but half of each row can stand with half of another."""
    columns = [[f'"{cell}{"x" * 96}"' for cell in cells] for cells in ("112", "122", "121")]
    table = Table.from_cells(["a", "b", "c"], columns)
    half = len(f'"a": {columns[0][0]}, ') / 2
    assert search_optimum(table).shared_chars == plan(table).shared_chars < 3 * half
    assert bound_of(table) - plan(table).shared_chars == pytest.approx(half, abs=10)


def test_shares_never_come_to_more_than_the_edge() -> None:
    table = make("beer", 30, 0).table()
    cells, groups = groups_of(table)
    ways = Ways.of(cells, groups)
    paid = []
    for part in ways.rounds():
        assert np.bincount(ways.edge, weights=part, minlength=len(ways.cost)) == pytest.approx(1)
        assert (part >= 0).all()
        paid.append(ways.least(part))
    assert len(paid) == ROUNDS + 1
    shared = plan(table).shared_chars - (cells.rows - 1)  # without opening braces
    assert paid[0] < paid[10] < paid[-1] <= cells.total_chars() - shared - groups.chars[0]


def test_too_many_groups_are_not_looked_for() -> None:
    cells = Cells(make("beer", 200, 0).table())
    assert find_groups(cells, 200 * 9 - 1) is None
    assert find_groups(cells, 200 * 9 + 1) is None
    assert find_groups(cells, MANY) is not None
    assert most_shared_by_groups(cells, 200 * 9 + 1) is None


def test_beginnings_may_nest_too_deep() -> None:
    texts = [json.dumps("x" * i) for i in range(1, 60)]
    cells = Cells(Table.from_cells(["a", "b"], [texts, [json.dumps(str(i)) for i in range(59)]]))
    assert find_groups(cells, MANY) is None
    shorter = Cells(Table.from_cells(["a", "b"], [texts[:20], [json.dumps(str(i)) for i in range(20)]]))
    assert find_groups(shorter, MANY) is not None


@pytest.mark.parametrize(
    "cells",
    [
        [['"x"']],
        [['"x"', '"x"']],
        [['"x"', '"y"']],
        [["null", "null", "null"], ['"a"', '"b"', '"c"']],
        [['"x"'] * 5, ['"y"'] * 5],
        [[json.dumps(str(i)) for i in range(7)]] * 2,
    ],
)
def test_tables_with_nothing_to_choose(cells: list[list[str]]) -> None:
    table = Table.from_cells(["a", "b"][: len(cells)], cells)
    assert plan(table).shared_chars <= bound_of(table)
    unique = dedup(table).table
    assert plan(unique).shared_chars == bound_of(unique) or unique.rows == 1


def test_interrupts_end_the_bound() -> None:
    cells, groups = groups_of(make("beer", 50, 0).table())

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        least_tree_chars(cells, groups, interrupt)


# The optimum


def test_a_table_is_searchable_as_long_as_its_orderings_are_few() -> None:
    assert searchable(4, 3, 6**4)
    assert not searchable(4, 3, 6**4 - 1)
    assert searchable(10**9, 1, 1)
    assert searchable(0, 5)
    assert not searchable(1, 9)


def test_too_many_orderings_are_not_tried() -> None:
    table = Table.from_cells(list("abcd"), [[str(i) for i in range(10)]] * 4)
    with pytest.raises(ValueError, match="10 rows of 4 columns"):
        search_optimum(table)
