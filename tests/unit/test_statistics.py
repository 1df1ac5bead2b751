from __future__ import annotations

import numpy as np
import pytest

from pg_bridge.statistics import column_statistics, functional_dependencies, representatives
from pg_bridge.table import Table

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


def test_cardinality_and_mean_length() -> None:
    figures = column_statistics(FILMS, FILMS.lengths(), [0, 1, 3])
    assert figures.cardinality.tolist() == [3, 2, 4]
    assert figures.mean_chars.tolist() == [1.0, (3 * 7 + 9) / 4, 4.0]


def test_figures_of_some_rows_count_those_rows_only() -> None:
    figures = column_statistics(FILMS, FILMS.lengths(), [0, 1], np.array([0, 1]))
    assert figures.cardinality.tolist() == [1, 1]
    assert figures.mean_chars.tolist() == [1.0, 7.0]


@pytest.mark.parametrize("j", range(5))
def test_representatives_hold_the_cell_they_stand_for(j: int) -> None:
    rows = representatives(FILMS)[j]
    assert FILMS.codes[rows, j].tolist() == list(range(len(FILMS.values[j])))
