from __future__ import annotations

import math
from collections import Counter
from statistics import median_low

import numpy as np
import pytest
from numpy.typing import NDArray

from pg_bridge.analysis.dependencies import (
    Dependency,
    approximate_dependencies,
    functional_dependencies,
    representatives,
)
from pg_bridge.rows.statistics import column_statistics
from pg_bridge.rows.table import Table
from tests.seeds import each_seed

FILMS = Table.from_json(
    [
        '{"id":1,"title":"Alien","year":1979,"review":"r1","site":"x"}',
        '{"id":1,"title":"Alien","year":1979,"review":"r2","site":"x"}',
        '{"id":2,"title":"Stalker","year":1979,"review":"r3","site":"x"}',
        '{"id":3,"title":"Alien","year":1979,"review":"r4","site":"x"}',
    ],
    ["id", "title", "year", "review", "site"],
)


def test_dependencies_are_exactly_those_that_hold() -> None:
    assert functional_dependencies(FILMS) == (
        (1, 2, 4),  # id -> title, year, site
        (2, 4),  # title -> year, site; two ids have one title
        (4,),
        (0, 1, 2, 4),  # a column that never repeats determines all
        (2,),
    )


def test_a_dependency_that_one_row_far_down_breaks_is_not_found() -> None:
    rows = [f'{{"a":{i % 10},"b":{i % 10 // 2}}}' for i in range(1000)]
    assert functional_dependencies(Table.from_json(rows, ["a", "b"])) == ((1,), ())
    assert functional_dependencies(Table.from_json([*rows[:500], '{"a":0,"b":9}', *rows[500:]], ["a", "b"])) == ((), ())


def test_figures_of_the_columns() -> None:
    figures = column_statistics(FILMS)
    assert figures.cardinality.tolist() == [3, 2, 1, 4, 1]
    assert figures.mean_chars.tolist() == [1.0, (3 * 7 + 9) / 4, 4.0, 4.0, 3.0]
    assert figures.median_chars.tolist() == [1, 7, 4, 4, 3]
    assert figures.most_chars.tolist() == [1, 9, 4, 4, 3]
    assert figures.repeated_chars.tolist() == [1, 14, 12, 0, 9]
    assert figures.entropy_bits[[2, 3, 4]].tolist() == [0.0, 2.0, 0.0]


@pytest.mark.parametrize("j", range(5))
def test_representatives_hold_the_cell_they_stand_for(j: int) -> None:
    rows = representatives(FILMS)[j]
    assert FILMS.codes[rows, j].tolist() == list(range(len(FILMS.values[j])))


def random_table(seed: int, n: int, k: int) -> Table:
    """Columns of any cardinality, some of them functions of the first but for a few rows."""
    chance = np.random.default_rng([41, seed])
    columns: list[NDArray[np.int64]] = []
    for j in range(k):
        numbers = chance.integers(0, chance.integers(1, 12), n)
        if j % 2 and n:
            numbers = columns[0] // chance.integers(1, 4)
            numbers[chance.integers(0, n, chance.integers(0, 3))] = 99
        columns.append(numbers)
    cells = [[f"{number}" * (1 + number % 4) for number in column.tolist()] for column in columns]
    table = Table.from_cells([f"c{j}" for j in range(k)], cells)
    return table.take(np.flatnonzero(chance.random(n) < 0.8))  # some cells stand in no row any more


def exceptions(determinant: list[str], dependent: list[str]) -> int:
    """Rows that do not hold the dependent's most frequent cell beside their determinant's."""
    beside: dict[str, Counter[str]] = {}
    for one, other in zip(determinant, dependent, strict=True):
        beside.setdefault(one, Counter())[other] += 1
    return sum(counts.total() - max(counts.values()) for counts in beside.values())


def columns_of(table: Table) -> list[list[str]]:
    return [[row[j] for row in table.cells()] for j in range(len(table.columns))]


@each_seed(20)
def test_figures_are_those_of_the_cells_one_by_one(seed: int) -> None:
    table = random_table(seed, 40 + seed, 5)
    figures = column_statistics(table)
    assert figures.rows == table.rows
    for j, cells in enumerate(columns_of(table)):
        lengths = [len(cell) for cell in cells]
        counts = Counter(cells)
        assert figures.cardinality[j] == len(counts)
        assert figures.mean_chars[j] == pytest.approx(sum(lengths) / len(cells))
        assert figures.median_chars[j] == median_low(lengths)
        assert figures.most_chars[j] == max(lengths)
        assert figures.repeated_chars[j] == sum(lengths) - sum(map(len, counts))
        shares = [count / len(cells) for count in counts.values()]
        assert figures.entropy_bits[j] == pytest.approx(-sum(share * math.log2(share) for share in shares), abs=1e-9)


@each_seed(20)
def test_exact_dependencies_are_those_without_an_exception(seed: int) -> None:
    table = random_table(seed, 40 + seed, 5)
    columns = columns_of(table)
    every = range(len(columns))
    expected = tuple(tuple(b for b in every if b != a and not exceptions(columns[a], columns[b])) for a in every)
    assert functional_dependencies(table) == expected
    assert functional_dependencies(table, representatives(table)) == expected


@pytest.mark.parametrize("most", [0.0, 0.05, 0.2, 1.0])
@each_seed(10)
def test_approximate_dependencies_are_those_with_few_exceptions(seed: int, most: float) -> None:
    table = random_table(seed, 40 + seed, 5)
    columns = columns_of(table)
    expected = []
    for a, determinant in enumerate(columns):
        for b, dependent in enumerate(columns):
            repeats = len(determinant) - len(set(determinant))
            if a != b and repeats and len(set(dependent)) > 1:
                count = exceptions(determinant, dependent)
                if count <= most * repeats:
                    expected.append(Dependency(a, b, count))
    assert approximate_dependencies(table, most) == expected


def test_as_many_exceptions_as_are_allowed_still_make_a_dependency() -> None:
    # 10 of 20 rows could be an exception: all but the first of each determinant.
    a, b = [f"{i % 10}" for i in range(20)], [f"{i % 10 % 2}" for i in range(20)]
    b[0] = "9"
    table = Table.from_cells(["a", "b"], [a, b])
    assert Dependency(0, 1, 1) in approximate_dependencies(table, 0.1)
    assert Dependency(0, 1, 1) not in approximate_dependencies(table, 0.099)


@pytest.mark.parametrize("n", [0, 1])
def test_tables_of_no_row_or_one_have_figures(n: int) -> None:
    table = Table.from_cells(["a", "b"], [["12"] * n, ['"x"'] * n])
    figures = column_statistics(table)
    assert (figures.rows, figures.cardinality.tolist(), figures.most_chars.tolist()) == (n, [n, n], [2 * n, 3 * n])
    assert (figures.mean_chars.tolist(), figures.median_chars.tolist()) == ([2.0 * n, 3.0 * n], [2 * n, 3 * n])
    assert (figures.repeated_chars.tolist(), figures.entropy_bits.tolist()) == ([0, 0], [0.0, 0.0])
    assert functional_dependencies(table) == ((1,), (0,))
    assert approximate_dependencies(table) == []


def test_a_table_without_columns_has_no_figures() -> None:
    table = Table.from_json(["{}", "{}"], [])
    assert column_statistics(table).cardinality.tolist() == []
    assert functional_dependencies(table) == ()
    assert approximate_dependencies(table) == []


def test_cells_that_no_row_holds_are_represented_by_none() -> None:
    kept = FILMS.take(np.array([2, 3]))
    assert [rows.tolist() for rows in representatives(kept)][:2] == [[-1, 0, 1], [1, 0]]
