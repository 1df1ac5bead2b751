"""How many different questions EXPLAIN expects: from columns' statistics as PostgreSQL's own planner expects groups."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pg_bridge.asking.distinct import SourceColumn, SourceRows, count_distinct, count_left
from pg_bridge.asking.outline import Outline, Rows
from pg_bridge.asking.prompt import Question
from pg_bridge.asking.seen import NOTHING_SEEN
from pg_bridge.options import Call, Server

SERVER = Server("vllm", "http://engine")
ALL = {1: SourceRows(1000, 1000), 2: SourceRows(50, 50)}


def column(number: int, values: float | None, table: int = 1) -> SourceColumn:
    return SourceColumn(table, number, values)


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        ([], 1000, 1),
        ([column(1, 20)], 1000, 20),
        ([column(1, 20)], 7, 7),
        ([column(1, 20), column(1, 20)], 1000, 20),  # twice the same
        ([column(1, 20), column(2, 4)], 1000, 80),
        ([column(1, 20), column(2, 40)], 1000, 100),  # no more than a tenth of the rows, as PostgreSQL has it
        ([column(1, 600), column(2, 40)], 1000, 600),  # unless one of them has more
        ([column(1, 5000)], 9000, 1000),
        ([column(1, 20), column(1, 10, 2)], 9000, 200),
        ([column(1, 20), column(2, None)], 1000, None),
    ],
)
def test_combinations(columns: list[SourceColumn], rows: float, expected: float | None) -> None:
    assert count_distinct(columns, ALL, rows) == expected


def test_a_condition_leaves_fewer_values() -> None:
    few = {1: SourceRows(1000, 10)}
    found = count_distinct([column(1, 500)], few, 10)
    assert found == pytest.approx(9.9, abs=0.1)
    assert count_distinct([column(1, 2)], few, 10) == pytest.approx(2, abs=0.05)
    assert count_left(2, 0, 0) == 2  # of a table without rows


def lines(*rows: Rows, **options: object) -> dict[str, str]:
    outline = Outline()
    for each in rows:
        outline.add(Question("Kind?", ()), Call.from_arguments(options), each, SERVER, NOTHING_SEEN)
    return dict(line.removeprefix("Estimated ").split(": ") for line in outline.lines(SERVER, NOTHING_SEEN))


def test_how_sure_it_is_of_different_questions() -> None:
    known, unknown = Rows(600, 10, 89.7, 0), Rows(100, 10, None, 0)
    assert lines(known)["Unique Questions"] == "about 90"
    assert lines(unknown)["Unique Questions"] == "100 at most"
    assert lines(known, unknown)["Unique Questions"] == "about 190 at most"
    assert lines(known, dedup=False)["Unique Questions"] == "600 at most"
    assert lines(known)["Questions"] == "600 at most"


def test_no_more_are_answered_than_there_are() -> None:
    assert lines(Rows(600, 10, 90, 0))["Already Answered"] == "0"
    assert lines(Rows(600, 10, 90, 7))["Already Answered"] == "7 at most"
    assert lines(Rows(600, 10, 90, 10_000))["Already Answered"] == "90 at most"
    assert lines(Rows(600, 10, 90, 10_000), Rows(5, 10, None, 2))["Already Answered"] == "92 at most"
    assert "Already Answered" not in lines(Rows(600, 10, 90, 7), Rows(600, 10, 90, None))


def test_a_cost_is_in_decimals() -> None:
    outline = Outline()
    priced = replace(SERVER, price_prompt=0.15)
    outline.add(Question("Kind?", ()), Call(), Rows(10, 10, None, 0), priced, NOTHING_SEEN)
    (cost,) = [line for line in outline.lines(priced, NOTHING_SEEN) if "Cost" in line]
    assert re.fullmatch(r"Estimated Cost: 0\.0000\d+ at most", cost)
    outline.add(Question("Kind?", ()), Call(), Rows(1e15, 10, None, 0), priced, NOTHING_SEEN)
    (cost,) = [line for line in outline.lines(priced, NOTHING_SEEN) if "Cost" in line]
    assert re.fullmatch(r"Estimated Cost: \d{10,} at most", cost)
