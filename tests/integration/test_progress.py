"""A running statement is seen from other sessions, by whom it may be seen, and by nobody once it is over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import EXTENSIONS, Connect, Database, MakeDatabase, create_server, is_ended
from tests.integration.test_faults import eventually
from tests.integration.test_map import Role

MULTICORN_IS_SLOW = True
KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

ROWS = 3000
SOURCE = f"SELECT i, 'text ' || i AS review FROM generate_series(1, {ROWS}) AS i"
TABLES = f"""
CREATE TABLE reviews AS {SOURCE};
CREATE FOREIGN TABLE insight (i int, review text, mood text OPTIONS (prompt 'How is {{review}}?'))
SERVER vllm OPTIONS (source 'public.reviews');
"""
WAYS = {
    "map": f"SELECT count(output) FROM llm.map('{SOURCE.replace(chr(39), chr(39) * 2)}', 'How is {{review}}?')",
    "batch": "SELECT count(llm.complete('How is {review}?', r)) FROM reviews AS r",
    "foreign": "SELECT count(mood) FROM insight",
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, host: str) -> str:
    if request.param == "batch" and host == "multicorn":
        pytest.skip("this host asks row by row")
    return str(request.param)


@pytest.fixture
def asker(foreign: Conn) -> Conn:
    """A superuser's session that can ask in all ways."""
    foreign.execute(TABLES)
    return foreign


@contextmanager
def running(conn: Conn, statement: str) -> Iterator[Callable[[], Any]]:
    """Run a statement in a thread; gives its result, or what it raised."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(conn.execute(statement.encode()).fetchone())
        except psycopg.Error as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join()
        return results[0]

    try:
        yield result
    finally:
        if thread.is_alive():
            conn.cancel_safe()
        thread.join()


def progress(conn: Conn, pid: int) -> dict[str, Any] | None:
    """What a session is told of another's statement."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("SELECT * FROM llm.progress() WHERE pid = %s", [pid]).fetchall()
    assert len(rows) <= 1
    return rows[0] if rows else None


def answered(conn: Conn, pid: int) -> Callable[[], bool]:
    """Whether some of a statement's questions are seen to be answered, and the others to be in flight."""

    def seen() -> bool:
        row = progress(conn, pid)
        return row is not None and row["answered"] > 0 and row["in_flight"] > 0

    return seen


def test_a_running_statement_is_seen_until_it_is_cancelled(
    asker: Conn, connect: Connect, engine: EngineDouble, way: str, host: str
) -> None:
    watching, pid = connect(), asker.info.backend_pid
    engine.behaviour.hang_after = 2
    with running(asker, WAYS[way]) as result:
        assert eventually(answered(watching, pid))
        row = progress(watching, pid)
        assert row is not None
        assert (row["role"], row["database"], row["server"]) == ("postgres", asker.info.dbname, "vllm")
        assert row["asked"] == row["answered"] + row["in_flight"]
        assert 0 < row["rows_read"] <= ROWS
        assert row["from_cache"] == 0
        assert row["prompt_tokens"] > row["completion_tokens"] > 0
        assert row["started"] is not None
        if way != "foreign":  # which reads in windows that grow
            assert row["rows_read"] >= row["asked"]
        asker.cancel_safe()
        assert "canceling statement" in str(result())
    assert progress(watching, pid) is None


@pytest.mark.some(1)
def test_a_running_statement_is_seen_until_it_is_done(
    asker: Conn, connect: Connect, engine: EngineDouble, way: str
) -> None:
    watching, pid = connect(), asker.info.backend_pid
    engine.behaviour.delay_s = 0.5
    asker.execute("BEGIN")
    with running(asker, WAYS[way]) as result:
        assert eventually(answered(watching, pid))
        engine.behaviour.delay_s = 0
        assert result() == (ROWS,)
    assert progress(watching, pid) is None  # the transaction goes on
    asker.execute("COMMIT")


@pytest.mark.parametrize("host", ["plpython"])
@pytest.mark.parametrize("way", ["map", pytest.param("batch", marks=pytest.mark.slow)])
def test_the_end_is_expected_where_all_rows_have_been_read(
    asker: Conn, connect: Connect, engine: EngineDouble, way: str, batching: Database
) -> None:
    watching, pid = connect(), asker.info.backend_pid
    engine.behaviour.delay_s = 2  # half a minute in all
    with running(asker, WAYS[way]) as result:
        assert eventually(lambda: (row := progress(watching, pid)) is not None and row["expected_end"] is not None)
        later = "SELECT expected_end > now(), rows_read FROM llm.progress() WHERE pid = %s"
        assert watching.execute(later, [pid]).fetchone() == (True, ROWS)
        engine.behaviour.delay_s = 0
        assert result() == (ROWS,)


def test_what_ends_with_a_savepoint_is_seen_no_more(asker: Conn, connect: Connect, engine: EngineDouble) -> None:
    watching, pid = connect(), asker.info.backend_pid
    engine.behaviour.delay_s = 0.3
    asker.execute("BEGIN; SAVEPOINT s")
    query = "SELECT i FROM generate_series(1, 9999) AS i"
    asker.execute(f"DECLARE c CURSOR FOR SELECT (llm.map('{query}', 'What is {{i}}?')).*".encode())
    assert eventually(lambda: asker.execute("FETCH 5 FROM c") and progress(watching, pid))
    asker.execute("ROLLBACK TO s")
    assert progress(watching, pid) is None
    asker.execute("ROLLBACK")


