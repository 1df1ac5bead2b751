"""A scan without PostgreSQL and without an engine: a source in memory, an oracle that answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking.memory import Memory
from pg_bridge.engine import Completion, Engine, Portion, Sampling, Usage
from pg_bridge.errors import AnswerError, OptionError, PgBridgeError, TableError, UnknownColumn
from pg_bridge.foreign.answers import BOOL, INT4, TEXT, ColumnType
from pg_bridge.foreign.definition import Column, Definition
from pg_bridge.foreign.learned import Learned
from pg_bridge.foreign.quals import Qual
from pg_bridge.foreign.scan import Scan
from pg_bridge.foreign.source import Relation, SourceRow

INT = ColumnType(INT4, -1, "integer")
TXT = ColumnType(TEXT, -1, "text")
YES = ColumnType(BOOL, -1, "boolean")


class Rows:
    def __init__(self, rows: list[SourceRow], fetched: list[int]) -> None:
        self._rows = rows
        self._fetched = fetched

    def fetch(self, count: int) -> list[SourceRow]:
        taken, self._rows = self._rows[:count], self._rows[count:]
        self._fetched.append(len(taken))
        return taken


class Source:
    """A source of n rows `i`; shows each as its number and as JSON."""

    sees = "what there is"

    def __init__(self, n: int) -> None:
        self.n = n
        self.fetched: list[int] = []
        self.is_open = False

    def catalog(self, sql: str, parameters: Sequence[str] = ()) -> list[SourceRow]:
        raise NotImplementedError

    def table(self, name: str) -> str | None:
        raise NotImplementedError

    def size(self, sql: str, parameters: Sequence[str]) -> tuple[int, int]:
        raise NotImplementedError

    def columns(self, sql: str) -> list[tuple[str, int, int]]:
        raise NotImplementedError

    @contextmanager
    def rows(self, sql: str, parameters: Sequence[str] = ()) -> Iterator[Rows]:
        self.is_open = True
        rows: list[SourceRow] = [(str(i), json.dumps({"i": i})) for i in range(self.n)]
        yield Rows(rows, self.fetched)
        self.is_open = False


class Oracle:
    """Stands where an `Engine` stands; the latest prompt is answered first."""

    server_name = "oracle"

    def __init__(self, answer: Callable[[str, int], str], asked: list[str]) -> None:
        self.usage = Usage()
        self._answer = answer
        self._asked = asked

    def work(self) -> None:
        pass

    def complete_portions(
        self,
        portions: Iterator[Portion],
        sampling: Callable[[int], Sampling],
        *,
        eager: bool,
        landed: object = None,
        ends_run: object = None,
    ) -> Iterator[Completion]:
        texts = [prompt for portion in portions for prompt in portion.prompts]
        self._asked += texts
        for index, prompt in reversed(list(enumerate(texts))):
            row = prompt[prompt.index("{") : prompt.index("}") + 1]
            question = prompt.replace(row, "").strip()
            yield Completion(index, self._answer(question, json.loads(row)["i"]), None)

    def close(self) -> None:
        pass


def relation(source: Source, model: dict[str, tuple[ColumnType, dict[str, str]]], **options: str) -> Relation:
    columns = [Column("i", INT, {}), *(Column(name, type_, given) for name, (type_, given) in model.items())]
    definition = Definition.from_options({"source": "t", **options}, columns, lambda oid: ())
    types = {column.name: column.type for column in columns}
    return Relation(definition, source, "t AS s", types, frozenset(), bytewise=True, expressions={"i": "s.i"})


def run(
    scan: Scan, answer: Callable[[str, int], str], asked: list[str], learned: Learned | None = None
) -> Iterator[Any]:
    def engine() -> Engine:
        return cast("Engine", Oracle(answer, asked))

    for window in scan.windows(Memory(), 1, engine, learned or Learned()):
        yield from window


SAID = {"small": (YES, {"prompt": "Is {i} small?"}), "name": (TXT, {"prompt": "Name {i}."})}


def answer(question: str, i: int) -> str:
    return ("yes" if i % 10 == 3 else "no") if question.startswith("Is") else f"<{i}>"


@given(st.integers(0, 75), st.sampled_from(["1", "7", "40", "1000"]), st.booleans())
def test_rows_keep_their_order_and_their_answers(n: int, window_rows: str, filtered: bool) -> None:
    source = Source(n)
    quals = (Qual("small", "=", "t"),) if filtered else ()
    scan = Scan(relation(source, SAID, window_rows=window_rows), frozenset(["i", "small", "name"]), quals)
    asked: list[str] = []
    rows = list(run(scan, answer, asked))
    kept = [i for i in range(n) if not filtered or i % 10 == 3]
    assert rows == [[str(i), "t" if i % 10 == 3 else "f", f"<{i}>"] for i in kept]
    assert len(asked) == n + len(kept)
    assert not source.is_open


def test_windows_double_and_a_scan_that_stops_has_read_little() -> None:
    source = Source(10_000)
    scan = Scan(relation(source, SAID), frozenset(["name"]), (Qual("small", "=", "t"),))
    asked: list[str] = []
    rows = run(scan, answer, asked)
    for _ in range(10):
        next(rows)
    assert source.fetched == [32, 64, 128][: len(source.fetched)]
    rows.close()  # type: ignore[attr-defined]
    named = [json.loads(prompt.partition("\n")[2])["i"] for prompt in asked if prompt.startswith("Name")]
    assert [i % 10 for i in named] == [3] * len(named)
    assert len(asked) < 300


def test_without_a_model_column_windows_are_large_at_once() -> None:
    source = Source(3000)
    assert len(list(run(Scan(relation(source, SAID), frozenset(["i"]), ()), answer, []))) == 3000
    assert source.fetched == [64, 960, 1024, 952]  # the first ones tell how long rows are


def test_what_drops_more_for_less_is_asked_first() -> None:
    model = {
        "all": (YES, {"prompt": "Is {i} a number?"}),
        "few": (YES, {"prompt": "Is {i} small?"}),
    }
    scan = Scan(relation(Source(2000), model), frozenset(["i"]), (Qual("all", "=", "t"), Qual("few", "=", "t")))

    def told(question: str, i: int) -> str:
        return "yes" if "number" in question or i % 10 == 3 else "no"

    learned = Learned()
    asked: list[str] = []
    assert len(list(run(scan, told, asked, learned))) == 200
    number = sum("number" in prompt for prompt in asked)
    assert number < 400
    asked.clear()
    list(run(scan, told, asked, learned))  # what was learnt is kept
    assert sum("number" in prompt for prompt in asked) == 200


def test_an_answer_that_is_no_value_is_asked_for_again() -> None:
    model = {"grade": (INT, {"prompt": "Grade {i}."})}
    scan = Scan(relation(Source(3), model), frozenset(["grade"]), ())
    asked: list[str] = []

    def told(question: str, i: int) -> str:
        return str(i) if i != 1 or "whole number" in question else "three"

    assert [row[1] for row in run(scan, told, asked)] == ["0", "1", "2"]
    assert len(asked) == 4
    with pytest.raises(AnswerError, match='column "grade"') as caught:
        list(run(scan, lambda question, i: "never", []))
    assert "never" not in str(caught.value.detail)
    model["grade"][1]["on_error"] = "null"
    scan = Scan(relation(Source(3), model), frozenset(["grade"]), ())
    assert [row[1] for row in run(scan, lambda question, i: "never", [])] == [None] * 3


def test_several_columns_over_the_same_rows_are_one_run() -> None:
    model = {name: (TXT, {"prompt": f"{name} of {{i}}?"}) for name in ("a", "b", "c")}
    for placement, first in (("question first", "a"), ("row first", "{")):
        asked: list[str] = []
        scan = Scan(relation(Source(20), model, placement=placement), frozenset(model), ())
        rows = list(run(scan, lambda question, i: f"{question[0]}{i}", asked))
        assert rows == [[None, f"a{i}", f"b{i}", f"c{i}"] for i in range(20)]
        assert asked[0].startswith(first)
    assert [prompt.partition("\n")[2][0] for prompt in asked[:6]] == list("abcabc")


@pytest.mark.parametrize(
    ("options", "columns", "error"),
    [
        ({}, [], TableError),
        ({"source": "t", "source_query": "SELECT 1"}, [], TableError),
        ({"source": "t", "key": "k"}, [("i", INT, {})], TableError),
        ({"source": "t", "window_rows": "none"}, [], OptionError),
        ({"source": "t"}, [("a", TXT, {"labels": "x,x", "prompt": "?"})], OptionError),
        ({"source": "t"}, [("a", TXT, {"labels": "[1]", "prompt": "?"})], OptionError),
        ({"source": "t"}, [("a", TXT, {"max_tokens": "3"})], OptionError),
        ({"source": "t"}, [("a", TXT, {"temperature": "3", "prompt": "?"})], OptionError),
        ({"source": "t"}, [("a", INT, {"schema": "{}", "prompt": "?"})], TableError),
        ({"source": "t"}, [("a", TXT, {"prompt": "of {b}"}), ("b", TXT, {"prompt": "of {a}"})], UnknownColumn),
        ({"source": "t"}, [("a", ColumnType(600, -1, "point"), {"prompt": "?"})], TableError),
        ({"source": "t"}, [("a", ColumnType(1043, 6, "varchar(2)"), {"prompt": "?", "labels": "long"})], TableError),
    ],
)
def test_a_definition_that_does_not_hold_together(
    options: dict[str, str], columns: list[tuple[str, ColumnType, dict[str, str]]], error: type[PgBridgeError]
) -> None:
    with pytest.raises(error) as caught:
        Definition.from_options(options, [Column(*column) for column in columns], lambda oid: ())
    assert caught.value.hint or error is UnknownColumn
