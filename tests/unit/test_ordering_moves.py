"""Branches of a finished tree, and how they move."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.paper_tables import make
from pg_bridge import ordering
from pg_bridge.ordering import plan, tree
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.moves import Branches, list_levels, move_branches, order_columns
from pg_bridge.ordering.partition import NONE, walk
from pg_bridge.rows.table import Table
from tests.seeds import each_seed


def random_table(seed: int, n: int = 40, k: int = 4, distinct: int = 5) -> Table:
    chance = np.random.default_rng(seed)
    columns = [[json.dumps("ab" * cell + str(cell)) for cell in chance.integers(0, distinct, n)] for _ in range(k)]
    return Table.from_cells([f"column {j}" for j in range(k)], columns)


def random_orders(seed: int, n: int, k: int) -> NDArray[np.int16]:
    chance = np.random.default_rng(seed)
    few = [chance.permutation(k) for _ in range(3)]
    return np.array([few[i] for i in chance.integers(0, 3, n)], np.int16)


def table_of(*rows: str) -> Table:
    """A table of one word a cell."""
    columns = list(zip(*(row.split() for row in rows), strict=True))
    return Table.from_cells(
        list("abcdef"[: len(columns)]), [[json.dumps(cell) for cell in column] for column in columns]
    )


def move(table: Table, column_order: list[list[int]], sweeps: int = 9) -> tuple[list[list[int]], int]:
    """The orders that come of some orders, and the characters won."""
    cells = Cells(table)
    before = np.array(column_order, np.int16)
    rows, shared = walk(cells, before)
    after, _, shared_then = [(before, rows, shared), *islice(move_branches(cells, before, rows, shared), sweeps)][-1]
    return after.tolist(), shared_then - shared


# Branches


@each_seed(20)
def test_nodes_are_the_groups_of_rows_that_begin_alike(seed: int) -> None:
    table, order = random_table(seed), random_orders(seed, 40, 4)
    cells = Cells(table)
    rows, _ = walk(cells, order)
    branches = Branches.of(cells, rows, order)
    texts = list(table.cells())
    begins = [[(j, texts[row][j]) for j in order[row].tolist()] for row in rows.tolist()]
    runs = {(0, 40)}
    for depth in range(1, 5):
        for start in range(40):
            alike = [i for i in range(40) if begins[i][:depth] == begins[start][:depth]]
            if len(alike) > 1:
                assert alike == list(range(alike[0], alike[-1] + 1))
                runs.add((alike[0], alike[-1] + 1))
    inner = slice(0, branches.inner)
    assert set(zip(branches.begin[inner].tolist(), branches.end[inner].tolist(), strict=True)) == runs
    assert branches.inner == len(runs)
    assert branches.begin[branches.inner :].tolist() == list(range(40))
    for node in range(1, len(branches.parent)):
        around = [(b, e) for b, e in runs if b <= branches.begin[node] and branches.end[node] <= e]
        around = [run for run in around if run != (branches.begin[node], branches.end[node])]
        parent = branches.parent[node]
        assert (branches.begin[parent], branches.end[parent]) == min(around, key=lambda run: run[1] - run[0])


@each_seed(20)
def test_nodes_know_what_all_their_rows_hold(seed: int) -> None:
    cells, order = Cells(random_table(seed)), random_orders(seed, 40, 4)
    rows, _ = walk(cells, order)
    branches = Branches.of(cells, rows, order)
    place = cells.ranks.T.astype(np.intp) + cells.offsets
    for node in range(len(branches.parent)):
        held = place[rows[branches.begin[node] : branches.end[node]]]
        common = np.where((held == held[0]).all(axis=0), held[0], NONE)
        assert branches.common[node].tolist() == common.tolist()
        assert branches.chars[node].tolist() == [cells.chars[cell] if cell != NONE else 0 for cell in common]


def test_levels_go_from_the_root_down() -> None:
    parent = np.array([NONE, 0, 0, 1, 2, 3])
    assert [nodes.tolist() for nodes in list_levels(parent)] == [[0], [1, 2], [3, 4], [5]]


def test_branches_begin_with_the_column_that_begins_most_alike() -> None:
    table = table_of("x one-1 twenty-1", "x one-2 twenty-2", "x one-3 twenty-3")
    cells = Cells(table)
    before = np.array([[0, 1, 2]] * 3, np.int16)
    branches = Branches.of(cells, np.arange(3), before)
    after = order_columns(cells, branches.parent, branches.common, np.array([1, 2, 3]), np.array([[0, 1, 2]] * 4))
    assert after.tolist() == [[0, 2, 1]] * 3


# Moves


@each_seed(20)
def test_moving_branches_never_costs_what_rows_share(seed: int) -> None:
    cells, order = Cells(random_table(seed)), random_orders(seed, 40, 4)
    rows, shared = walk(cells, order)
    after, rows_then, shared_then = [(order, rows, shared), *move_branches(cells, order, rows, shared)][-1]
    assert shared_then > shared
    assert np.sort(after, axis=1).tolist() == [[0, 1, 2, 3]] * 40
    again, walked = walk(cells, after)
    assert (again.tolist(), walked) == (rows_then.tolist(), shared_then)


def test_what_a_nodes_rows_have_in_common_they_hold_in_one_order() -> None:
    # The third row comes from rows that hold the year before the film, and moves below two films of one year.
    table = table_of("glass 1987 ines slow", "glass 1987 tom warm", "glass 1987 ada cold", "kites 2011 ada long")
    film_first, critic_first = [0, 1, 2, 3], [2, 1, 0, 3]
    after, _ = move(table, [film_first, film_first, critic_first, critic_first])
    assert after[:3] == [film_first] * 3


def test_a_row_moves_to_rows_that_begin_with_another_column() -> None:
    table = table_of("glass anna", "glass bob", "kites carla", "paper carla", "small carla")
    film_first, critic_first = [0, 1], [1, 0]
    after, won = move(table, [film_first, film_first, film_first, critic_first, critic_first])
    assert after == [film_first, film_first, critic_first, critic_first, critic_first]
    assert won == len('"b": "carla", ')


def test_a_branch_moves_with_all_its_rows() -> None:
    table = table_of("one two u", "one two v", "six two w", "ten two x", "p q r")
    after, won = move(table, [[0, 1, 2], [0, 1, 2], [1, 0, 2], [1, 0, 2], [2, 0, 1]])
    assert [order[0] for order in after[:4]] == [1, 1, 1, 1]
    assert [order[1] for order in after[:2]] == [0, 0]
    assert won >= len('"b": "two", ')


def test_what_all_rows_hold_comes_first() -> None:
    after, won = move(table_of("one two u", "one two v", "six two w"), [[0, 1, 2], [0, 1, 2], [2, 0, 1]])
    assert [order[0] for order in after] == [1, 1, 1]
    assert won > 0


def test_a_row_parts_from_a_branch_where_it_no_longer_agrees() -> None:
    table = table_of("p long-one same u", "p long-one same v", "q long-one else w", "q x y z")
    after, won = move(table, [[2, 0, 1, 3], [2, 0, 1, 3], [0, 1, 2, 3], [0, 1, 2, 3]])
    assert [order[0] for order in after[:3]] == [1, 1, 1]
    assert won > 0


def test_of_two_rows_that_would_join_each_other_one_moves() -> None:
    table = table_of("same alike u v", "same alike w x", "p q r s")
    after, _ = move(table, [[0, 1, 2, 3], [2, 1, 0, 3], [3, 2, 1, 0]])
    assert set(after[0][:2]) == {0, 1}
    assert after[0][:2] == after[1][:2]


@pytest.mark.parametrize("sweeps", [0, 9])
def test_what_cannot_be_bettered_stays(sweeps: int) -> None:
    assert move(table_of("u v", "w x", "y z"), [[0, 1]] * 3, sweeps) == ([[0, 1]] * 3, 0)


def test_equal_rows_stay_together() -> None:
    after, won = move(table_of("u v", "u v", "u v"), [[0, 1]] * 3)
    assert (after, won) == ([[0, 1]] * 3, 0)


@pytest.mark.parametrize("rows", [400, pytest.param(1_200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["fever", "squad", pytest.param("pdmx", marks=pytest.mark.slow)])
def test_a_plan_gains_by_moving_branches(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make(name, rows).table()
    with_moves = plan(table).shared_chars
    monkeypatch.setattr("pg_bridge.ordering.MOST_SWEEPS", 0)
    assert with_moves > plan(table).shared_chars


def test_moving_only_the_promising_trees_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [make(name, rows=300).table() for name in ("beer", "squad", "fever", "products")]
    some = [plan(table).shared_chars for table in tables]
    monkeypatch.setattr(ordering, "HOPELESS_TREE", 1)
    assert [plan(table).shared_chars for table in tables] == some


# What grows faster


@each_seed(5)
def test_batches_grow_what_grows_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = Cells(random_table(seed, n=200, distinct=7))
    at_once = tree.grow(cells, [2, 0, 3, 1])
    with monkeypatch.context() as patched:
        patched.setattr(tree, "CHUNK_ROWS", 16)
        assert tree.grow(cells, [2, 0, 3, 1]).tolist() == at_once.tolist()


def test_two_rows_end_with_the_column_that_begins_most_alike() -> None:
    table = table_of("one u-1 same much-alike-1", "one u-2 same much-alike-2", "two x y z")
    assert tree.grow(Cells(table), [0, 1, 2, 3])[:2, 2:].tolist() == [[3, 1]] * 2
