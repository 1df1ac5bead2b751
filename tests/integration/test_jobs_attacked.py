"""Jobs in the hands of somebody who means harm: to a worker, to other roles, to what they are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pg_bridge.cli.worker import install
from pg_bridge.jobs import queue, worker
from pg_bridge.jobs.database import Database
from pg_bridge.jobs.query import PAGE_CHARS, QueryReading
from tests.conftest import create_server
from tests.integration.test_jobs_map import until
from tests.integration.test_jobs_worker import Shop, bob, on_rented, schema, shop, with_extension
from tests.traps import set_traps

__all__ = ["bob", "schema", "shop"]  # fixtures

EXTENSION_IS_SLOW = True


@contextmanager
def another_database(shop: Shop, *settings: str, encoding: str = "UTF8") -> Iterator[Shop]:
    """The same shop in a database that is set otherwise."""
    name = f"{shop.admin.info.dbname}_other"
    dsn = make_conninfo(shop.dsn, dbname=name)
    how = f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    shop.admin.execute(f"CREATE DATABASE {name} OWNER boss {how}".encode())
    try:
        for setting in settings:
            shop.admin.execute(f"ALTER DATABASE {name} SET {setting}".encode())
        with psycopg.connect(dsn, user="boss", autocommit=True, cursor_factory=psycopg.RawCursor) as boss:
            install(boss)
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("GRANT CREATE ON SCHEMA public TO ana")
            with psycopg.connect(dsn, user="ana", autocommit=True) as ana:
                yield replace(shop, conn=ana, admin=admin, schema="llm_jobs", dsn=dsn)
    finally:
        shop.admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@on_rented
def test_operators_that_others_made_are_not_a_jobs(shop: Shop, bob: psycopg.Connection[Any]) -> None:
    """Who may create in a schema of somebody's path has nothing run as them by what a worker adds to a query."""
    set_traps(bob)
    with pytest.raises(psycopg.Error, match="trapped as ana"):
        shop.rows("SELECT 'a'::varchar = 'a'::varchar")
    shop.conn.execute("CREATE TABLE named (name varchar, place int, review text, PRIMARY KEY (name, place))")
    shop.conn.execute("INSERT INTO named SELECT i, i, 'review ' || i FROM generate_series(1, 3000) AS i")
    shop.conn.execute("ANALYZE named")
    for asked in (3000, 0):  # the second one finds what is known
        job = shop.one(
            "SELECT llm.submit('SELECT name, place, review FROM named', 'Is {review} kind?', 'kinds', 'name, place')"
        )
        assert shop.work() == asked, shop.job(job, "error")
        assert shop.state(job) == "done", shop.job(job, "error")


@on_rented
@pytest.mark.parametrize(
    ("encoding", "character", "fails"),
    [("SQL_ASCII", "convert_from('\\xe9', 'SQL_ASCII')", True), ("LATIN1", "chr(233)", False)],
)
def test_a_job_that_no_connection_can_carry_stops_no_other(
    shop: Shop, encoding: str, character: str, *, fails: bool
) -> None:
    """A database takes bytes that are nothing in UTF-8, and not every character that our own words have."""
    with another_database(shop, encoding=encoding) as shop:  # noqa: PLR1704 - from here on it is this one
        job = f"SELECT llm.submit('SELECT 1 AS id, ''x'' AS review', 'Is {{review}} kind?' || {character}, 'one', 'id')"
        shop.rows(job)
        shop.admin.execute(f"REVOKE TEMPORARY ON DATABASE {shop.admin.info.dbname} FROM PUBLIC".encode())
        shop.submit("SELECT 2 AS id, 'x' AS review", into="two")  # the error's hint has an ellipsis
        assert shop.work() == 0
        shop.admin.execute(f"GRANT TEMPORARY ON DATABASE {shop.admin.info.dbname} TO PUBLIC".encode())
        shop.rows(job)
        shop.submit("SELECT 3 AS id, 'x' AS review", into="three")
        assert shop.work() == (1 if fails else 2)
        found = shop.rows("SELECT state::bytea FROM llm.jobs ORDER BY id")
        assert found == [(b"failed",), (b"failed",), (b"failed" if fails else b"done",), (b"done",)]


@on_rented
def test_keys_are_what_they_were_however_the_database_prints_them(shop: Shop) -> None:
    settings = ("extra_float_digits = 0", "datestyle = 'SQL, DMY'", "timezone = 'Asia/Kolkata'")
    with another_database(shop, *settings) as shop:  # noqa: PLR1704 - from here on it is this one
        shop.conn.execute("CREATE TABLE reviews (share float8, at timestamptz, review text, PRIMARY KEY (share, at))")
        shop.conn.execute(
            "INSERT INTO reviews SELECT i / 7.0, '2020-01-01'::timestamptz + i * interval '1 hour', 'review ' || i "
            "FROM generate_series(1, 1200) AS i"
        )
        shop.conn.execute("ANALYZE reviews")
        job = shop.one("SELECT llm.submit('TABLE reviews', 'Is {review} kind?', 'kinds', 'share, at')")
        assert shop.work() == 1200, shop.job(job, "error")
        assert shop.one("SELECT count(*) FROM reviews JOIN kinds USING (share, at)") == 1200


