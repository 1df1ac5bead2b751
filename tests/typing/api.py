"""The public names as a user sees them. mypy checks the types, `tests/unit/test_public_api.py` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, assert_type

import numpy as np
from numpy.typing import NDArray

from pg_bridge import Engine, Ordering, PgBridgeError, Server, Table, plan


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


def say_what_went_wrong(endpoint: str) -> tuple[str, str, str]:
    try:
        ask_an_engine(name_a_server(endpoint), iter(["Hello"]))
    except PgBridgeError as error:
        assert_type(error.message, str)
        assert_type(error.hint, str)
        assert_type(error.sqlstate, str)
        return error.sqlstate, error.message, error.hint
    raise AssertionError("somebody answered")