@pytest.fixture
def nobody(fresh: Conn, connect: Connect) -> Iterator[Conn]:
    """A role that may ask."""
    with Role(fresh, "nobody_23"):
        fresh.execute("GRANT USAGE ON FOREIGN SERVER vllm TO nobody_23")
        asking = connect(user="nobody_23")
        yield asking
        asking.close()


def test_roles_see_their_own_statements_and_those_who_read_all_statistics_all(
    fresh: Conn, nobody: Conn, connect: Connect, engine: EngineDouble, make_database: MakeDatabase, host: str
) -> None:
    engine.behaviour.hang_after = 1
    pid = nobody.info.backend_pid
    with Role(fresh, "looker_23"), make_database(host) as elsewhere, running(nobody, WAYS["map"]):
        own, other = connect(user="nobody_23"), connect(user="looker_23")
        assert eventually(lambda: progress(own, pid))
        assert progress(other, pid) is None
        assert progress(fresh, pid)  # a superuser
        with (
            closing(psycopg.connect(elsewhere.dsn, user="nobody_23", autocommit=True)) as own_elsewhere,
            closing(psycopg.connect(elsewhere.dsn, user="looker_23", autocommit=True)) as other_elsewhere,
        ):
            assert progress(own_elsewhere, pid) is None
            fresh.execute("GRANT pg_read_all_stats TO looker_23")
            for looking in (other, other_elsewhere):
                row = progress(looking, pid)
                assert row is not None
                assert (row["role"], row["database"]) == ("nobody_23", fresh.info.dbname)
        # What a role is shown depends on the role that is current, whoever began the session.
        fresh.execute("REVOKE pg_read_all_stats FROM looker_23")
        assert progress(other, pid) is None
        fresh.execute("SET ROLE looker_23")
        assert progress(fresh, pid) is None
        fresh.execute("SET ROLE nobody_23")
        assert progress(fresh, pid)
        fresh.execute("RESET ROLE")
        own.close()
        other.close()


def test_a_forged_request_shows_no_more(fresh: Conn, nobody: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.hang_after = 1
    pid = fresh.info.backend_pid
    with running(fresh, WAYS["map"]):
        watching = connect()
        assert eventually(lambda: progress(watching, pid))
        forged = """'{"do": "progress", "role": null, "database": null, "all": true}'"""
        assert nobody.execute(f"SELECT llm._ledger({forged})").fetchone() == ([],)


# -- the end of a backend, which PostgreSQL answers by ending all of them


@pytest.mark.slow
def test_a_backend_that_is_killed_is_seen_no_more(host: str, make_template: Callable[[str, str], str]) -> None:
    make_template(host, "public")  # skips where the server has no Multicorn2
    with Cluster() as cluster, EngineDouble(hang_after=2) as engine:
        database = Database(host, "postgres", cluster)
        database.psql(f"CREATE EXTENSION {EXTENSIONS[host]} CASCADE")
        asking = psycopg.connect(database.dsn, autocommit=True)
        create_server(asking, engine.url)
        pid = asking.info.backend_pid
        watching = psycopg.connect(database.dsn, autocommit=True)
        with running(asking, WAYS["map"]) as result, closing(watching):
            assert eventually(answered(watching, pid))
            os.kill(pid, signal.SIGKILL)
            assert isinstance(result(), psycopg.OperationalError)
            assert eventually(lambda: is_ended(watching))  # by now PostgreSQL knows of it
        asking.close()
        assert eventually(lambda: is_up(database))
        with closing(psycopg.connect(database.dsn, autocommit=True)) as watching:
            assert watching.execute("SELECT count(*) FROM llm.progress()").fetchone() == (0,)
            engine.behaviour.hang = False
            engine.behaviour.delay_s = 0.5
            with running(watching, WAYS["map"]), closing(psycopg.connect(database.dsn, autocommit=True)) as other:
                assert eventually(answered(other, watching.info.backend_pid))
                assert other.execute("SELECT count(*) FROM llm.progress()").fetchone() == (1,)
                engine.behaviour.delay_s = 0


def is_up(database: Database) -> bool:
    try:
        psycopg.connect(database.dsn).close()
    except psycopg.OperationalError:
        return False
    return True


# -- what it waits for


def test_the_wait_for_the_engine_is_a_wait_event(
    asker: Conn, connect: Connect, engine: EngineDouble, way: str, database: Database
) -> None:
    watching, pid = connect(), asker.info.backend_pid
    has_name = database.cluster.has_module and watching.info.server_version >= 170000
    name = "PgBridgeEngine" if has_name else "Extension"

    def waits() -> bool:
        event = "SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = %s"
        return watching.execute(event, [pid]).fetchone() == ("Extension", name)

    engine.behaviour.hang_after = 1
    with running(asker, WAYS[way]) as result:
        assert eventually(waits)
        asker.cancel_safe()
        assert "canceling statement" in str(result())
    assert not waits()


def test_the_wait_is_over_when_the_answers_are_there(asker: Conn) -> None:
    statement = (
        f"SELECT m.count, a.wait_event FROM ({WAYS['map']}) AS m CROSS JOIN LATERAL "
        "(SELECT wait_event FROM pg_stat_activity WHERE pid = pg_backend_pid() AND m.count > 0 OFFSET 0) AS a"
    )
    assert asker.execute(statement.encode()).fetchone() == (ROWS, None)
