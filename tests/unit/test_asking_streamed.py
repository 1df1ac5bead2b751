"""The road without PostgreSQL: any windows, any duplicates, every row answered once and rightly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking import inquiry
from pg_bridge.asking.run import Run
from pg_bridge.asking.streamed import Fetch, ask
from pg_bridge.engine import Completion, Portion, Sampling, Usage
from pg_bridge.errors import RowError, UnknownColumn
from pg_bridge.options import Call


class Oracle:
    """Stands where an `Engine` stands: answers with the prompt's own cells, some prompts late and out of order."""

    server_name = "oracle"

    def __init__(self, late: int) -> None:
        self.usage = Usage()
        self.prompts: list[str] = []
        self.closed = False
        self.checks = 0
        self._late = late

    def work(self) -> None:
        self.checks += 1

    def complete_portions(
        self, portions: Iterator[Portion], sampling: Sampling, *, eager: bool, landed: object = None
    ) -> Iterator[Completion | None]:
        held: list[Completion] = []
        index = 0
        for prompt in self._pulled(portions):
            if prompt is None:
                yield None
                continue
            self.prompts.append(prompt)
            row = json.loads(prompt.split("\n", 1)[1])
            bad = row["a"] == "bad"
            held.insert(
                0, Completion(index, None if bad else json.dumps(row, sort_keys=True), "bad row" if bad else None)
            )
            index += 1
            if len(held) > self._late:
                yield held.pop()
        yield from held

    def _pulled(self, portions: Iterator[Portion]) -> Iterator[str | None]:
        for portion in portions:
            yield None
            yield from portion.prompts

    def close(self) -> None:
        self.closed = True


def fetcher(rows: list[dict[str, Any]]) -> Fetch:
    texts: list[str | None] = [json.dumps(row) for row in rows]

    def fetch(count: int) -> list[str | None]:
        taken, texts[:] = texts[:count], texts[count:]
        return list(taken)

    return fetch


cells = st.fixed_dictionaries({"a": st.sampled_from("xyz"), "b": st.sampled_from("xyz"), "n": st.integers(0, 3)})


@given(
    rows=st.lists(cells, max_size=60),
    window=st.integers(1, 20),
    late=st.integers(0, 30),
    dedup=st.booleans(),
    remembered=st.integers(1, 20),
    every_row=st.booleans(),
)
def test_every_row_gets_its_answer_once(
    rows: list[dict[str, Any]], window: int, late: int, dedup: bool, remembered: int, every_row: bool
) -> None:
    engine: Any = Oracle(late)
    run = Run()
    call = Call(window_rows=window, dedup=dedup)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inquiry, "REMEMBERED_ANSWERS", remembered)
        answers = list(ask(fetcher(rows), ["a", "b", "n"], "About {a} and {b}", call, engine, run, every_row=every_row))
    assert sorted(answer.row_id for answer in answers) == list(range(1, len(rows) + 1))
    for answer in answers:
        row = rows[answer.row_id - 1]
        assert json.loads(answer.output or "") == {"a": row["a"], "b": row["b"]}
        assert json.loads(answer.input or "") == row
    distinct = len({(row["a"], row["b"]) for row in rows})
    assert run.unique_prompts == len(engine.prompts) >= distinct
    if dedup and remembered >= 9:
        assert len(engine.prompts) == distinct
    if not dedup:
        assert len(engine.prompts) == len(rows)
    assert run.rows == len(rows)
    assert engine.closed


@pytest.mark.parametrize("every_row", [True, False])
@pytest.mark.parametrize(
    ("rows", "distinct", "late"), [(1024, 1024, 0), (3000, 2500, 40), (3000, 37, 1500), (3000, 1, 1)]
)
def test_rows_that_go_ahead_are_asked_once_and_answered_in_their_place(
    rows: int, distinct: int, late: int, every_row: bool
) -> None:
    engine: Any = Oracle(late)
    given = [{"a": f"a{i % distinct % 7}", "n": i % distinct, "i": i} for i in range(rows)]
    run = Run()
    answers = list(ask(fetcher(given), ["a", "n", "i"], "{a} {n}", Call(), engine, run, every_row=every_row))
    assert sorted(answer.row_id for answer in answers) == list(range(1, rows + 1))
    for answer in answers:
        row = given[answer.row_id - 1]
        assert json.loads(answer.output or "") == {"a": row["a"], "n": row["n"]}
        assert json.loads(answer.input or "") == row
    assert len(engine.prompts) == len(set(engine.prompts)) == run.unique_prompts == distinct
    assert run.rows == rows


def test_a_failed_row_fails_the_statement_and_names_the_row() -> None:
    engine: Any = Oracle(0)
    with pytest.raises(RowError, match="row 2") as caught:
        list(ask(fetcher([{"a": "x"}, {"a": "bad"}]), ["a"], "{a}", Call(), engine, Run()))
    assert caught.value.row_id == 2
    assert engine.closed


def test_a_failed_prompt_fails_all_its_rows_also_in_later_windows() -> None:
    engine: Any = Oracle(0)
    rows = [{"a": "bad"}, {"a": "x"}, {"a": "bad"}]
    answers = list(ask(fetcher(rows), ["a"], "{a}", Call(on_error="null", window_rows=1), engine, Run()))
    assert {answer.row_id: answer.error for answer in answers} == {1: "bad row", 2: None, 3: "bad row"}
    assert len(engine.prompts) == 2


def test_an_unknown_column_is_known_before_anything_is_fetched() -> None:
    engine: Any = Oracle(0)

    def fetch(count: int) -> list[str | None]:
        raise AssertionError("fetched")

    with pytest.raises(UnknownColumn):
        ask(fetch, ["a"], "{b}", Call(), engine, Run())


def test_duplicates_are_not_kept() -> None:
    """Rows whose answer is known are handed over before the next window is read."""
    engine: Any = Oracle(0)
    read = 0

    def fetch(count: int) -> list[str | None]:
        nonlocal read
        read += count
        return ['{"a": "x"}'] * count if read < 50_000 else []

    answers = ask(fetch, ["a"], "{a}", Call(window_rows=1000), engine, Run())
    for taken, _ in enumerate(answers, 1):
        assert read - taken <= 3000
    assert engine.prompts == ['a\n{"a": "x"}']


def test_the_run_can_be_interrupted_while_rows_are_planned() -> None:
    class Cancelled(Exception):
        pass

    class Interrupted(Oracle):
        def work(self) -> None:
            super().work()
            if self.checks == 5:
                raise Cancelled

    engine: Any = Interrupted(0)
    rows = [{"a": str(i % 7), "b": str(i)} for i in range(300)]
    with pytest.raises(Cancelled):
        list(ask(fetcher(rows), ["a", "b"], "Q", Call(), engine, Run()))
    assert engine.prompts == []
    assert engine.closed
