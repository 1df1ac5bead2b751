"""`map_rows` with an engine double: what is asked, and that every row gets its own answer."""

from __future__ import annotations

import asyncio
import decimal
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pg_bridge import MapOptions, RowAnswer, Server, map_rows, map_rows_async
from pg_bridge.errors import (
    BudgetExceeded,
    EngineDenied,
    EngineUnreachable,
    OptionError,
    RowError,
    TemplateError,
    UnknownColumn,
)
from pg_bridge.serving.ports import free_port
from pg_bridge.testing.behaviour import default_answer
from pg_bridge.testing.double import EngineDouble

ROWS: list[dict[str, Any]] = [{"film": f"Film {i % 7}", "review": "long " * (i % 5), "id": i} for i in range(3000)]


def answer_to(row: dict[str, Any], question: str = "Is review of film kind?") -> str:
    return default_answer(f'{question}\n{{"film": "{row["film"]}", "review": "{row["review"]}"}}')


def test_each_row_gets_its_answer_in_order_and_equal_ones_are_asked_once(engine: EngineDouble) -> None:
    runs: list[Any] = []
    answers = list(map_rows(iter(ROWS), "Is {review} of {film} kind?", engine.url, on_run=runs.append))
    assert answers == [RowAnswer(i, answer_to(row), None) for i, row in enumerate(ROWS)]
    assert len(engine.received.prompts) == 35 == runs[0]["unique_prompts"]
    assert runs[0]["rows"] == 3000


@pytest.mark.slow
def test_answers_as_they_land_are_the_same_ones(engine: EngineDouble) -> None:
    options: MapOptions = {"window_rows": 500, "choices": ["yes", "no"]}
    prompt = "Is {review} of {film} ({id}) kind?"
    landed = list(map_rows(ROWS, prompt, engine.url, ordered=False, **options))
    assert [answer.row for answer in landed] != list(range(3000))
    assert sorted(landed) == list(map_rows(ROWS, prompt, engine.url, **options))


def test_no_rows_ask_nothing_and_a_wrong_prompt_is_told_before_a_row_is_read(engine: EngineDouble) -> None:
    assert list(map_rows([], "Is {review} kind?", engine.url)) == []
    with pytest.raises(TemplateError):
        map_rows(({"review": 1 / 0} for _ in [1]), "Is {review kind?", engine.url)
    with pytest.raises(OptionError, match="max_tokens"):
        map_rows([], "Well?", engine.url, max_tokens=0)
    with pytest.raises(OptionError, match="unknown_option"):
        map_rows([], "Well?", engine.url, unknown_option=1)  # type: ignore[call-arg]
    with pytest.raises(UnknownColumn, match="reveiw"):
        next(map_rows(ROWS, "Is {reveiw} kind?", engine.url))
    assert engine.received.requests == []


def test_values_are_put_into_prompts_as_postgresql_would(engine: EngineDouble) -> None:
    row = {
        "numeric": decimal.Decimal("12.50"),
        "large": decimal.Decimal("1E+3"),
        "at": datetime(2024, 2, 29, 12, tzinfo=UTC),
        "text": 'é "\n',
        "none": None,
        "nan": float("nan"),
        "list": [1, {"a": True}],
        "numpy": np.float32(0.5),
        "moment": np.datetime64("2024-02-29T12:00:00.000000001"),
        "moments": np.array(["2024-02-29T12:00:00", "NaT"], dtype="datetime64[ns]"),
        "signaling": decimal.Decimal("sNaN"),
        "array": np.arange(2),
    }
    list(map_rows([row], "Well?", engine.url, reorder="none"))
    assert engine.received.prompts == [
        'Well?\n{"numeric": 12.50, "large": 1000, "at": "2024-02-29T12:00:00+00:00", "text": "é \\"\\n", '
        '"none": null, "nan": "NaN", "list": [1, {"a": true}], "numpy": 0.5, "moment": "2024-02-29T12:00:00", '
        '"moments": ["2024-02-29T12:00:00", null], '
        '"signaling": "NaN", "array": [0, 1]}'
    ]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"a": object()}], 'column "a" has a value of type object'),
        ([{"a": b"secret"}], 'column "a" has a value of type bytes'),
        ([{"a": 1}, ["a"]], "row 1 is no mapping but of type list"),
        ({"a": 1}, "not an iterable of mappings"),
        ([{1: 1}], "name of a column is not a text"),
        ([{"a": 1}] * 2000 + [{"b": 1}], "row 2000 has a column that none of the first 1024"),
    ],
)
def test_what_are_no_rows_is_an_error_of_ours_that_shows_no_value(engine: EngineDouble, rows: Any, says: str) -> None:
    with pytest.raises(OptionError, match=says) as error:
        list(map_rows(rows, "Well?", engine.url))
    assert "secret" not in str(error.value)


