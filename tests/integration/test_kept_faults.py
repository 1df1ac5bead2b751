"""Kept columns whose worker, engine or database dies: nothing is lost, and what has its answer is not asked again."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.keeping import Shop, keeping, on_rented, opened, schema, shop, until, worker_of

EXTENSION_IS_SLOW = True

__all__ = ["schema", "shop"]  # fixtures

ROWS = 300
BUSY = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg-bridge worker' AND state <> 'idle'"


def many_rows(shop: Shop) -> None:
    """Rows that take a worker some seconds: so many in each window, one after the other."""
    shop.conn.execute("TRUNCATE reviews")
    shop.conn.execute(f"INSERT INTO reviews SELECT i, 'review ' || i, 1 FROM generate_series(1, {ROWS}) AS i")
    shop.engine.behaviour.delay_s = 0.1
    shop.keep_kind(window_rows="20")


def answered(shop: Shop) -> set[str]:
    rows = shop.rows(
        "SELECT review FROM reviews JOIN reviews_kind USING (id) WHERE kind IS NOT NULL "
        f"AND id NOT IN (SELECT id FROM llm_keep_{shop.number}_changes WHERE id IS NOT NULL)"
    )
    return {row[0] for row in rows}


def asked(shop: Shop) -> set[str]:
    """The reviews that the engine was asked about since it was last reset."""
    return {prompt.rsplit('"', 2)[1] for prompt in shop.engine.received.prompts}


@contextmanager
def nothing_asked_again(shop: Shop) -> Iterator[None]:
    """Whatever has an answer before is not asked about."""
    had = answered(shop)
    shop.engine.reset()
    yield
    assert asked(shop) & had == set()


def test_a_worker_that_is_killed_loses_what_was_in_flight(shop: Shop) -> None:
    many_rows(shop)
    moments = random.Random(27)
    for _ in range(3):
        with nothing_asked_again(shop), worker_of(shop) as worker:
            enough = moments.randrange(1, 100)
            until(lambda enough=enough: len(shop.engine.received.prompts) >= enough)  # type: ignore[misc]
            worker.send_signal(signal.SIGKILL)
        shop.conn.execute("UPDATE reviews SET review = review || '.' WHERE id % 50 = 7")
        shop.conn.execute(f"INSERT INTO reviews VALUES ({moments.randrange(ROWS, 10**9)}, 'new {moments.random()}')")
        shop.conn.execute(f"DELETE FROM reviews WHERE id = {moments.randrange(ROWS)}")
        until(lambda: shop.one(BUSY) == 0)
    shop.engine.behaviour.delay_s = 0.0
    with nothing_asked_again(shop):
        shop.work()
    shop.assert_all_right()
    assert shop.state("waiting") == (0,)


@pytest.mark.slow
@on_rented
def test_notes_outlive_a_worker_that_is_killed(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    shop.conn.execute("UPDATE reviews SET review = 'changed ' || id WHERE id <= 20")
    shop.engine.reset()
    shop.engine.behaviour.hang = True
    with worker_of(shop) as worker:
        until(lambda: shop.engine.received.prompts)
        worker.send_signal(signal.SIGKILL)
    shop.engine.behaviour.hang = False
    assert len(shop.noted()) == 20
    until(lambda: shop.work() == 20)
    shop.assert_all_right()


@pytest.mark.slow
@on_rented
def test_an_engine_that_nobody_listens_for_costs_no_note(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    shop.conn.execute("UPDATE reviews SET review = 'changed ' || id WHERE id <= 20")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        with keeping(
            shop.dsn, shop.schema, shop.engine, shop.said, f"http://127.0.0.1:{taken.getsockname()[1]}"
        ) as other:
            assert not other.work()
    assert len(shop.noted()) == 20
    assert "connection refused" in shop.state("trouble")[0]
    assert shop.work() == 20
    assert shop.state("trouble") == (None,)
    shop.assert_all_right()


@pytest.mark.slow
def test_a_database_that_crashes_loses_no_change(engine: EngineDouble) -> None:
    """The worker lives on: what it has in mind as answered must be there. Tests' servers commit asynchronously."""
    with Cluster() as cluster:

        def administer(statement: str) -> None:
            cluster.psql(statement)

        with opened(cluster, administer, engine, "llm_jobs") as shop:
            many_rows(shop)
            shop.engine.reset()
            with worker_of(shop) as worker:
                until(lambda: len(answered(shop)) > 20)
                shop.conn.execute("UPDATE reviews SET review = 'changed ' || id WHERE id % 50 = 7")
                crash(shop)
                with psycopg.connect(shop.dsn, user="ana", autocommit=True) as shop.conn:
                    had = answered(shop)
                    shop.engine.reset()
                    shop.conn.execute("UPDATE reviews SET review = 'changed again ' || id WHERE id % 50 = 7")
                    shop.engine.behaviour.delay_s = 0.0
                    until(lambda: shop.state("waiting") == (0,))
                    shop.assert_all_right()
                    assert asked(shop) & had == set()
                worker.send_signal(signal.SIGTERM)
                _, said = worker.communicate(timeout=60)
            assert worker.returncode == 0, said


def crash(shop: Shop) -> None:
    """Kill a backend, so that the server ends all sessions and recovers; until it takes new ones."""
    os.kill(shop.admin.info.backend_pid, signal.SIGKILL)
    until(lambda: is_gone(shop.conn))
    shop.conn.close()
    until(lambda: is_back(shop.dsn))


def is_gone(conn: psycopg.Connection[Any]) -> bool:
    try:
        conn.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def is_back(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True
