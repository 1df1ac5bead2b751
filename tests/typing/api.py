"""The public names as a user sees them. mypy checks the types, `tests/unit/test_public_api.py` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, assert_type

import numpy as np
from numpy.typing import NDArray

from pg_bridge import (
    Engine,
    MapOptions,
    Ordering,
    PgBridgeError,
    RowAnswer,
    Server,
    Table,
    map_rows,
    map_rows_async,
    plan,
)


def order_a_table() -> Ordering:
    table = Table.from_cells(["film", "review"], [['"Heat"', '"Alien"', '"Heat"'], ['"good"', '"bad"', '"good"']])
    assert_type(table, Table)
    assert_type(table.rows, int)
    assert_type(table.columns, tuple[str, ...])
    assert_type(Table.from_json(['{"film": "Heat"}', None], ["film"]), Table)

    ordering = plan(table)
    assert_type(ordering, Ordering)
    assert_type(plan(table, reorder="rows"), Ordering)
    assert_type(ordering.row_order, NDArray[np.intp])
    assert_type(ordering.column_order, NDArray[np.int16])
    assert_type(ordering.hit_rate, float)
    assert_type(ordering.strategy, str)
    return ordering


def misuse(table: Table) -> None:
    """Only checked, never run: each line must be an error, or mypy says that its `ignore` is not used."""
    plan(table, reorder="columns")  # type: ignore[arg-type]
    plan(table, "rows")  # type: ignore[call-arg]
    Server("vllm")  # type: ignore[call-arg]
    Server("vllm", "http://engine", api="rest")  # type: ignore[arg-type]
    Engine("http://engine")  # type: ignore[arg-type]
    map_rows([{"a": 1}], "Well?", "http://engine", max_tokens="1")  # type: ignore[arg-type]
    map_rows([{"a": 1}], "Well?", "http://engine", server="vllm")  # type: ignore[misc]
    map_rows([1, 2], "Well?", "http://engine")  # type: ignore[list-item]


def name_a_server(endpoint: str) -> Server:
    server = Server("vllm", endpoint, max_in_flight=8)
    assert_type(server.endpoint, str)
    assert_type(server.model, str | None)
    assert_type(server.api, Literal["chat", "completions"])
    assert_type(server.request_timeout_s, float)
    assert_type(Server.from_options("vllm", {"endpoint": endpoint}), Server)
    return server


def ask_an_engine(server: Server, prompts: Iterator[str]) -> list[str | None]:
    from pg_bridge.engine import Completion, Sampling, Usage  # noqa: PLC0415 - what goes in and comes out of it

    engine = Engine(server)
    answers: list[str | None] = []
    for completion in engine.complete(prompts, Sampling(max_tokens=8, temperature=0.0, system_prompt="")):
        assert_type(completion, Completion)
        assert_type(completion.text, str | None)
        answers.append(completion.text)
    assert_type(engine.usage, Usage)
    return answers


def ask_about_rows(endpoint: str) -> list[str | None]:
    rows: list[dict[str, object]] = [{"film": "Heat", "year": 1995}, {"film": "Alien", "year": None}, {"film": "Heat"}]
    options: MapOptions = {"choices": ["yes", "no"], "max_requests": 10}
    answers: list[str | None] = []
    for answer in map_rows(rows, "Is {film} old?", Server("vllm", endpoint), ordered=False, **options):
        assert_type(answer, RowAnswer)
        assert_type(answer.row, int)
        assert_type(answer.error, str | None)
        answers.append(answer.output)
    return answers


async def ask_about_rows_later(endpoint: str) -> list[str | None]:
    rows = ({"film": film} for film in ("Heat", "Alien", "Heat"))
    answers = map_rows_async(rows, "Is {film} old?", endpoint, temperature=0.5, on_run=lambda run: run["rows"])
    return [answer.output async for answer in answers]


def say_what_went_wrong(endpoint: str) -> tuple[str, str, str]:
    try:
        ask_an_engine(name_a_server(endpoint), iter(["Hello"]))
    except PgBridgeError as error:
        assert_type(error.message, str)
        assert_type(error.hint, str)
        assert_type(error.sqlstate, str)
        return error.sqlstate, error.message, error.hint
    raise AssertionError("somebody answered")
