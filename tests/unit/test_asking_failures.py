"""Questions without an answer are noted, each with what tells it from others and without its text."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from pg_bridge.asking.failures import MOST_FAILURES, Failures, digest_prompt
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.run import Run
from pg_bridge.asking.streamed import ask
from pg_bridge.engine import Engine
from pg_bridge.errors import AnswerError, CallError, RowError
from pg_bridge.foreign.learned import Learned
from pg_bridge.foreign.quals import Qual
from pg_bridge.foreign.scan import Scan
from pg_bridge.options import Call
from tests.unit import test_asking_streamed as streamed
from tests.unit import test_asking_together as together
from tests.unit import test_foreign_scan as foreign

NULL, FAIL = (Call.from_arguments({"on_error": each}) for each in ("null", "fail"))


def told(failures: Failures) -> list[tuple[str, str | None, int | None, str | None, str]]:
    return [(each.server, each.question, each.row_id, each.key, each.reason) for each in failures.latest]


def prompt(row: dict[str, Any], question: str = "Is a?") -> str:
    return f"{question}\n{json.dumps(row)}"


def map_rows(rows: list[dict[str, Any]], call: Call) -> Run:
    run = Run()
    oracle = cast("Engine", streamed.Oracle(0))
    list(ask(streamed.fetcher(rows), list(rows[0]), "Is {a}?", call, oracle, run))
    return run


def test_each_row_of_a_map_is_noted_with_its_place() -> None:
    rows = [{"a": "bad" if i in (2, 5, 90) else f"{i}"} for i in range(100)]
    run = map_rows(rows, NULL)
    question = digest_prompt(prompt({"a": "bad"}))
    assert sorted(told(run.failures)) == [("oracle", question, row_id, None, "bad row") for row_id in (3, 6, 91)]
    assert "bad" not in question
    assert [each.at for each in run.failures.latest] == sorted(each.at for each in run.failures.latest)


def test_a_map_that_ends_at_a_failure_has_noted_it() -> None:
    run = Run()
    oracle = cast("Engine", streamed.Oracle(0))
    with pytest.raises(RowError):
        list(ask(streamed.fetcher([{"a": "bad"}, {"a": "x"}]), ["a"], "Is {a}?", FAIL, oracle, run))
    assert [(row_id, reason) for _, _, row_id, _, reason in told(run.failures)] == [(1, "bad row")]


def test_the_latest_are_kept() -> None:
    run = map_rows([{"a": "bad"}] * (MOST_FAILURES + 7), NULL)
    assert len(run.failures.latest) == MOST_FAILURES
    assert {row_id for _, _, row_id, _, _ in told(run.failures)} == set(range(8, MOST_FAILURES + 8))


@pytest.mark.parametrize("dedup", [True, False])
def test_without_deduplication_the_prompt_is_known_all_the_same(dedup: bool) -> None:
    call = Call.from_arguments({"on_error": "null", "dedup": dedup})
    run = map_rows([{"a": "bad"}, {"a": "bad"}], call)
    assert [question for _, question, _, _, _ in told(run.failures)] == [digest_prompt(prompt({"a": "bad"}))] * 2


def test_a_call_in_a_query_is_noted_once_a_question() -> None:
    memory = Memory()
    rows: list[str | None] = ['{"a": "bad"}', '{"a": "x"}', '{"a": "bad"}']
    for _ in range(2):  # the second time nothing is asked
        together.ask(memory, ["Is {a}?"] * 3, rows, NULL, [])
    assert told(memory.run.failures) == [("oracle", digest_prompt(prompt({"a": "bad"})), None, None, "bad row")]


def test_a_call_that_ends_its_statement_has_been_noted() -> None:
    memory = Memory()
    with pytest.raises(CallError):
        together.ask(memory, ["Is {a}?"], ['{"a": "bad"}'], FAIL, [])
    assert len(told(memory.run.failures)) == 1


# -- foreign tables

YES = {"small": (foreign.YES, {"prompt": "Is {i} small?"})}


def scan_rows(needed: set[str], *, shows_keys: bool, **options: str) -> Memory:
    """Rows of which number 3 gets no answer of its type, however often it is asked."""
    memory = Memory()
    model = {"small": (foreign.YES, {"prompt": "Is {i} small?", **options})}
    scan = Scan(foreign.relation(foreign.Source(10), model, key="i"), frozenset(needed), ())

    def engine() -> Engine:
        return cast("Engine", foreign.Oracle(lambda _, i: "perhaps" if i == 3 else "no", []))

    list(scan.windows(memory, 1, engine, Learned(), shows_keys=shows_keys))
    return memory


def test_a_row_of_a_foreign_table_is_noted_with_its_key() -> None:
    memory = scan_rows({"i", "small"}, shows_keys=True, on_error="null")
    reason = 'column "small": the answer is no value of the column\'s type'
    assert told(memory.run.failures) == [("oracle", None, None, "3", reason)]


@pytest.mark.parametrize(("needed", "shows_keys"), [({"small"}, True), ({"i", "small"}, False)])
def test_a_key_that_is_not_read_or_not_to_be_seen_is_not_told(needed: set[str], shows_keys: bool) -> None:
    (failure,) = told(scan_rows(needed, shows_keys=shows_keys, on_error="null").run.failures)
    assert failure[3] is None


def test_a_scan_that_ends_at_a_failure_has_noted_it() -> None:
    memory = Memory()
    relation = foreign.relation(foreign.Source(10), YES, key="i")
    scan = Scan(relation, frozenset({"i", "small"}), (Qual("small", "=", "t"),))

    def engine() -> Engine:
        return cast("Engine", foreign.Oracle(lambda _, i: "perhaps" if i == 3 else "no", []))

    with pytest.raises(AnswerError):
        list(scan.windows(memory, 1, engine, Learned(), shows_keys=True))
    assert [key for _, _, _, key, _ in told(memory.run.failures)] == ["3"]
