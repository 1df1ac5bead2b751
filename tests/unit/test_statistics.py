from __future__ import annotations

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
