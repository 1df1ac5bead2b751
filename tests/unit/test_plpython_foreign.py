"""The PL/Python host of foreign tables, without PostgreSQL: what a request says, and how rows are handed over."""

from __future__ import annotations

from typing import Any

import pytest

from pg_bridge.foreign.answers import BOOL, DATE, INT4, INT8, TEXT, TIMESTAMP, ColumnType
from pg_bridge.foreign.definition import Column, Definition
from pg_bridge.foreign.importing import TableToCreate
from pg_bridge.foreign.quals import Qual
from pg_bridge.plpython.foreign import CHARS_AT_ONCE, ROWS_AT_ONCE, _command, _picker, _split
from pg_bridge.plpython.request import Shown, is_known, qual_of
from pg_bridge.plpython.source import PlpySource
from pg_bridge.plpython.spi import describe_failure

DEFINITION = Definition.from_options(
    {"source": "s"},
    [
        Column("title", ColumnType(TEXT, -1, "text"), {}),
        Column("stars", ColumnType(INT4, -1, "integer"), {}),
        Column("good", ColumnType(BOOL, -1, "boolean"), {"prompt": "Is {title} good?"}),
        Column("count", ColumnType(INT4, -1, "integer"), {"prompt": "How many {title}?"}),
        Column("seen", ColumnType(DATE, -1, "date"), {"prompt": "When was {title}?"}),
    ],
    lambda _: (),
)


def given(column: str, operator: str = "=", quantifier: str = "", **rest: Any) -> dict[str, Any]:
    return {"column": column, "operator": operator, "quantifier": quantifier, "exact": False, **rest}


@pytest.mark.parametrize(
    ("request_", "qual"),
    [
        (given("stars", "IS NULL"), Qual("stars", "IS NULL")),
        (given("stars", "<=", type=INT4, type_name="integer", value=["2"]), Qual("stars", "<=", "2", "", "integer")),
        (
            given("title", "=", "any", type=TEXT, type_name="text", value=["a", "b"], collation='pg_catalog."C"'),
            Qual("title", "=", ("a", "b"), "any", "text", 'pg_catalog."C"'),
        ),
        (given("good", type=BOOL, type_name="boolean", value=["t"]), Qual("good", "=", "t")),
        (given("count", type=INT8, type_name="bigint", value=["7"]), Qual("count", "=", "7")),
        (given("seen", type=DATE, type_name="date", value=["2024-02-29"]), Qual("seen", "=", "2024-02-29")),
        (
            given("seen", type=TIMESTAMP, type_name="timestamp without time zone", value=["2024-02-29 00:00:00"]),
            Qual("seen", "=", "2024-02-29 00:00:00", "", "timestamp"),
        ),
    ],
)
def test_a_qual_of_a_request(request_: dict[str, Any], qual: Qual) -> None:
    assert is_known(request_)
    assert qual_of(request_, DEFINITION) == qual


def test_a_qual_whose_value_is_not_known_yet() -> None:
    assert not is_known(given("stars", type=INT4, type_name="integer", shown="$1"))
    assert str(Shown("stars", "<=", "$1")) == "stars <= $1"
    assert str(Shown("title", "!~~*", "now()::text")) == "title NOT ILIKE now()::text"
    assert str(Shown("stars", "=", "$0", "any")) == "stars = ANY ($0)"


def test_rows_are_handed_over_in_parts_and_long_ones_alone() -> None:
    short: list[list[str | None]] = [["a", None]] * (ROWS_AT_ONCE + 1)
    assert [len(part) for part in _split(short)] == [ROWS_AT_ONCE, 1]
    assert [len(part) for part in _split([["x" * CHARS_AT_ONCE], ["y"], [None]])] == [1, 1, 1]
    assert list(_split([])) == []


@pytest.mark.parametrize("places", [[], [1], [2, 0], [0, 1, 2]])
def test_the_needed_cells_row_by_row(places: list[int]) -> None:
    rows: list[list[str | None]] = [["a", "b", None], ["d", "e", "f"]]
    assert _picker(places)(rows) == [row[place] for row in rows for place in places]


def test_the_command_of_import_foreign_schema() -> None:
    table = TableToCreate(
        'a"b',
        (
            Column("n", ColumnType(INT4, -1, "integer"), {}),
            Column("Kind", ColumnType(TEXT, -1, "text"), {"prompt": "it's?", "labels": "a,b"}),
        ),
        {"source": '"s"."a""b"', "key": "n"},
    )
    assert _command(table, "vllm", lambda text: "'" + text.replace("'", "''") + "'") == (
        'CREATE FOREIGN TABLE "a""b" ("n" integer, "Kind" text OPTIONS ("labels" \'a,b\', "prompt" \'it\'\'s?\')) '
        'SERVER "vllm" OPTIONS ("key" \'n\', "source" \'"s"."a""b"\')'
    )


class Plpy:
    """As much of `plpy` as fetching needs: hands out what it was given, call by call."""

    class SPIError(Exception):
        spidata = (0, None, None)

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)
        self.given: list[list[Any]] = []

    def prepare(self, sql: str, types: list[str]) -> str:
        return sql

    def execute(self, plan: str, parameters: list[Any]) -> list[dict[str, Any]]:
        self.given.append(parameters)
        return [{"found": self.answers.pop(0)}]


def test_a_fetch_goes_on_until_it_has_its_rows_or_all() -> None:
    plpy = Plpy([["a"], ["b"]], [["c"]], [])
    with PlpySource(plpy).rows("SELECT $1", ["x"]) as rows:
        assert list(map(list, rows.fetch(5))) == [["a"], ["b"], ["c"]]
    assert plpy.given == [
        [5, "SELECT $1", ["x"]],
        [3, None, None],
        [2, None, None],
    ]


def test_an_error_of_a_nested_function_has_its_own_words() -> None:
    error = Plpy.SPIError("spiexceptions.QueryCanceled: canceling statement due to user request")
    assert describe_failure(Plpy(), error)[1] == "canceling statement due to user request"
