"""`llm.submit` and `pg-bridge worker`: with the extension and without, as ordinary roles, with an engine double."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from benchmarks import job_faults
from pg_bridge.cli import main
from pg_bridge.cli.worker import install
from pg_bridge.jobs import queue, running, worker
from pg_bridge.jobs.database import Database
from pg_bridge.jobs.engines import Engines
from pg_bridge.jobs.queue import Queue
from pg_bridge.jobs.running import Stopped
from pg_bridge.jobs.worker import Worker
from pg_bridge.options import Server
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.cut_connections import Proxy
from pg_bridge.testing.double import EngineDouble
from tests.integration.test_jobs_map import WITHIN_S, kind_of, until

EXTENSION_IS_SLOW = True

PROMPT = "Is {review} kind?"
ROLES = ("ana", "bob", "boss", "worker_of_ana NOINHERIT", "worker_of_both NOINHERIT")
_numbers = count(1)


@dataclass
class Shop:
    """A database in which `ana` submits and others work.

    Attributes:
        conn: Hers.
        admin: A superuser's.
        engine: The engine double.
        schema: Where `submit` is.
        dsn: Of the database, without a role.
        said: What workers have said.
    """

    conn: psycopg.Connection[Any]
    admin: psycopg.Connection[Any]
    engine: EngineDouble
    schema: str
    dsn: str
    said: list[str] = field(default_factory=list)
    dsn_of_worker: str = ""

    def rows(self, statement: str, conn: psycopg.Connection[Any] | None = None) -> list[tuple[Any, ...]]:
        return (conn or self.conn).execute(statement.replace("llm.", f"{self.schema}.").encode()).fetchall()

    def one(self, statement: str, conn: psycopg.Connection[Any] | None = None) -> Any:
        return self.rows(statement, conn)[0][0]

    def submit(
        self,
        query: str = "SELECT id, review FROM reviews",
        *more: str,
        into: str = "review_kind",
        conn: psycopg.Connection[Any] | None = None,
        choices: str = "'{yes,no}'",
        **named: str,
    ) -> int:
        words = [f"{name} => {value}" for name, value in ({"choices": choices} | named).items() if value]
        arguments = ", ".join(["$q$" + query + "$q$", f"'{PROMPT}'", f"'{into}'", "'id'", *more, *words])
        return int(self.one(f"SELECT llm.submit({arguments})", conn))

    def job(self, number: int, *columns: str) -> tuple[Any, ...]:
        listed = ", ".join(f'"{name}"' for name in columns)
        return self.rows(f"SELECT {listed} FROM llm.jobs WHERE id = {number}")[0]

    def state(self, number: int) -> str:
        return str(self.job(number, "state")[0])

    @contextlib.contextmanager
    def worker(self, login: str = "worker_of_ana", **options: Any) -> Iterator[Worker]:
        dsn = make_conninfo(self.dsn_of_worker or self.dsn, user=login)
        given = {"patience_s": 0.0, "say": self.said.append, **options}
        own = given.pop("engines", {"vllm": Server("vllm", self.engine.url)})
        with contextlib.closing(
            Database(dsn, session=queue.SESSION, check=given.get("check", lambda: None))
        ) as database:
            yield Worker(dsn, database, Engines(self.schema, own), **given)

    def work(self, login: str = "worker_of_ana", **options: Any) -> int:
        """Do what is due; how many prompts that took."""
        self.engine.reset()
        with self.worker(login, **options) as made:
            made.run(until_idle=True)
        return len(self.engine.received.prompts)

    @contextlib.contextmanager
    def working(self, login: str = "worker_of_ana", **options: Any) -> Iterator[Worker]:
        """A worker in a thread."""
        over = threading.Event()

        def check() -> None:
            if over.is_set():
                raise Stopped

        with self.worker(login, check=check, **options) as made:

            def run() -> None:
                with contextlib.suppress(Stopped):
                    made.run()

            thread = threading.Thread(target=run)
            thread.start()
            try:
                yield made
            finally:
                over.set()
                made.interrupt()
                thread.join()

    def start(self, *arguments: str, login: str = "worker_of_ana") -> subprocess.Popen[str]:
        """A worker in a process of its own."""
        program = "from pg_bridge.cli import main; raise SystemExit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", program, "worker", *arguments],
            env={
                **os.environ,
                "PG_BRIDGE_ENDPOINT": self.engine.url,
                "PG_BRIDGE_DSN": make_conninfo(self.dsn, user=login),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def written(self, table: str = "review_kind") -> int:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            return int(self.one(f"SELECT count(*) FROM {table}"))
        return 0

    def assert_all_right(self, table: str = "review_kind") -> None:
        wrong = [
            row
            for row in self.rows(
                f"SELECT r.id, r.review, k.answer, k.error FROM reviews AS r FULL JOIN {table} AS k USING (id)"
            )
            if row[2:] != (kind_of(row[1]), None)
        ]
        assert wrong == []


@pytest.fixture(params=["llm_jobs", "llm"])
def schema(request: pytest.FixtureRequest) -> str:
    return str(request.param)


on_rented = pytest.mark.parametrize("schema", ["llm_jobs"], indirect=True)
"""What is the same SQL on both is tried on one."""
with_extension = pytest.mark.parametrize("schema", ["llm"], indirect=True)


@pytest.fixture
def shop(
    cluster: Cluster,
    administer: Callable[[str], None],
    engine: EngineDouble,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    name = f"jobs_{next(_numbers)}"
    for role in ROLES:
        word, *how = role.split()
        administer(f"DO $$ BEGIN CREATE ROLE {word} LOGIN {' '.join(how)}; EXCEPTION WHEN duplicate_object THEN END $$")
    administer("GRANT ana TO worker_of_ana; GRANT ana, bob TO worker_of_both")
    administer(f"CREATE DATABASE {name} OWNER boss")
    dsn = cluster.dsn_of(name)
    for variable in ("PG_BRIDGE_API_KEY", "PG_BRIDGE_DSN", "PGSERVICE", "PG_BRIDGE_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(running, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("pg_bridge.jobs.heartbeat.BEAT_EVERY_S", 0.05)
    monkeypatch.setattr(worker, "AGAIN_S", 0.1)
    with contextlib.ExitStack() as stack:
        stack.callback(administer, f"DROP DATABASE {name} WITH (FORCE)")
        admin = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        admin.execute("GRANT CREATE ON SCHEMA public TO ana, bob")
        if schema == "llm":
            if not admin.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_bridge'").fetchall():
                pytest.skip("this PostgreSQL has not the extension")
            admin.execute("CREATE EXTENSION pg_bridge CASCADE")
            admin.execute(
                f"CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint '{engine.url}')".encode()
            )
            admin.execute("GRANT USAGE ON FOREIGN SERVER vllm TO ana, bob")
        else:
            with psycopg.connect(dsn, user="boss", autocommit=True, cursor_factory=psycopg.RawCursor) as boss:
                install(boss)
        conn = stack.enter_context(psycopg.connect(dsn, user="ana", autocommit=True))
        conn.execute("CREATE TABLE reviews (id int PRIMARY KEY, review text)")
        conn.execute("INSERT INTO reviews SELECT i, 'review ' || i FROM generate_series(1, 300) AS i")
        yield Shop(conn, admin, engine, schema, dsn)


@pytest.fixture
def bob(shop: Shop) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shop.dsn, user="bob", autocommit=True) as conn:
        yield conn


# -- a job, from its row to its answers


def test_a_job_is_done_and_told_of(shop: Shop) -> None:
    shop.conn.execute("UPDATE reviews SET review = 'review 1' WHERE id > 250")
    job = shop.submit()
    assert shop.job(job, "state", "role", "into", "key", "note") == (
        "waiting",
        "ana",
        "review_kind",
        ["id"],
        "no worker that runs here may become ana",
    )
    assert shop.work() == 250
    assert shop.one(f"SELECT llm.wait({job})") == "done"
    shop.assert_all_right()
    assert shop.one("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'review_kind'") == "ana"
    figures = ("rows", "known", "answered", "failed", "not_asked", "asked", "saved", "tries", "error", "note")
    assert shop.job(job, *figures) == (300, 0, 300, 0, 0, 250, 50, 0, None, None)
    tokens = shop.job(job, "prompt_tokens", "cached_tokens", "completion_tokens")
    assert tokens[0] > tokens[1] > 0
    assert tokens[2] > 0
    assert shop.rows(f"SELECT submitted_at <= started_at, started_at <= ended_at FROM llm.jobs WHERE id = {job}") == [
        (True, True)
    ]


def test_submitted_twice_it_asks_once(shop: Shop) -> None:
    jobs = [shop.submit(), shop.submit()]
    assert shop.work() == 300
    assert [shop.job(job, "state", "answered", "known") for job in jobs] == [("done", 300, 0), ("done", 0, 300)]
    shop.assert_all_right()


@on_rented
def test_two_workers_do_not_ask_the_same(shop: Shop) -> None:
    shop.engine.behaviour.delay_s = 0.01
    jobs = [
        shop.submit(server="'vllm'"),
        shop.submit(),
        shop.submit(into="public.review_kind"),  # the same table by another name
        shop.submit(into="other_kind"),
    ]
    with shop.working(), shop.working(), shop.working():
        until(lambda: {shop.state(job) for job in jobs} == {"done"})
    assert len(shop.engine.received.prompts) == 600
    shop.assert_all_right()
    shop.assert_all_right("other_kind")


@on_rented
def test_a_role_alone_has_all_of_it(
    cluster: Cluster,
    administer: Callable[[str], None],
    engine: EngineDouble,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    administer("CREATE DATABASE of_ana OWNER ana")
    try:
        dsn = make_conninfo(cluster.dsn_of("of_ana"), user="ana")
        monkeypatch.setenv("PG_BRIDGE_DSN", dsn)
        assert main(["worker", "--once"]) == 1
        assert "pg-bridge worker --install makes schema llm_jobs" in capsys.readouterr().err
        assert main(["worker", "--install"]) == 0
        assert main(["worker", "--install"]) == 0
        assert "schema llm_jobs is there already" in capsys.readouterr().out
        assert main(["worker", "--once"]) == 2
        monkeypatch.setenv("PG_BRIDGE_ENDPOINT", engine.url)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                "CREATE TABLE reviews AS SELECT i AS id, 'review ' || i AS review FROM generate_series(1, 9) AS i"
            )
            conn.execute("SELECT llm_jobs.submit('TABLE reviews', 'Is {review} kind?', 'review_kind', 'id')")
            assert main(["worker", "--once"]) == 0
            assert conn.execute("SELECT state, answered FROM llm_jobs.jobs").fetchall() == [("done", 9)]
            assert conn.execute("SELECT count(answer) FROM review_kind").fetchall() == [(9,)]
    finally:
        administer("DROP DATABASE of_ana WITH (FORCE)")


@on_rented
def test_a_job_starts_at_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOOK_EVERY_S", 1e6)
    with shop.working():
        until(lambda: shop.rows("SELECT FROM pg_stat_activity WHERE application_name = 'pg-bridge worker'"))
        for table in ("first_kind", "second_kind"):
            job = shop.submit(into=table)
            assert shop.one(f"SELECT llm.wait({job}, '60 s')") == "done"


@on_rented
def test_names_are_meant_as_whoever_submitted_meant_them(shop: Shop) -> None:
    shop.admin.execute("CREATE SCHEMA mine AUTHORIZATION ana")
    shop.conn.execute("CREATE TABLE mine.reviews AS SELECT 7 AS id, 'mine' AS review")
    shop.conn.execute("SET search_path = mine, public")
    job = shop.submit()
    shop.conn.execute("RESET search_path")
    assert shop.work() == 1
    assert shop.rows("SELECT id, answer FROM mine.review_kind") == [(7, kind_of("mine"))]
    assert shop.state(job) == "done"


@on_rented
def test_options_are_those_of_map(shop: Shop) -> None:
    job = shop.submit(
        "SELECT id, review AS title FROM reviews WHERE id <= 30",
        "type => 'boolean'",
        "answer_column => 'is kind'",
        choices="",
        max_requests="1000",
        system_prompt="'Short.'",
        window_rows="10",
    )
    assert shop.work() == 0
    assert shop.job(job, "state", "error") == ("failed", 'column "review" does not exist in the rows')
    job = shop.submit(
        "SELECT id, review FROM reviews WHERE id <= 30", "type => 'boolean'", "answer_column => 'is kind'", choices=""
    )
    assert shop.work() == 30
    assert shop.rows('SELECT count("is kind") FROM review_kind') == [(30,)]


class Chore:
    """Work that a test may want done."""

    channels = ("other_work",)

    def __init__(self) -> None:
        self.wanted = 1
        self.done = 0

    def work(self) -> bool:
        is_more = self.done < self.wanted
        self.done += is_more
        return is_more

    def due_in_s(self) -> float | None:
        return None


@on_rented
def test_other_work_has_its_turn(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOOK_EVERY_S", 1e6)
    chore = Chore()
    with shop.working(chores=[chore]):
        until(lambda: chore.done == 1)
        job = shop.submit()
        until(lambda: shop.state(job) == "done")
        chore.wanted = 2
        shop.conn.execute("NOTIFY other_work")
        until(lambda: chore.done == 2)


# -- what does not fit is told before a question is asked

BESIDES = "model text, digest text, answered_at timestamptz, error text"


@pytest.mark.some(6)
@on_rented
@pytest.mark.parametrize(
    ("prepared", "query", "named", "says"),
    [
        ("", "SELECT 1 AS other", {}, 'the query has no column "id"'),
        ("", "SELECT 1 AS id, 2 AS id", {}, 'the query has more than one column named "id"'),
        ("", "SELECT nowhere", {}, 'the query cannot be read: column "nowhere" does not exist'),
        ("", "SELECT 1) AS q; RESET ROLE; SELECT (1", {}, "the query cannot be read: "),
        ("", "RESET ROLE", {}, "the query cannot be read: "),
        ("", "", {}, "the query cannot be read: "),
        ("CREATE TABLE review_kind (id int PRIMARY KEY, answer text)", "TABLE reviews", {}, 'has no column "model"'),
        (
            f"CREATE TABLE review_kind (id int, answer text, {BESIDES})",
            "TABLE reviews",
            {},
            "has no unique key of (id)",
        ),
        ("CREATE VIEW review_kind AS SELECT 1 AS id", "TABLE reviews", {}, "review_kind is no table"),
        ("", "TABLE reviews", {"reorder": "'sideways'"}, 'invalid value for option "reorder"'),
        ("", "TABLE reviews", {"server": "'elsewhere'"}, 'the worker has no engine "elsewhere"'),
        ("", "SELECT id, review FROM pg_catalog.pg_authid, reviews", {}, "permission denied for table pg_authid"),
    ],
)
def test_what_cannot_be_done_fails(shop: Shop, prepared: str, query: str, named: dict[str, Any], says: str) -> None:
    if prepared:
        shop.conn.execute(prepared.encode())
    job = shop.submit(query, **named)
    assert shop.work() == 0
    state, error = shop.job(job, "state", "error")
    assert state == "failed"
    assert says in error


@pytest.mark.some(8)
@on_rented
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("NULL, 'p', 't', 'id'", "an argument of llm_jobs.submit is NULL"),
        ("'q', NULL, 't', 'id'", "an argument of llm_jobs.submit is NULL"),
        ("'q', 'p', NULL, 'id'", "an argument of llm_jobs.submit is NULL"),
        ("'q', 'p', 't', NULL", "an argument of llm_jobs.submit is NULL"),
        ("'q', 'p', 't', ''", "the key is empty"),
        ("'q', 'p', 't', 'id,'", "the key is empty"),
        ("'q', 'p', 'a.b.c', 'id'", "this is no name of a table that outlives a session: a.b.c"),
        ("'q', 'p', '', 'id'", "this is no name of a table that outlives a session: "),
        ("'q', 'p', 'pg_temp.t', 'id'", "this is no name of a table that outlives a session: pg_temp.t"),
        ("'q', 'p', 't', 'id', 'colour'", 'there is no type "colour" of answers'),
        ("'q', 'p', 't', 'id', schema => '[]'", "a schema is a JSON object, for answers of type json"),
        ("'q', 'p', 't', 'id', 'text', '{}'", "a schema is a JSON object, for answers of type json"),
    ],
)
def test_what_makes_no_sense_is_not_submitted(shop: Shop, arguments: str, says: str) -> None:
    with pytest.raises(psycopg.Error, match=says):
        shop.one(f"SELECT llm.submit({arguments})")
    assert shop.rows("SELECT FROM llm.jobs") == []


# -- what passes is tried again


@on_rented
def test_an_engine_that_is_gone_is_tried_again_later(shop: Shop) -> None:
    shop.engine.behaviour.fail_first = 10**6
    job = shop.submit()
    for tries in (1, 2):
        shop.work()
        assert shop.job(job, "state", "tries") == ("waiting", tries)
        assert shop.rows(f"SELECT next_try > now(), note <> '' FROM llm.jobs WHERE id = {job}") == [(True, True)]
        assert shop.work() == 0  # its time has not come
        shop.conn.execute(f"UPDATE {shop.schema}._job SET next_at = now()".encode())
    shop.engine.behaviour.fail_first = 0
    assert shop.work() == 300
    assert shop.job(job, "state", "note") == ("done", None)
    shop.assert_all_right()


@on_rented
def test_it_is_given_up_at_last(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MOST_TRIES", 2)
    monkeypatch.setattr(queue, "FIRST_BACKOFF_S", 0.0)
    shop.engine.behaviour.fail_first = 10**6
    job = shop.submit()
    shop.work()
    state, error = shop.job(job, "state", "error")
    assert state == "failed"
    assert "503" in error


@on_rented
def test_a_key_that_the_engine_refuses_is_no_matter_of_time(shop: Shop) -> None:
    shop.engine.behaviour.api_key = "secret"
    job = shop.submit()
    shop.work()
    assert shop.state(job) == "failed"
    engines = {"vllm": Server("vllm", shop.engine.url, api_key="secret")}
    again = shop.submit()
    assert shop.work(engines=engines) == 300
    assert shop.state(again) == "done"


@on_rented
def test_rows_that_fail_do_not_fail_the_job(shop: Shop) -> None:
    shop.engine.behaviour.reject_marker = "review 17"
    job = shop.submit()
    shop.work()
    assert shop.job(job, "state", "answered", "failed") == ("done", 289, 11)


# -- ended before its time


@on_rented
def test_cancelled_before_it_begins(shop: Shop) -> None:
    job = shop.submit()
    assert shop.one(f"SELECT llm.cancel({job})") is True
    assert shop.one(f"SELECT llm.cancel({job})") is False
    assert shop.work() == 0
    assert shop.one(f"SELECT llm.wait({job})") == "cancelled"


@on_rented
def test_cancelled_while_it_runs(shop: Shop) -> None:
    shop.engine.behaviour.hang_after = 3
    job = shop.submit()
    with shop.working():
        until(lambda: shop.written() > 0)
        assert shop.one(f"SELECT llm.cancel({job})") is True
        assert shop.one(f"SELECT llm.wait({job}, '60 s')") == "cancelled"
        shop.engine.behaviour.hang_after, shop.engine.behaviour.hang = -1, False
        next_one = shop.submit(into="other_kind")
        until(lambda: shop.state(next_one) == "done")
    assert 0 < shop.written() < 300


@on_rented
def test_cancelled_while_its_query_runs(shop: Shop) -> None:
    job = shop.submit("SELECT id, review FROM reviews, pg_sleep(10000)")
    with shop.working():
        until(lambda: shop.rows("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'", shop.admin))
        shop.one(f"SELECT llm.cancel({job})")
        until(lambda: shop.state(job) == "cancelled")


@pytest.mark.some(1)
@on_rented
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_ended_puts_its_job_back(shop: Shop, number: signal.Signals) -> None:
    shop.engine.behaviour.hang_after = 3
    job = shop.submit()
    child = shop.start()
    until(lambda: shop.engine.received.prompts_in_flight > 0 and shop.written() > 0)
    child.send_signal(number)
    said, _ = child.communicate(timeout=WITHIN_S)
    assert child.returncode == 0, said
    assert shop.job(job, "state", "tries") == ("waiting", 0)
    written = shop.written()
    assert 0 < written < 300
    shop.engine.behaviour.hang_after, shop.engine.behaviour.hang = -1, False
    assert shop.work() == 300 - written
    assert shop.job(job, "state", "known", "answered") == ("done", written, 300 - written)
    shop.assert_all_right()


@on_rented
def test_the_job_of_a_worker_that_was_killed_is_taken_over(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "GONE_AFTER_S", 0.2)
    monkeypatch.setattr(worker, "LOOK_EVERY_S", 0.1)
    shop.engine.behaviour.delay_s = 0.02
    job = shop.submit(window_rows="100")
    child = shop.start()
    until(lambda: shop.written() > 20)
    child.kill()
    child.communicate()
    until(lambda: shop.engine.received.in_flight == 0)
    written = shop.written()
    shop.engine.reset()
    with shop.working():
        until(lambda: shop.state(job) == "done")
    assert len(shop.engine.received.prompts) == 300 - written
    shop.assert_all_right()


@on_rented
def test_a_worker_looks_again_when_there_may_be_work_and_no_sooner(shop: Shop) -> None:
    with contextlib.closing(Database(make_conninfo(shop.dsn, user="worker_of_ana"), session=queue.SESSION)) as database:
        jobs = Queue(database, shop.schema, "a worker")
        assert jobs.due_in_s() is None
        shop.submit()
        for next_at, due in (
            ("'infinity'", None),
            ("now() + interval '1 hour'", 3600),
            ("now() - interval '1 hour'", None),
        ):
            shop.conn.execute(f"UPDATE llm_jobs._job SET next_at = {next_at}".encode())
            assert jobs.due_in_s() == (due and pytest.approx(due, abs=60))
        shop.conn.execute("UPDATE llm_jobs._job SET state = 'running', beat_at = now()")
        assert jobs.due_in_s() == pytest.approx(queue.GONE_AFTER_S, abs=0.1)


@on_rented
def test_a_job_that_is_another_workers_by_now_is_let_go(shop: Shop) -> None:
    shop.engine.behaviour.hang = True
    job = shop.submit()
    with shop.working():
        until(lambda: shop.engine.received.prompts_in_flight > 0)
        shop.conn.execute(f"UPDATE {shop.schema}._job SET worker = 'another', beat_at = now() + '1 hour'".encode())
        until(lambda: f"job {job}: lost" in shop.said)
    assert shop.job(job, "state", "worker") == ("running", "another")


# -- faults


@on_rented
def test_connections_that_are_cut_are_made_again(shop: Shop, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PART_ROWS", 40)
    shop.engine.behaviour.delay_s = 0.05
    proxy = Proxy(cluster.port)
    shop.dsn_of_worker = make_conninfo(shop.dsn, host="127.0.0.1", port=proxy.port)
    job = shop.submit(window_rows="50")
    engines = {"vllm": Server("vllm", shop.engine.url, max_in_flight=16)}
    try:
        with shop.working(patience_s=WITHIN_S, engines=engines):
            for rows in (40, 160):
                until(lambda: shop.written() >= rows)  # noqa: B023
                accepted = proxy.accepted
                proxy.cut()
                until(lambda: proxy.accepted > accepted)  # noqa: B023
                proxy.is_cut = False
            until(lambda: shop.state(job) == "done")
    finally:
        proxy.close()
    assert len(shop.engine.received.prompts) == 300
    shop.assert_all_right()


@pytest.mark.slow
def test_a_database_that_is_restarted_is_waited_for(engine: EngineDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.behaviour.delay_s = 0.05
    monkeypatch.setattr(running, "PART_ROWS", 40)
    with Cluster(settings={"synchronous_commit": "on"}) as own:
        dsn = own.dsn
        proxy = Proxy(own.port)
        with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as admin:
            install(admin)
            admin.execute(
                "CREATE TABLE reviews AS SELECT i AS id, 'review ' || i AS review FROM generate_series(1, 300) AS i"
            )
            conn: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True)
            shop = Shop(conn, conn, engine, "llm_jobs", dsn)
            job = shop.submit()
            conn.close()
        shop.dsn_of_worker = make_conninfo(dsn, host="127.0.0.1", port=proxy.port)
        try:
            with shop.working(
                "postgres", patience_s=WITHIN_S, engines={"vllm": Server("vllm", engine.url, max_in_flight=16)}
            ):
                until(lambda: len(engine.received.prompts) >= 100)
                own.halt("immediate")
                own.resume()
                proxy.target = own.port
                shop.conn = psycopg.connect(own.dsn, autocommit=True)
                until(lambda: shop.state(job) == "done")
                shop.assert_all_right()
                shop.conn.close()
        finally:
            proxy.close()


@pytest.mark.slow
def test_nothing_is_lost_or_wrong_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["job_faults", "--rows", "300", "--kills", "1", "--down", "1"])
    assert job_faults.main() == 0
    printed = capsys.readouterr().out
    assert len([line for line in printed.splitlines() if " 0      0 " in line]) == 7, printed


# -- rights


@on_rented
def test_who_submits_is_who_postgresql_says(shop: Shop, bob: psycopg.Connection[Any]) -> None:
    with psycopg.connect(shop.dsn, user="worker_of_both", autocommit=True) as both:
        both.execute("SET ROLE bob")
        shop.submit(conn=both)
    shop.conn.execute(
        f"CREATE FUNCTION trap() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS "
        f"$$ SELECT {shop.schema}.submit('SELECT 1 AS id', 'p', 'trapped', 'id') $$".encode()
    )
    shop.admin.execute("SELECT trap()")  # by a superuser: whatever a role makes others call, it is the role's
    assert shop.rows('SELECT role, "into" FROM llm.jobs ORDER BY id', shop.admin) == [
        ("bob", "review_kind"),
        ("ana", "trapped"),
    ]
    for statement in (
        "INSERT INTO llm._job (role, query, prompt, target, key, search_path) VALUES ('bob', '', '', '', '{}', '')",
        "INSERT INTO llm._job (role_oid, query, prompt, target, key, search_path) VALUES (10, '', '', '', '{}', '')",
        "INSERT INTO llm._job (id, query, prompt, target, key, search_path) OVERRIDING SYSTEM VALUE "
        "VALUES (1, '', '', '', '{}', '')",
        "UPDATE llm._job SET role = 'bob'",
        "UPDATE llm._job SET id = DEFAULT",
        "UPDATE llm._job SET role_oid = 10",
        "UPDATE llm._job SET query = 'SELECT 2 AS id'",
        "UPDATE llm._job SET search_path = ''",
        "DELETE FROM llm._job",
        "TRUNCATE llm._job",
        "SELECT * FROM llm.all_jobs",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            shop.rows(statement)


@on_rented
def test_a_role_sees_and_ends_its_own_jobs_alone(shop: Shop, bob: psycopg.Connection[Any]) -> None:
    job = shop.submit()
    for statement in (f"SELECT llm.cancel({job})", f"SELECT llm.wait({job})", "SELECT llm.cancel(NULL)"):
        with pytest.raises(psycopg.errors.UndefinedObject, match="there is no job"):
            shop.rows(statement, bob)
    assert shop.rows("SELECT FROM llm.jobs", bob) == shop.rows("SELECT FROM llm._job", bob) == []
    assert bob.execute(f"UPDATE {shop.schema}._job SET state = 'done'".encode()).rowcount == 0
    shop.admin.execute(f"GRANT SELECT ON {shop.schema}.all_jobs TO bob".encode())
    assert shop.rows("SELECT id, role, state FROM llm.all_jobs", bob) == [(job, "ana", "waiting")]
    seen = {column.name for column in bob.execute(f"SELECT * FROM {shop.schema}.all_jobs".encode()).description or ()}
    assert not seen & {"query", "prompt", "options", "error", "note", "into", "key", "hint"}
    assert shop.state(job) == "waiting"


FORGED = (
    ("options", "'[]'"),
    ("options", "repeat('[', 3000)::text || repeat(']', 3000)"),
    ("options", """'{"server": ["vllm"]}'"""),
    ("options", """'{"server": null}'"""),
    ("options", """'{"endpoint": "http://127.0.0.1:9"}'"""),
    ("options", """'{"api_key": "x"}'"""),
    ("options", """'{"window_rows": -1}'"""),
    ("key", "'{}'"),
    ("key", "'{NULL}'"),
    ("key", "'{id,id}'"),
    ("key", "'{{id},{id}}'"),
    ("target", "'t; DROP TABLE reviews'"),
    ("target", "''"),
    ("type", "'colour'"),
    ("schema", "'no JSON'"),
    ("answer_column", "'error'"),
    ("answer_column", "''"),
    ("query", "'DELETE FROM reviews RETURNING id'"),
    ("query", "'SELECT 1 AS id; DROP TABLE reviews'"),
    ("query", "$q$COPY reviews TO PROGRAM 'true'$q$"),
)


@on_rented
def test_rows_that_submit_would_not_write_fail_alone(shop: Shop) -> None:
    for column, value in FORGED:
        given = {
            "query": "'TABLE reviews'",
            "prompt": "'p'",
            "target": "'t'",
            "key": "'{id}'",
            "search_path": "'public'",
        }
        given[column] = f"({value})::jsonb" if column == "options" else value
        shop.conn.execute(
            f"INSERT INTO {shop.schema}._job ({', '.join(given)}) VALUES ({', '.join(given.values())})".encode()
        )
    shop.conn.execute(f"UPDATE {shop.schema}._job SET tries = CASE id % 2 WHEN 0 THEN 2147483647 ELSE -9 END".encode())
    held = shop.submit(into="held_kind")
    shop.conn.execute(f"UPDATE {shop.schema}._job SET next_at = 'infinity' WHERE id = {held}".encode())
    later = shop.submit(into="later_kind")
    assert shop.work() == 300
    assert (shop.state(held), shop.state(later)) == ("waiting", "done")
    states = shop.rows(f'SELECT id, state, error, "into", query FROM llm.jobs WHERE id < {held}')
    assert [row for row in states if row[1] != "failed" or not row[2]] == []
    assert [row for row in states if "internal error" in row[2]] == []
    assert shop.rows("SELECT count(*) FROM reviews") == [(300,)]


@on_rented
def test_tries_that_its_role_has_written_end_all_the_same(shop: Shop) -> None:
    shop.engine.behaviour.fail_first = 10**6
    job = shop.submit()
    shop.conn.execute(f"UPDATE {shop.schema}._job SET tries = 2147483647".encode())
    shop.work()
    assert shop.state(job) == "failed"


@on_rented
def test_names_may_be_anything(shop: Shop) -> None:
    shop.admin.execute('CREATE SCHEMA "My; Schema" AUTHORIZATION ana')
    shop.conn.execute(
        """CREATE TABLE "My; Schema"."re""views" AS SELECT 'a''b' AS "we ""ird'; --", 'kind' AS "{review}" """
    )
    job = shop.one(
        """SELECT llm.submit('TABLE "My; Schema"."re""views"', 'Is it kind?', '"My; Schema"."T; DROP"', """
        """'we "ird''; --', answer_column => 'an"swer %s $1')"""
    )
    assert shop.work() == 1
    assert shop.job(job, "state", "error") == ("done", None)
    found = """SELECT count("an""swer %s $1"), min("we ""ird'; --") FROM "My; Schema"."T; DROP" """
    assert shop.rows(found) == [(1, "a'b")]


@on_rented
def test_rows_that_a_policy_hides_are_not_asked_about(shop: Shop) -> None:
    shop.admin.execute(
        "CREATE TABLE letters AS SELECT i AS id, 'r' || i AS review, i % 2 = 0 AS hers FROM generate_series(1, 8) i"
    )
    shop.admin.execute("ALTER TABLE letters ENABLE ROW LEVEL SECURITY")
    shop.admin.execute("CREATE POLICY hers ON letters USING (hers AND current_user = 'ana')")
    shop.admin.execute("GRANT SELECT ON letters TO ana")
    shop.submit("TABLE letters", choices="")
    assert shop.work() == 4
    assert shop.rows("SELECT array_agg(id ORDER BY id) FROM review_kind") == [([2, 4, 6, 8],)]


@on_rented
def test_a_target_of_another_role_is_not_written(shop: Shop, bob: psycopg.Connection[Any]) -> None:
    bob.execute(f"CREATE TABLE his (id int PRIMARY KEY, answer text, {BESIDES})".encode())
    job = shop.submit(into="his")
    assert shop.work("worker_of_both", trusted=["ana"]) == 0
    state, error = shop.job(job, "state", "error")
    assert state == "failed"
    assert "permission denied" in error
    assert bob.execute("SELECT count(*) FROM his").fetchall() == [(0,)]


@on_rented
def test_operators_that_others_made_are_not_the_workers(shop: Shop, bob: psycopg.Connection[Any]) -> None:
    """One that fits better than PostgreSQL's own is taken before it, wherever in the path it is."""
    bob.execute(
        "CREATE FUNCTION trap(numeric, interval) RETURNS interval LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$"
    )
    bob.execute("CREATE OPERATOR * (FUNCTION = trap, LEFTARG = numeric, RIGHTARG = interval)")
    with pytest.raises(psycopg.Error, match="trapped"):
        shop.rows("SELECT 1.0 * interval '1 second'")
    job = shop.submit()
    shop.conn.execute("UPDATE llm_jobs._job SET state = 'running', beat_at = '-infinity'")  # which is computed with
    assert shop.work() == 300
    assert shop.state(job) == "done"