BACKSLASHES = ("standard_conforming_strings = off", "escape_string_warning = off")
SHELVES = "CREATE TABLE shelves (titles int, id int, reviews text, PRIMARY KEY (titles, id))"


@on_rented
def test_names_are_whole_where_backslashes_escape(shop: Shop) -> None:
    """There `\\s` in one of our patterns is an s, and would be cut off from the names that end with one."""
    with another_database(shop, *BACKSLASHES) as shop:  # noqa: PLR1704 - from here on it is this one
        shop.conn.execute(SHELVES)
        shop.rows("SELECT llm.submit('TABLE shelves', 'Is {reviews} kind?', 'kinds', 'titles , id')")
        shop.rows("SELECT llm.keep('shelves', 'titles , id', 'kind', 'Is {reviews} kind, {{really}}?')")
        assert shop.rows("SELECT key FROM llm._job UNION ALL SELECT key FROM llm._kept") == [(["titles", "id"],)] * 2


@with_extension
def test_a_query_is_whole_where_backslashes_escape(shop: Shop) -> None:
    with another_database(shop, *BACKSLASHES) as shop:  # noqa: PLR1704 - from here on it is this one
        shop.admin.execute("CREATE EXTENSION pg_bridge CASCADE")
        create_server(shop.admin, "http://localhost:8000")
        with pytest.raises(psycopg.Error, match="invalid value"):
            shop.admin.execute("ALTER SERVER vllm OPTIONS (SET endpoint 'http://localhost :8000')")
        shop.admin.execute(f"ALTER SERVER vllm OPTIONS (SET endpoint '{shop.engine.url}')".encode())
        shop.admin.execute(f"{SHELVES}; INSERT INTO shelves VALUES (1, 1, 'fine')")
        query = "'SELECT reviews FROM shelves ; '"
        for call in ("map({}, 'Is {{reviews}} kind?')", """map({}, prompts => '{{"a": "Is {{reviews}} kind?"}}')"""):
            asked = f"SELECT input FROM llm.{call.format(query)}"
            assert shop.admin.execute(asked.encode()).fetchall() == [({"reviews": "fine"},)]
        estimated = "SELECT rows FROM llm.estimate('TABLE shelves ; ', prompts => '{\"a\": \"Is {reviews} kind?\"}')"
        assert shop.admin.execute(estimated.encode()).fetchall() == [(1,)]
        ranked = "SELECT count(*) FROM llm.rank('SELECT reviews FROM shelves ; ', 'Which is the kindest?', 1)"
        assert shop.admin.execute(ranked.encode()).fetchall() == [(1,)]


@on_rented
def test_a_job_that_kills_its_workers_comes_to_an_end_and_lets_others_pass(shop: Shop) -> None:
    deadly, other = shop.submit(into="one"), shop.submit(into="two")
    taken = []
    with closing(Database(make_conninfo(shop.dsn, user="worker_of_ana"), session=queue.SESSION)) as database:
        jobs = queue.Queue(database, shop.schema, "a worker")
        for _ in range(queue.MOST_TRIES + 1):
            job = jobs.take(jobs.submitters())
            assert job is not None
            taken.append(job.id)
            if job.id == other:
                jobs.end(job, "done")
            shop.conn.execute(f"UPDATE llm_jobs._job SET beat_at = '-infinity' WHERE id = {deadly}".encode())
    assert taken[:4] == [deadly, deadly, other, deadly]
    assert taken.count(deadly) == queue.MOST_TRIES
    assert shop.work() == 0
    assert shop.job(deadly, "state", "error") == ("failed", "20 tries were in vain; workers that did it died")


@on_rented
def test_rows_that_are_large_come_a_few_at_a_time(shop: Shop) -> None:
    shop.conn.execute(
        "CREATE TABLE large AS SELECT i AS id, repeat('x', 1000000) AS text FROM generate_series(1, 60) AS i"
    )
    with closing(Database(make_conninfo(shop.dsn, user="ana"))) as database:
        reading = QueryReading(database, "TABLE large", ["id"])
        reading.open()
        reading.begin(["text"], b"")
        pages = []
        while page := reading.fetch():
            pages.append(len(page))
    assert sum(pages) == 60
    assert max(pages) * 1_000_000 <= 3 * PAGE_CHARS


@on_rented
def test_a_long_job_holds_up_no_notices(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile nobody reads what a session has to tell that listens, and the server keeps it for that session."""
    monkeypatch.setattr(worker, "DEAF_AFTER_S", 0.0)
    listening: list[int] = []
    first, second = shop.submit(into="one"), shop.submit(into="two")
    with shop.working() as working:

        def answer(prompt: str) -> str:
            until(lambda: not shop.rows(f"SELECT FROM pg_stat_activity WHERE pid = {working._database.pids[0]}"))
            listening.append(len(working._database.pids))
            return "yes"

        shop.engine.behaviour.answer = answer
        until(lambda: shop.state(first) == "done")
        assert set(listening) == {1}
        until(lambda: shop.state(second) == "done")
        third = shop.submit(into="three")
        until(lambda: shop.state(third) == "done")
