"""What estimates remember of an engine: its figures of the last day on which it answered."""

from __future__ import annotations

import sqlite3

import pytest

from pg_bridge.asking.seen import Seen
from pg_bridge.ledger import usage
from pg_bridge.ledger.usage import Figures


def test_the_last_day_with_answers_counts_and_only_the_own() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(usage.SCHEMA)
    for day, role, server, model, questions, failures in (
        ("2026-11-01", 10, "s", "m", 4, 0),
        ("2026-11-02", 10, "s", "m", 10, 1),
        ("2026-11-02", 10, "s", "other", 100, 0),
        ("2026-11-03", 10, "s", "m", 5, 5),  # nothing was answered
        ("2026-11-04", 11, "s", "m", 7, 0),
        ("2026-11-04", 10, "t", "m", 8, 0),
    ):
        more = Figures(questions=questions, failures=failures, prompt_tokens=100 * questions, seconds=questions / 2)
        usage.add(connection, day, "d", role, server, model, more)
    assert usage.latest(connection, "d", 10, "s", "m").questions == 10
    assert usage.latest(connection, "d", 10, "s").questions == 110
    assert usage.latest(connection, "d", 10, "t").questions == 8
    assert usage.latest(connection, "d", 12, "s") == usage.latest(connection, "other", 10, "s") == Figures()
    connection.close()


def test_speed() -> None:
    assert Seen().seconds_for(0) == 0.0
    assert Seen().seconds_for(10) is None
    assert Seen(computed_tokens=100, seconds=2.0).seconds_for(1000) == pytest.approx(20)
