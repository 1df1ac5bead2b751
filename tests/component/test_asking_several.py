"""Several questions about many rows, over a real engine's face: what fails is looked up once, however much it is."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from pg_bridge.asking import several, together
from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.several import ask_several
from pg_bridge.engine import Engine
from pg_bridge.options import Call, Server
from pg_bridge.rows.table import Table
from pg_bridge.testing.double import EngineDouble

ROWS = 300


def test_failures_are_looked_up_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[int] = []

    def counting(memory: Memory, asks: Sequence[Ask], table: Table) -> list[str | None]:
        looked_up.append(table.rows)
        return together.find_failed(memory, asks, table)

    monkeypatch.setattr(several, "find_failed", counting)
    texts: list[str | None] = [json.dumps({"i": i}) for i in range(ROWS)]
    rows = iter([texts, []])
    call = Call.from_arguments({"kind": "boolean", "on_error": "null"})
    asks = {"a": Ask("Is {i}?", call), "b": Ask("Was {i}?", call)}
    with EngineDouble(answer=lambda _: "perhaps", ignore_choices=True) as double:
        server = Server(name="vllm", endpoint=double.url, model="double")
        memory = Memory()
        found = list(ask_several(lambda _: next(rows), ["i"], asks, lambda: Engine(server), memory, every_row=True))
    assert len(found) == ROWS
    assert all(answer.error is not None for answer in found)
    assert len({failure.question for failure in memory.run.failures.latest}) == 2 * ROWS
    assert len(looked_up) == len(asks)