@on_rented
def test_a_table_of_jobs_that_anybody_made_is_not_believed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PG_BRIDGE_DSN", make_conninfo(shop.dsn, user="worker_of_ana"))
    monkeypatch.setenv("PG_BRIDGE_ENDPOINT", shop.engine.url)
    job = shop.submit()
    shop.admin.execute("CREATE SCHEMA llm AUTHORIZATION bob")
    shop.admin.execute("CREATE TABLE llm._job (LIKE llm_jobs._job INCLUDING ALL)")
    shop.admin.execute("ALTER TABLE llm._job OWNER TO bob")
    assert main(["worker", "--once"]) == 0  # in the other one
    assert shop.state(job) == "done"
    shop.admin.execute("ALTER TABLE llm_jobs._job OWNER TO bob")
    assert main(["worker", "--once"]) == 1
    assert 'schema llm_jobs has an owner, "bob", who could make jobs in any role' in capsys.readouterr().err
    assert main(["worker", "--once", "--trust", "bob"]) == 0
    shop.admin.execute("ALTER TABLE llm_jobs._job OWNER TO ana")
    assert main(["worker", "--once"]) == 0  # as a login that could become ana, and nothing else


@on_rented
def test_cancelled_while_no_worker_was_there_to_be_told(shop: Shop) -> None:
    job = shop.submit()
    shop.conn.execute(f"UPDATE {shop.schema}._job SET state = 'running', beat_at = '-infinity'".encode())
    assert shop.one(f"SELECT llm.cancel({job})") is True
    assert shop.state(job) == "ending"
    assert shop.work() == 0
    assert shop.state(job) == "cancelled"