def test_a_column_may_be_missing_from_some_rows(engine: EngineDouble) -> None:
    list(map_rows([{"id": 1}, {"review": "good"}], "Is {review} kind?", engine.url))
    assert engine.received.prompts == ['Is review kind?\n{"review": null}', 'Is review kind?\n{"review": "good"}']


def test_a_row_that_fails_fails_the_run_or_tells_why(engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = "Film 3"
    with pytest.raises(RowError):
        list(map_rows(ROWS, "Is {film} kind?", engine.url))
    answers = list(map_rows(ROWS, "Is {film} kind?", engine.url, on_error="null"))
    failed = [answer for answer in answers if answer.output is None]
    assert {ROWS[answer.row]["film"] for answer in failed} == {"Film 3"}
    assert all(answer.error for answer in failed)


def test_budgets_hold_and_need_prices_where_they_are_about_costs(engine: EngineDouble) -> None:
    with pytest.raises(BudgetExceeded):
        list(map_rows(ROWS, "Is {film} kind?", engine.url, max_requests=6))
    assert engine.received.prompts == []
    answers = list(map_rows(ROWS, "Is {film} kind?", engine.url, max_requests=6, on_budget="null"))
    assert len(engine.received.prompts) == 6
    assert {answer.error for answer in answers if answer.output is None} == {
        "not asked: the statement has reached its limit: max_requests = 6"
    }
    with pytest.raises(OptionError, match="no prices"):
        list(map_rows(ROWS, "Is {film} kind?", engine.url, max_cost=1))
    priced = Server("vllm", engine.url, price_prompt=1e6)
    with pytest.raises(BudgetExceeded):
        list(map_rows(ROWS, "Is {film} kind?", priced, max_cost=1))


def test_errors_of_the_engine_are_ours(engine: EngineDouble) -> None:
    nowhere = Server("vllm", f"http://127.0.0.1:{free_port()}", connect_timeout_s=0.2)
    with pytest.raises(EngineUnreachable):
        list(map_rows(ROWS, "Is {film} kind?", nowhere))
    engine.behaviour.api_key = "right"
    with pytest.raises(EngineDenied) as error:
        list(map_rows(ROWS, "Is {film} kind?", Server("vllm", engine.url, api_key="wrong-key")))
    assert "wrong-key" not in str(error.value) + error.value.detail


def test_what_a_ledger_knows_is_not_asked_again(engine: EngineDouble, tmp_path: Path) -> None:
    first = list(map_rows(ROWS, "Is {film} kind?", engine.url, ledger=tmp_path / "kept"))
    assert len(engine.received.prompts) == 7
    assert list(map_rows(ROWS, "Is {film} kind?", engine.url, ledger=str(tmp_path / "kept"))) == first
    assert len(engine.received.prompts) == 7
    list(map_rows(ROWS, "Is {film} kind?", engine.url, ledger=tmp_path / "kept", max_tokens=3))
    assert len(engine.received.prompts) == 14


def test_a_ledger_is_used_by_one_thread_at_a_time(engine: EngineDouble, tmp_path: Path) -> None:
    failures: list[Exception] = []

    def ask() -> None:
        try:
            list(map_rows(ROWS, "Is {film} kind?", engine.url, ledger=tmp_path))
        except OptionError as error:
            failures.append(error)

    for is_refused in (True, False):
        with closing(map_rows(ROWS, "Is {film} kind?", engine.url, ledger=tmp_path)) as answers:
            next(answers)
            if is_refused:
                thread = threading.Thread(target=ask)
                thread.start()
                thread.join()
                assert "in use in another thread" in str(failures.pop())
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert failures == []
    assert len(engine.received.prompts) == 7


def test_closing_the_iterator_aborts_what_is_in_flight(engine: EngineDouble) -> None:
    engine.behaviour.hang_after = 1
    with closing(map_rows(ROWS, "Is {film} {id} kind?", engine.url, ordered=False, window_rows=1000)) as answers:
        next(answers)
        sent = len(engine.received.prompts)
    assert engine.received.answered < sent < 3000


def test_an_error_of_the_rows_comes_out_unchanged(engine: EngineDouble) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS
        raise LookupError("the source broke")

    with pytest.raises(LookupError, match="the source broke"):
        list(map_rows(rows(), "Is {film} kind?", engine.url))


# -- asyncio


async def collect(answers: AsyncIterator[RowAnswer]) -> list[RowAnswer]:
    return [answer async for answer in answers]


async def arriving() -> AsyncIterator[dict[str, Any]]:
    for row in ROWS:
        yield row
        if row["id"] % 500 == 0:
            await asyncio.sleep(0)


def test_the_asynchronous_form_gives_the_same_answers(engine: EngineDouble) -> None:
    expected = list(map_rows(ROWS, "Is {film} kind?", engine.url))

    async def main() -> None:
        assert await collect(map_rows_async(ROWS, "Is {film} kind?", engine.url)) == expected
        assert await collect(map_rows_async(arriving(), "Is {film} kind?", engine.url)) == expected
        landed = await collect(map_rows_async(ROWS, "Is {film} kind?", engine.url, ordered=False, window_rows=100))
        assert sorted(landed) == expected
        with pytest.raises(OptionError):
            await collect(map_rows_async(ROWS, "Is {film} kind?", engine.url, max_tokens=0))
        with pytest.raises(UnknownColumn):
            await collect(map_rows_async(arriving(), "Is {flim} kind?", engine.url))

    asyncio.run(main())


def test_the_loop_goes_on_while_an_answer_is_awaited_and_cancelling_aborts(engine: EngineDouble) -> None:
    engine.behaviour.hang = True

    async def main() -> None:
        asking = asyncio.create_task(collect(map_rows_async(ROWS, "Is {film} kind?", engine.url)))
        while not engine.received.prompts_in_flight:  # noqa: ASYNC110 - the double has no event to wait for
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pg_bridge-map")]


def test_several_runs_of_one_loop_do_not_wait_for_each_other(engine: EngineDouble) -> None:
    async def main() -> None:
        prompts = [f"Is {{film}} kind, {i}?" for i in range(4)]
        found = await asyncio.gather(*(collect(map_rows_async(ROWS, prompt, engine.url)) for prompt in prompts))
        for prompt, answers in zip(prompts, found, strict=True):
            question = prompt.replace("{film}", "film")
            assert answers[0].output == default_answer(f'{question}\n{{"film": "Film 0"}}')
            assert len(answers) == len(ROWS)

    asyncio.run(main())


# -- pandas and Arrow


def test_a_dataframe_is_rows_and_what_is_missing_in_it_is_null(engine: EngineDouble) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "film": ["Heat", None, "Alien"],
            "year": pd.array([1995, None, 1979], dtype="Int64"),
            "score": [1.5, float("nan"), 2.0],
            "at": pd.to_datetime(["2024-02-29", None, "2024-03-01"]),
        }
    )
    answers = list(map_rows(frame, "Well?", engine.url, reorder="none"))
    assert [answer.row for answer in answers] == [0, 1, 2]
    assert engine.received.prompts == [
        'Well?\n{"film": "Heat", "year": 1995, "score": 1.5, "at": "2024-02-29T00:00:00"}',
        'Well?\n{"film": null, "year": null, "score": null, "at": null}',
        'Well?\n{"film": "Alien", "year": 1979, "score": 2.0, "at": "2024-03-01T00:00:00"}',
    ]


