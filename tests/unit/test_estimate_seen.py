"""What estimates remember of an engine: its figures of the last day on which it answered."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from pg_bridge.asking.seen import TELLING_ANSWERS, Seen, speed_shown
from pg_bridge.engine import Usage
from pg_bridge.ledger import speed, usage
from pg_bridge.ledger.speed import Speed
from pg_bridge.ledger.usage import Figures


def test_the_last_day_with_answers_counts_and_only_the_own() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(usage.SCHEMA)
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


def test_the_latest_day_of_each_engine_tells_how_fast_it_is() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(speed.SCHEMA)
    one = speed.Engine("d", 10, "s", "http://one", "m")
    others = (one._replace(role=11), one._replace(endpoint="http://two"), one._replace(model=""))
    for day, engine, more in (
        ("2026-11-01", one, Speed(100, 5.0)),
        ("2026-11-02", one, Speed(30, 1.0)),
        ("2026-11-02", one, Speed(40, 2.0)),
        *(("2026-11-03", other, Speed(7, 7.0)) for other in others),
    ):
        speed.add(connection, engine, day, more)
    assert speed.seen(connection, one) == Speed(70, 3.0)
    assert speed.seen(connection, one._replace(server="t")) == Speed()
    speed.forget(connection, "other")
    assert speed.seen(connection, one) == Speed(70, 3.0)
    speed.forget(connection, "d")
    assert speed.seen(connection, one) == Speed()
    connection.close()


def test_runs_of_many_answers_with_all_their_tokens_tell_the_speed() -> None:
    many = Usage(answered=TELLING_ANSWERS, prompt_tokens=1000, cached_tokens=400, wait_s=2.0)
    assert speed_shown(many) == Speed(600, 2.0)
    for less in (
        replace(many, answered=TELLING_ANSWERS - 1),
        replace(many, prompt_tokens=None),
        replace(many, prompt_tokens=0),
        replace(many, cached_tokens=None),
    ):
        assert speed_shown(less) is None


def test_speed() -> None:
    assert Seen().seconds_for(0) == 0.0
    assert Seen().seconds_for(10) is None
    assert Seen(computed_tokens=100, seconds=2.0).seconds_for(1000) == pytest.approx(20)