@on_rented
def test_jobs_are_done_by_whom_they_give_nothing(
    shop: Shop, bob: psycopg.Connection[Any], administer: Callable[[str], None]
) -> None:
    job = shop.submit()
    for login, why in (
        ("postgres", '"postgres" is a superuser, which a job of "ana" could use'),
        ("worker_of_both", '"worker_of_both" may become "bob", too, which a job of "ana" could use'),
    ):
        assert shop.work(login) == 0
        assert shop.job(job, "state")[0] == "waiting"
        assert shop.job(job, "note")[0].endswith(why)
    assert shop.work("bob") == 0
    bob.execute("CREATE TABLE theirs ()")
    bob.execute("GRANT SELECT ON theirs TO worker_of_ana")
    assert shop.work() == 0
    assert '"worker_of_ana" has objects or rights of its own' in shop.job(job, "note")[0]
    bob.execute("REVOKE ALL ON theirs FROM worker_of_ana")
    shop.admin.execute(f"GRANT CREATE ON DATABASE {shop.admin.info.dbname} TO worker_of_ana".encode())
    assert shop.work() == 0
    assert '"worker_of_ana" may create in database' in shop.job(job, "note")[0]
    shop.admin.execute(f"REVOKE CREATE ON DATABASE {shop.admin.info.dbname} FROM worker_of_ana".encode())
    administer("GRANT ana TO worker_of_ana WITH ADMIN OPTION")
    assert shop.work() == 0
    assert '"worker_of_ana" may grant "ana" to others, which a job of "ana" could use' in shop.job(job, "note")[0]
    administer("REVOKE ADMIN OPTION FOR ana FROM worker_of_ana")
    administer("ALTER ROLE worker_of_ana CREATEDB")
    assert shop.work() == 0
    assert '"worker_of_ana" has attributes that this role has not' in shop.job(job, "note")[0]
    administer("ALTER ROLE worker_of_ana NOCREATEDB")
    assert shop.work() == 300
    job = shop.submit(into="other_kind")
    assert shop.work("worker_of_both", trusted=["ana"]) == 300
    assert shop.state(job) == "done"