def test_arrow_tables_batches_and_streams_of_them_are_rows(engine: EngineDouble) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"film": ["Heat", None, "Alien"], "year": [1995, None, 1979]})
    expected = list(map_rows(table.to_pylist(), "Is {film} of {year} kind?", engine.url))
    for rows in (table, table.to_batches()[0], table.to_reader(), pa.concat_tables([table, table]).slice(0, 3)):
        assert list(map_rows(rows, "Is {film} of {year} kind?", engine.url)) == expected


def test_in_a_running_loop_it_says_what_to_use(engine: EngineDouble) -> None:
    async def ask() -> list[RowAnswer]:
        return list(map_rows([{"review": "good"}], "Is {review} kind?", engine.url))

    with pytest.raises(OptionError, match="where an asyncio loop runs") as caught:
        asyncio.run(ask())
    assert "map_rows_async" in (caught.value.hint or "")


def test_a_run_may_go_on_in_another_thread(engine: EngineDouble) -> None:
    """As where a web server reads each part of a response in whatever thread is free."""
    answers = map_rows(({"review": str(i)} for i in range(300)), "Is {review} kind?", engine.url)
    first = next(answers)
    rest: list[RowAnswer] = []
    thread = threading.Thread(target=lambda: rest.extend(answers))
    thread.start()
    thread.join()
    assert [answer.row for answer in (first, *rest)] == list(range(300))
