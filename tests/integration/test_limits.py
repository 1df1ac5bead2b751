"""What a server may be sent holds for all sessions together, and an engine that asks for patience gets it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import EXTENSIONS, Connect, create_server, is_ended
from tests.integration.test_faults import eventually

MULTICORN_IS_SLOW = True
KEEP_DATABASE = True

Conn = psycopg.Connection[Any]


def count_answers(connection: Conn, name: str, rows: int) -> int:
    query = f"SELECT ''{name}'' || i AS row FROM generate_series(1, {rows}) AS i"
    found = connection.execute(f"SELECT count(output) FROM llm.map('{query}', 'What of {{row}}?')").fetchone()
    assert found is not None
    return int(found[0])


def in_threads(works: Sequence[Callable[[], object]]) -> list[object]:
    """Run all at once; their results, or what the first that failed raised."""
    results: list[object] = [None] * len(works)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            results[number] = works[number]()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[number]) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


@pytest.mark.parametrize(("sessions", "places"), [(5, 6), pytest.param(60, 40, marks=pytest.mark.slow)])
def test_sessions_never_have_more_in_flight_than_the_server_says(
    db: Conn, connect: Connect, engine: EngineDouble, sessions: int, places: int
) -> None:
    create_server(db, engine.url, max_in_flight=str(places))
    engine.behaviour.delay_s = 0.01
    opened = [connect() for _ in range(sessions)]
    works = [partial(count_answers, connection, f"s{i}", 30) for i, connection in enumerate(opened)]
    assert in_threads(works) == [30] * sessions
    assert places // 2 <= engine.received.peak_prompts <= places


@pytest.mark.slow
def test_a_session_that_comes_late_gets_its_share_soon(db: Conn, connect: Connect, engine: EngineDouble) -> None:
    create_server(db, engine.url, max_in_flight="8")
    engine.behaviour.delay_s = 0.02
    early, late = connect(), connect()
    ended: list[str] = []

    def long() -> None:
        assert count_answers(early, "early", 800) == 800
        ended.append("early")

    def short() -> None:
        assert eventually(lambda: engine.received.answered > 50)
        assert count_answers(late, "late", 12) == 12
        ended.append("late")

    in_threads([long, short])
    assert ended == ["late", "early"]


def test_calls_inside_the_query_of_a_map_wait_for_no_place_that_this_holds(db: Conn, engine: EngineDouble) -> None:
    create_server(db, engine.url, max_in_flight="2")
    engine.behaviour.delay_s = 0.002
    db.execute("SET statement_timeout = '40s'")  # after a minute nobody counts what this does not look at
    query = "SELECT llm.complete(''inner'' || i) AS inner FROM generate_series(1, 30) AS i"
    found = db.execute(
        f"SELECT count(output) FROM (SELECT (llm.map('{query}', 'What of {{inner}}?')).*) AS m"
    ).fetchone()
    assert found == (30,)
    assert engine.received.peak_prompts <= 2


def test_requests_a_minute_hold_for_all_sessions(db: Conn, connect: Connect, engine: EngineDouble) -> None:
    create_server(db, engine.url, requests_per_minute="600")  # a bucket of thirty, then some ten a second
    opened = [connect() for _ in range(3)]

    def ask(connection: Conn, name: str) -> None:
        for i in range(15):
            connection.execute("SELECT llm.complete(%s)", [f"{name} {i}"])

    started_s = time.monotonic()
    in_threads([partial(ask, connection, f"s{i}") for i, connection in enumerate(opened)])
    assert time.monotonic() - started_s > 1.4
    assert len(engine.received.requests) == 45


def test_an_engine_that_asks_for_patience_kills_no_job(db: Conn, engine: EngineDouble) -> None:
    create_server(db, engine.url, max_retries="0")
    engine.behaviour.fail_first = 6
    engine.behaviour.fail_status = 429
    engine.behaviour.retry_after_s = 0.05
    assert count_answers(db, "patient", 40) == 40


def test_a_priority_goes_to_the_engine(db: Conn, engine: EngineDouble) -> None:
    create_server(db, engine.url)
    db.execute("SELECT llm.complete('a', priority => 7)")
    db.execute("SELECT llm.is_true('b', ROW(1), priority => -7)")
    db.execute("SELECT output FROM llm.map('SELECT 1 AS i', '{i}', priority => 0)")
    db.execute("SELECT llm.complete('c', priority => NULL)")
    assert [body.get("priority", "none") for body in engine.received.bodies] == [7, -7, 0, "none"]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="priority"):
        db.execute("SELECT llm.complete('a', priority => 2147483647)")
    engine.behaviour.refuse_fields = ["priority"]
    with pytest.raises(psycopg.errors.SystemError, match="takes no priority"):
        db.execute("SELECT llm.complete('d', priority => 1)")


def test_a_column_has_a_priority(foreign: Conn, engine: EngineDouble) -> None:
    foreign.execute("CREATE TABLE reviews AS SELECT i AS id, 'text ' || i AS review FROM generate_series(1, 3) AS i")
    foreign.execute(
        "CREATE FOREIGN TABLE judged (id integer, review text, "
        "mood text OPTIONS (prompt 'How is {review}?', priority '9')) "
        "SERVER vllm OPTIONS (source 'public.reviews')"
    )
    assert len(foreign.execute("SELECT mood FROM judged").fetchall()) == 3
    assert [body["priority"] for body in engine.received.bodies] == [9]


# -- in a cluster of its own: a backend that is killed takes the server with it, and a file is missed by everybody


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        running.psql(f"CREATE EXTENSION {EXTENSIONS['plpython']} CASCADE")
        yield running


def test_without_the_file_a_session_keeps_to_the_limits_by_itself(own_cluster: Cluster, engine: EngineDouble) -> None:
    engine.behaviour.delay_s = 0.002
    running = own_cluster.directory / "data/pg_bridge/running.db"
    for file in running.parent.glob("running.db*"):  # another test's
        file.unlink()
    running.mkdir(parents=True)
    running.parent.chmod(0o777)  # whoever runs the server can write there, but not that file
    try:
        with psycopg.connect(own_cluster.dsn, autocommit=True) as session:
            said: list[str] = []
            session.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
            create_server(session, engine.url, "lonely", max_in_flight="4")
            session.execute(
                "CREATE VIEW answers AS SELECT output FROM llm.map("
                "'SELECT i FROM generate_series(1, 30) AS i', '{i}', server => 'lonely')"
            )
            for _ in range(2):
                assert session.execute("SELECT count(output) FROM answers").fetchone() == (30,)
        assert len([message for message in said if "running.db" in message]) == 1
        assert engine.received.peak_prompts <= 4
    finally:
        running.rmdir()


def test_what_a_killed_backend_held_is_free(own_cluster: Cluster, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    other = psycopg.connect(own_cluster.dsn, autocommit=True)
    with psycopg.connect(own_cluster.dsn, autocommit=True) as victim:
        victim.execute("SET synchronous_commit = on")  # or the crash may take the server along
        create_server(victim, engine.url, max_in_flight="4")

        def run() -> None:
            with pytest.raises(psycopg.OperationalError):
                count_answers(victim, "lost", 50)

        thread = threading.Thread(target=run)
        thread.start()
        assert eventually(lambda: engine.received.prompts_in_flight == 4)
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        thread.join()
    engine.behaviour.hang = False
    assert eventually(lambda: is_ended(other))  # before that PostgreSQL takes connections, and ends them
    other.close()

    def reconnected() -> bool:
        try:
            psycopg.connect(own_cluster.dsn).close()
        except psycopg.OperationalError:
            return False
        return True

    assert eventually(reconnected)
    with psycopg.connect(own_cluster.dsn, autocommit=True) as heir:
        heir.execute("SET statement_timeout = '40s'")  # after a minute what was held would be free anyway
        assert count_answers(heir, "kept", 50) == 50