ESCAPE = """
CREATE FUNCTION escape(role text, wanted text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('role', role, false);
    EXECUTE wanted;
    RETURN 'had by ' || current_user;
EXCEPTION WHEN insufficient_privilege OR invalid_parameter_value THEN
    RETURN 'refused';
END $$;
"""


@on_rented
@pytest.mark.parametrize("how", ["query", "trigger", "deferred trigger"])
def test_a_job_that_leaves_its_role_gains_nothing(shop: Shop, bob: psycopg.Connection[Any], how: str) -> None:
    """It can leave it: PostgreSQL has nothing against that. So nothing may be there to be gained."""
    is_checked = shop.one("SHOW debug_assertions", shop.admin) == "on"
    if how == "deferred trigger" and is_checked and shop.admin.info.server_version >= 180000:
        pytest.skip("an assertion of PostgreSQL 18 itself fails where such a trigger catches an error in COMMIT")
    bob.execute("CREATE TABLE secrets AS SELECT 'of bob' AS secret")
    wanted = [
        ("bob", "TABLE secrets"),
        ("none", "TABLE secrets"),
        ("none", "ALTER ROLE ana SUPERUSER"),
        ("none", "SELECT 1"),
    ]
    shop.conn.execute(ESCAPE)
    tried = ", ".join(f"escape('{role}', '{statement}')" for role, statement in wanted)
    if how == "query":
        job = shop.submit(f"SELECT 1 AS id, concat_ws(';', {tried}) AS review")
        shop.work()
        (sent,) = shop.engine.received.prompts
    else:
        shop.conn.execute("CREATE TABLE told (said text)")
        shop.conn.execute("GRANT ALL ON told TO PUBLIC")
        shop.conn.execute(f"CREATE TABLE review_kind (id int PRIMARY KEY, answer text, {BESIDES})".encode())
        shop.conn.execute(
            "CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"INSERT INTO told VALUES (concat_ws(';', {tried})); RETURN NULL; END $$".encode()
        )
        kind, after = ("CONSTRAINT ", "DEFERRABLE INITIALLY DEFERRED ") if how == "deferred trigger" else ("", "")
        shop.conn.execute(
            f"CREATE {kind}TRIGGER t AFTER INSERT ON review_kind {after}FOR EACH ROW EXECUTE FUNCTION leave()".encode()
        )
        job = shop.submit("SELECT 1 AS id, 'one' AS review")
        shop.work()
        sent = "; ".join(said for (said,) in shop.rows("SELECT said FROM told"))
    assert "refused;refused;refused;had by worker_of_ana" in sent, shop.job(job, "error")


