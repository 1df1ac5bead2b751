import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper_tables import PAPER_TABLES, PaperTable, make
from benchmarks.paper_tables.draw import by_rank, distinct, every_one, identifiers, scaled
from pg_bridge.analysis.dependencies import functional_dependencies
from pg_bridge.asking.prompt import parse_question
from pg_bridge.rows.table import Table

COLUMNS = {"movies": 8, "products": 8, "bird": 4, "pdmx": 57, "beer": 9, "fever": 5, "squad": 5}
PYTHON_OF: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "integer": int,
    "double precision": (int, float),
    "boolean": bool,
    "timestamp": str,
}
NAMES = list(PAPER_TABLES)


def digest(made: PaperTable) -> str:
    return sha256("\n".join(made.rows()).encode()).hexdigest()


def cardinalities(table: Table) -> dict[str, int]:
    return {column: len(values) for column, values in zip(table.columns, table.values, strict=True)}


def check_dependencies(name: str, table: Table) -> None:
    found = functional_dependencies(table)
    for group in PAPER_TABLES[name].dependencies:
        places = {table.columns.index(column) for column in group}
        for place in places:
            assert places - {place} <= set(found[place])


def test_the_tables_are_the_papers() -> None:
    assert list(COLUMNS) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["movies", "products", "bird"])
def test_at_full_size_the_published_figures_hold(name: str) -> None:
    table = make(name).table()
    assert (table.rows, len(table.columns)) == (PAPER_TABLES[name].rows, COLUMNS[name])
    assert PAPER_TABLES[name].published.items() <= cardinalities(table).items()
    check_dependencies(name, table)


@pytest.mark.parametrize("name", NAMES)
def test_a_small_table_keeps_the_shape(name: str) -> None:
    spec = PAPER_TABLES[name]
    rows = 500
    table = make(name, rows).table()
    assert (table.rows, len(table.columns)) == (rows, COLUMNS[name])
    found = cardinalities(table)
    for column, published in spec.published.items():
        if column != "genres":  # a closed set, which does not shrink with the rows
            assert found[column] == round(published * rows / spec.rows)
    check_dependencies(name, table)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 2, 3, 10, 40])
def test_any_number_of_rows(name: str, rows: int) -> None:
    made = make(name, rows)
    assert len(made.rows()) == rows
    assert all(len(cells) == rows for cells in made.cells)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_what_the_table_holds_and_have_the_stated_types(name: str) -> None:
    made = make(name, 60)
    table = Table.from_json(made.rows(), made.columns)
    assert table.values == made.table().values
    assert (table.codes == made.table().codes).all()
    for row in made.rows():
        for value, type_ in zip(json.loads(row).values(), made.types, strict=True):
            assert value is None or isinstance(value, PYTHON_OF[type_])
            assert isinstance(value, bool) == (type_ == "boolean")


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_and_the_name_decide(name: str) -> None:
    made = digest(make(name, 50, seed=3))
    assert made == digest(make(name, 50, seed=3))
    assert made != digest(make(name, 50, seed=4))


def test_another_process_makes_the_same() -> None:
    script = (
        "from benchmarks.paper_tables import *; from hashlib import sha256;"
        "print([sha256('\\n'.join(make(name, 30).rows()).encode()).hexdigest() for name in PAPER_TABLES])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": "17"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == str([digest(make(name, 30)) for name in NAMES])


@pytest.mark.parametrize("name", NAMES)
def test_prompts_name_no_column(name: str) -> None:
    made = make(name, 1)
    assert parse_question(made.question).text == made.question
    assert made.system_prompt


def test_a_table_needs_a_row() -> None:
    with pytest.raises(ValueError, match="one row"):
        make("beer", 0)


def test_popular_retrievals_come_back_in_varying_places() -> None:
    table = make("fever", 2000).table()
    first, second = (set(table.values[table.columns.index(column)]) for column in ("evidence1", "evidence2"))
    assert len(first) < 1000
    assert len(first & second) > len(first) // 3


def test_every_one_draws_each_once_at_least() -> None:
    chance = np.random.default_rng(0)
    codes = every_one(chance, 1000, 300, 1.0)
    assert np.array_equal(np.unique(codes), np.arange(300))
    ranks = np.bincount(by_rank(chance, 20_000, 50, 1.0), minlength=50)
    assert ranks[0] > 1.5 * ranks[1] > 2 * ranks[9] > 0


def test_names_are_told_apart_even_from_those_told_apart_before() -> None:
    assert distinct(["a", "a 2", "a", "a"]) == ["a", "a 2", "a 3", "a 4"]


def test_identifiers_are_as_many_as_asked() -> None:
    found = identifiers(np.random.default_rng(0), 90, "ab", 7, "x")
    assert len(set(found)) == 90
    assert {len(each) for each in found} == {8}


def test_scaled_is_never_none_and_never_more_than_rows() -> None:
    assert [scaled(5000, rows, 10_000) for rows in (1, 2, 100, 10_000, 1_000_000)] == [1, 1, 50, 5000, 500_000]
