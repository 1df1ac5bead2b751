"""Jobs that share out one query's rows: each row is of one part, whatever its key's type and a session's settings."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pg_bridge.cli import main
from pg_bridge.errors import JobRunning, KeyFault, OptionError
from pg_bridge.jobs.database import Database
from pg_bridge.jobs.query import QueryReading
from pg_bridge.jobs.record import JobRecord, Part
from pg_bridge.jobs.table import TableWriting
from pg_bridge.options import Server
from tests.integration.test_jobs_map import until
from tests.integration.test_jobs_worker import Shop, schema, shop

__all__ = ["schema", "shop"]  # fixtures

EXTENSION_IS_SLOW = True

ROWS = "SELECT id, review FROM reviews"


@pytest.fixture
def database(cluster: Any) -> Any:
    with contextlib.closing(Database(cluster.dsn_of("postgres"))) as database:
        database.connect()
        yield database


def keys_of(database: Database, query: str, key: str, part: Part) -> list[tuple[str, ...]]:
    reading = QueryReading(database, query, [key], part=part)
    reading.open()
    reading.begin([key], b"")
    return [item.key for page in iter(reading.fetch, []) for item in page]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT i AS k, i / 3 AS g FROM generate_series(1, 60) AS i",
        "SELECT 'key ' || i AS k, NULLIF(i % 7, 3) AS g FROM generate_series(1, 60) AS i",
        "SELECT timestamptz '2026-11-28 12:00:01.5Z' + i * interval '1 hour' AS k, '{}'::text[] AS g"
        " FROM generate_series(1, 60) AS i",
    ],
)
def test_each_row_is_of_one_part(database: Database, query: str) -> None:
    if database.run(lambda connection: connection.info.server_version) < 140_000:
        pytest.skip("parts are from PostgreSQL 14 on")
    whole = keys_of(database, query, "k", Part())
    for by in ((), ("k",), ("g",)):
        parts = [keys_of(database, query, "k", Part(i, 4, by)) for i in (1, 2, 3, 4)]
        assert sorted(key for part in parts for key in part) == sorted(whole)
        assert all(parts) or by == ("g",)


def test_what_equals_is_of_one_part_however_it_is_written(database: Database) -> None:
    query = "SELECT i * {} AS k FROM generate_series(1, 50) AS i"
    for number in (1, 2):
        parts = [keys_of(database, query.format(factor), "k", Part(number, 2)) for factor in ("1.0", "1.00")]
        short, long = ([float(k) for (k,) in part] for part in parts)
        assert short == long != []


def test_two_rows_of_one_key_are_found_though_they_are_of_two_parts(database: Database) -> None:
    with pytest.raises(KeyFault, match="two rows of the query have the same key"):
        keys_of(database, "SELECT 1 AS k, i AS g FROM generate_series(1, 9) AS i", "k", Part(1, 3, ("g",)))


@pytest.mark.parametrize("part", [(0, 1, ()), (3, 2, ()), (1, 1001, ()), (1, 1, ("g",))])
def test_there_is_no_such_part(part: tuple[int, int, tuple[str, ...]]) -> None:
    with pytest.raises(OptionError):
        Part(*part)


def test_parts_are_written_beside_each_other_and_never_twice(shop: Shop) -> None:
    shop.conn.execute("CREATE TABLE kinds (id int PRIMARY KEY, answer text, model text, digest text,"
                      " answered_at timestamptz, error text)")  # fmt: skip
    with contextlib.ExitStack() as stack:

        def write(part: Part) -> None:
            database = stack.enter_context(contextlib.closing(Database(make_conninfo(shop.dsn, user="ana"))))
            database.connect()
            job = JobRecord(ROWS, "p", "kinds", ("id",), part=part)
            TableWriting(database, job, (), None, lock_within_s=0.0).open()

        write(Part(1, 3))
        write(Part(3, 3))
        for taken in (Part(3, 3), Part()):
            with pytest.raises(JobRunning):
                write(taken)
        write(Part(2, 3))


def test_workers_share_out_a_query(shop: Shop) -> None:
    shop.engine.behaviour.delay_s = 0.02
    shop.conn.execute("UPDATE reviews SET review = 'review ' || id % 30")  # ten rows each
    jobs = [shop.submit(part=str(i), parts="3", part_by="'review'") for i in (1, 2, 3)]
    slow = {"vllm": Server("vllm", shop.engine.url, max_in_flight=1)}  # so that another worker comes to the next part
    with shop.working(engines=slow), shop.working(engines=slow):
        until(lambda: {shop.state(job) for job in jobs} == {"done"})
    shop.assert_all_right()
    assert len(shop.engine.received.prompts) == 30  # none of them in two parts
    told = [shop.job(job, "part", "parts", "rows", "answered", "worker") for job in jobs]
    assert [row[:2] for row in told] == [(1, 3), (2, 3), (3, 3)]
    assert sum(row[3] for row in told) == 300
    assert len({row[4] for row in told}) == 2
    assert shop.work() == 0


def test_parts_of_another_division_wait(shop: Shop) -> None:
    jobs = [shop.submit(part="1", parts=parts) for parts in ("2", "3")]
    with shop.working(), shop.working():
        until(lambda: {shop.state(job) for job in jobs} == {"done"})
    assert shop.one("SELECT count(*) = count(answer) FROM review_kind") is True


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("part => 3, parts => 2", "there is no part 3 of 2"),
        ("part => 0", "there is no part 0 of 1"),
        ("part => NULL", "there is no part NULL of 1"),
        ("parts => 1001", "there is no part 1 of 1001"),
        ("part_by => 'review'", "part_by names no columns, or there are no parts"),
        ("parts => 2, part_by => 'a,,b'", "part_by names no columns, or there are no parts"),
    ],
)
@pytest.mark.some(3)
def test_parts_that_make_no_sense_are_not_submitted(shop: Shop, arguments: str, says: str) -> None:
    with pytest.raises(psycopg.Error, match=says):
        shop.one(f"SELECT llm.submit('q', 'p', 't', 'id', {arguments})")


def test_a_part_that_submit_would_not_write_fails_alone(shop: Shop) -> None:
    columns = "(query, prompt, target, key, search_path, part, parts, part_by)"
    rows = "('q', 'p', 't', '{id}', '', 7, -3, '{}'), ('TABLE reviews', 'p', 't', '{id}', 'public', 1, 2, '{NULL}')"
    shop.rows(f"INSERT INTO llm._job {columns} VALUES {rows} RETURNING id")
    assert shop.work() == 0
    told = shop.rows("SELECT state, error FROM llm.jobs ORDER BY id")
    assert told == [("failed", "there is no part 7 of -3"), ("failed", 'the query has no column "None"')]


def test_the_command_takes_parts(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PG_BRIDGE_DSN", make_conninfo(shop.dsn, user="ana"))
    monkeypatch.setenv("PG_BRIDGE_ENDPOINT", shop.engine.url)

    def run(part: str, *more: str) -> int:
        words = ["map", "--query", ROWS, "--key", "id", "--prompt", "Is {review} kind?", "--choices", "yes,no"]
        return main([*words, "--into", "review_kind", "--quiet", "--part", part, *more])

    assert (run("1/2"), run("2/2", "--part-by", "review")) == (0, 0)
    assert run("2/2") == 0
    shop.assert_all_right()
    assert run("1/2", "--part-by", "colour") == 2
    assert 'no column "colour"' in capsys.readouterr().err
    assert run("1/2", "--into", "kinds.csv") == 2
    assert "parts are of a query" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["point(i, 1)", "'<a/>'::xml", "array[point(i, 1)]"])
def test_what_has_no_hash_is_told_before_a_row_is_read(database: Database, by: str) -> None:
    query = f"SELECT i AS k, {by} AS g FROM generate_series(1, 0) AS i"
    with pytest.raises(OptionError, match=r'parted by column "g": type .* has no hash'):
        keys_of(database, query, "k", Part(1, 3, ("g",)))
    assert keys_of(database, query, "k", Part(1, 3)) == []


def test_a_key_that_a_collation_folds_is_not_parted(shop: Shop) -> None:
    """`Heat` and `heat` could be of two parts, and one would take the other's place in the table."""
    shop.conn.execute(
        "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        "CREATE TABLE kinds (title text COLLATE folding PRIMARY KEY, answer text, model text, digest text,"
        " answered_at timestamptz, error text); GRANT ALL ON kinds TO ana"
    )
    with contextlib.closing(Database(make_conninfo(shop.dsn, user="ana"))) as database:
        database.connect()
        job = JobRecord("SELECT 'Heat' AS title", "p", "kinds", ("title",), part=Part(1, 2))
        with pytest.raises(KeyFault, match="holds different texts for equal") as caught:
            TableWriting(database, job, (), None).open()
        assert caught.value.sqlstate == "0A000"