@on_rented
def test_a_role_that_was_made_anew_does_not_inherit_jobs(
    shop: Shop, administer: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    administer("CREATE ROLE guest")
    with psycopg.connect(shop.dsn, autocommit=True) as admin:
        admin.execute("SET ROLE guest")
        job = shop.submit("SELECT 1 AS id, 'x' AS review", conn=admin)
    administer("DROP ROLE guest")
    administer("CREATE ROLE guest LOGIN")
    try:
        assert shop.work("guest") == 0
        with psycopg.connect(shop.dsn, user="guest", autocommit=True) as guest:
            assert shop.rows("SELECT FROM llm.jobs", guest) == shop.rows("SELECT FROM llm._job", guest) == []
        assert shop.work("postgres", trusted=["guest"]) == 0
        note = f"SELECT state, note FROM llm._job WHERE id = {job}"
        ((state, said),) = shop.rows(note, shop.admin)
        assert state == "waiting"
        assert said.endswith('role "guest" is another than the one that submitted them')
        for _ in range(2):  # nor what that one was answered
            administer("DROP ROLE guest")
            administer("CREATE ROLE guest LOGIN")
            with psycopg.connect(shop.dsn, user="guest", autocommit=True) as guest:
                shop.admin.execute("CREATE SCHEMA guest AUTHORIZATION guest")
                shop.submit("SELECT 1 AS id, 'x' AS review", conn=guest)
                assert shop.work("guest", ledger=tmp_path) == 1
                guest.execute("DROP SCHEMA guest CASCADE")
    finally:
        administer("DROP ROLE guest")


# -- engines


@with_extension
def test_servers_of_the_extension_are_asked_with_the_roles_own_key(shop: Shop, bob: psycopg.Connection[Any]) -> None:
    shop.engine.behaviour.api_key = "of ana"
    shop.admin.execute("CREATE USER MAPPING FOR ana SERVER vllm OPTIONS (api_key 'of ana')")
    job, his = shop.submit(), shop.submit("SELECT 1 AS id, 'x' AS review", into="his", conn=bob)
    assert shop.work(engines={"vllm": Server("vllm", "http://127.0.0.1:9")}) == 300
    assert shop.state(job) == "done"
    shop.work("bob")
    assert shop.rows(f"SELECT state FROM llm.jobs WHERE id = {his}", bob) == [("failed",)]
    shop.admin.execute("CREATE USER MAPPING FOR PUBLIC SERVER vllm OPTIONS (api_key 'of ana')")
    his = shop.submit("SELECT 1 AS id, 'x' AS review", into="his", conn=bob)
    shop.work("bob")
    ((error,),) = shop.rows(f"SELECT error FROM llm.jobs WHERE id = {his}", bob)
    assert error == 'server "vllm" has its key in the mapping of PUBLIC, which your role cannot read'
    shop.admin.execute("REVOKE USAGE ON FOREIGN SERVER vllm FROM ana")
    job = shop.submit()
    assert shop.work() == 0
    assert shop.job(job, "error")[0] == 'permission denied for foreign server "vllm"'


@with_extension
def test_limits_of_a_day_need_a_ledger(shop: Shop, tmp_path: Path) -> None:
    shop.admin.execute("ALTER SERVER vllm OPTIONS (ADD daily_requests '3')")
    job = shop.submit()
    assert shop.work() == 0
    assert "allows so much a day" in shop.job(job, "error")[0]
    few = shop.submit("SELECT id, review FROM reviews WHERE id <= 2")
    assert shop.work(ledger=tmp_path) == 2
    assert shop.state(few) == "done"
    job = shop.submit()
    assert shop.work(ledger=tmp_path) == 0
    state, error = shop.job(job, "state", "error")
    assert state == "failed"
    assert "daily_requests" in error
    assert shop.written() == 2


@on_rented
def test_engines_are_named_in_a_file(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.engine.behaviour.api_key = "top secret"
    (tmp_path / "key").write_text("top secret\n")
    engines = tmp_path / "engines"
    engines.write_text(f"[large]\nendpoint = {shop.engine.url}\napi_key_file = {tmp_path / 'key'}\n")
    monkeypatch.setenv("PG_BRIDGE_DSN", make_conninfo(shop.dsn, user="worker_of_ana"))
    job = shop.submit(server="'large'")
    assert main(["worker", "--once", "--engines", str(engines)]) == 0
    assert shop.state(job) == "done"
    said = capsys.readouterr()
    assert f"job {job} of ana: into review_kind" in said.err
    for wrong in (
        "[large\napi_key = top secret",
        "api_key = top secret",
        "[large]\napi_key = top secret",
        "[a]\nx = 1",
    ):
        engines.write_text(wrong)
        assert main(["worker", "--once", "--engines", str(engines)]) == 2
    assert "top secret" not in capsys.readouterr().err


@on_rented
def test_a_ledger_is_one_for_each_role(shop: Shop, bob: psycopg.Connection[Any], tmp_path: Path) -> None:
    shop.submit()
    assert shop.work(ledger=tmp_path / "state" / "ledger") == 300
    shop.conn.execute("DROP TABLE review_kind")
    shop.submit()
    assert shop.work(ledger=tmp_path / "state" / "ledger") == 0
    shop.conn.execute("GRANT SELECT ON reviews TO bob")
    shop.submit(into="his_kind", conn=bob)
    assert shop.work("bob", ledger=tmp_path / "state" / "ledger") == 300


# -- waiting


@on_rented
def test_waiting_has_its_end(shop: Shop) -> None:
    job = shop.submit()
    began = time.monotonic()
    assert shop.one(f"SELECT llm.wait({job}, '0.1 s')") == "waiting"
    assert time.monotonic() - began >= 0.1
    with pytest.raises(psycopg.errors.InvalidTransactionState, match="sees nothing new"), shop.conn.transaction():
        shop.conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        shop.one(f"SELECT llm.wait({job})")
    with pytest.raises(psycopg.errors.InvalidTransactionState, match="was submitted in this"), shop.conn.transaction():
        shop.one(f"SELECT llm.wait({shop.submit()})")


@on_rented
def test_what_is_said_is_no_terminals_command(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PG_BRIDGE_DSN", make_conninfo(shop.dsn, user="worker_of_ana"))
    monkeypatch.setenv("PG_BRIDGE_ENDPOINT", shop.engine.url)
    shop.submit('SELECT id, "\x1b[2J" FROM reviews')
    assert main(["worker", "--once"]) == 0
    said = capsys.readouterr().err
    assert "?[2J" in said
    assert "\x1b" not in said
