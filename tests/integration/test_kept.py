"""Columns that are kept answered: by an ordinary role on a server without the extension, and with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
import pytest

from pg_bridge.cli.install import jobs_script
from pg_bridge.jobs import kept, noted, running
from pg_bridge.jobs.asker import Desk
from pg_bridge.jobs.kept import Keeper, due
from pg_bridge.options import Server
from pg_bridge.testing.behaviour import choose
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble

PROMPT = "Is {review} kind?"
_numbers = count(1)


def kind_of(review: str | None, prompt: str = "Is review kind?") -> str:
    return choose(f"{prompt}\n{json.dumps({'review': review}, ensure_ascii=False)}", ["yes", "no"])


@dataclass
class Shop:
    """A database in which `ana`, who is nobody special, keeps columns, and `keeper` may become her and answers them.

    Attributes:
        conn: Ana's connection.
        admin: A superuser's.
        schema: Where `keep` is.
        number: Of the last column that was declared.
    """

    conn: psycopg.Connection[Any]
    admin: psycopg.Connection[Any]
    engine: EngineDouble
    dsn: str
    schema: str
    said: list[str]
    keeper: Keeper
    number: int = 0

    def keep(self, *arguments: str, **named: str) -> int:
        given = ", ".join(
            [*(f"'{word}'" for word in arguments), *(f"{name} => {text}" for name, text in named.items())]
        )
        self.number = self.one(f"SELECT {self.schema}.keep({given})")
        return self.number

    def keep_kind(self, **named: str) -> int:
        return self.keep("reviews", "id", "kind", PROMPT, **({"choices": "'{yes,no}'", "at_most_every": "'0'"} | named))

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(statement.encode()).fetchall()

    def one(self, statement: str) -> Any:
        return self.rows(statement)[0][0]

    def noted(self, columns: str = "id") -> list[Any]:
        """What has been noted since the last answers, in its order."""
        rows = self.rows(f"SELECT {columns} FROM llm_keep_{self.number}_changes ORDER BY noted")
        return [row[0] if len(row) == 1 else row for row in rows]

    def forget_notes(self) -> None:
        self.conn.execute(f"DELETE FROM llm_keep_{self.number}_changes".encode())

    def work(self) -> int:
        """Do whatever is due, until nothing is; how many prompts that took."""
        self.engine.reset()
        while self.step():
            pass
        return len(self.engine.received.prompts)

    def step(self) -> bool:
        with psycopg.connect(self.dsn, user="keeper", autocommit=True, cursor_factory=psycopg.RawCursor) as conn:
            columns = due(conn, self.schema)
        return sum(self.keeper.step(self.schema, column) is not None for column in columns) > 0

    def state(self, *columns: str) -> tuple[Any, ...]:
        listed = ", ".join(f'"{name}"' for name in columns)
        return self.rows(f"SELECT {listed} FROM {self.schema}.kept WHERE id = {self.number}")[0]

    def assert_all_right(self, table: str = "reviews", prompt: str = "Is review kind?") -> None:
        wrong = [
            row
            for row in self.rows(
                f"SELECT r.id, r.review, k.kind, k.error FROM {table} AS r FULL JOIN {table}_kind AS k USING (id)"
            )
            if row[2:] != (kind_of(row[1], prompt), None)
        ]
        assert wrong == []


@pytest.fixture(params=["llm_jobs", "llm"])
def schema(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def opened(cluster: Cluster, administer: Callable[[str], None], engine: EngineDouble, schema: str) -> Iterator[Shop]:
    name = f"kept_{next(_numbers)}"
    for role in ("ana", "boss", "keeper NOINHERIT", "joe"):
        word, *how = role.split()
        administer(f"DO $$ BEGIN CREATE ROLE {word} LOGIN {' '.join(how)}; EXCEPTION WHEN duplicate_object THEN END $$")
    administer("GRANT ana TO keeper")
    administer(f"CREATE DATABASE {name} OWNER boss")
    dsn = cluster.dsn_of(name)
    with ExitStack() as stack:
        stack.callback(administer, f"DROP DATABASE {name} WITH (FORCE)")
        admin = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        admin.execute("GRANT CREATE ON SCHEMA public TO ana")
        if schema == "llm":
            admin.execute("CREATE EXTENSION pg_bridge CASCADE")
        else:
            with psycopg.connect(dsn, user="boss") as boss:
                boss.execute(jobs_script().encode())
        conn = stack.enter_context(psycopg.connect(dsn, user="ana", autocommit=True))
        conn.execute("CREATE TABLE reviews (id int PRIMARY KEY, review text, stars int)")
        conn.execute("INSERT INTO reviews SELECT i, 'review ' || i, 1 FROM generate_series(1, 60) AS i")
        said: list[str] = []
        server = Server("vllm", engine.url)
        desk = stack.enter_context(closing(Desk(server, None, lambda *told: said.extend(told), lambda: None)))
        as_keeper = psycopg.conninfo.make_conninfo(dsn, user="keeper")
        keeper = Keeper(as_keeper, {"vllm": desk}.get, said.append)
        yield Shop(conn, admin, engine, dsn, schema, said, keeper)


@pytest.fixture
def shop(
    cluster: Cluster,
    administer: Callable[[str], None],
    engine: EngineDouble,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    monkeypatch.setattr(running, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(kept, "STEP_PATIENCE_S", 0.0)
    monkeypatch.setattr(kept, "FIRST_BACKOFF_S", 0.0)
    with opened(cluster, administer, engine, schema) as made:
        yield made


on_rented = pytest.mark.parametrize("schema", ["llm_jobs"], indirect=True)
"""What is the same SQL on both is tried on one."""


def test_a_column_stays_answered(shop: Shop) -> None:
    shop.keep_kind()
    assert shop.state("waiting", "answered", "failed", "last", "trouble") == (60, 0, 0, None, None)
    assert shop.work() == 60
    shop.assert_all_right()
    assert shop.state("waiting", "answered", "failed", "trouble") == (0, 60, 0, None)
    assert shop.work() == 0
    shop.conn.execute("UPDATE reviews SET review = 'changed ' || id WHERE id <= 10")
    shop.conn.execute("INSERT INTO reviews VALUES (100, 'new')")
    shop.conn.execute("UPDATE reviews SET id = 200 WHERE id = 20")
    shop.conn.execute("DELETE FROM reviews WHERE id IN (30, 31)")
    assert shop.state("waiting", "answered") == (15, 60)
    assert shop.work() == 12
    shop.assert_all_right()
    assert shop.state("waiting", "answered") == (0, 59)
    assert shop.rows("SELECT id, review, stars, kind FROM reviews_with_kind WHERE id = 100") == [
        (100, "new", None, kind_of("new"))
    ]


def test_what_the_prompt_does_not_use_asks_nothing(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    shop.conn.execute("UPDATE reviews SET stars = 5")
    shop.conn.execute("UPDATE reviews SET review = review")
    assert shop.noted() == []
    assert shop.work() == 0


def test_another_prompt_asks_all_again_and_the_same_one_nothing(shop: Shop) -> None:
    first = shop.keep_kind()
    shop.work()
    assert shop.keep_kind() == first
    assert shop.work() == 0
    assert (
        shop.keep("reviews", "id", "kind", "Is {review} really kind?", choices="'{yes,no}'", at_most_every="'0'")
        == first
    )
    assert shop.work() == 60
    shop.assert_all_right(prompt="Is review really kind?")


@on_rented
@pytest.mark.parametrize("rows", [5_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_ten_changed_rows_are_ten_questions(shop: Shop, rows: int) -> None:
    shop.conn.execute("TRUNCATE reviews")
    shop.conn.execute(f"INSERT INTO reviews SELECT i, 'review ' || i % 100, 1 FROM generate_series(1, {rows}) AS i")
    shop.keep_kind()
    assert shop.work() in range(100, 100 * (rows // noted.SLICE_ROWS + 2))  # equal questions are asked once a window
    shop.conn.execute(f"UPDATE reviews SET review = 'changed ' || id WHERE id % {rows // 10} = 0")
    assert len(shop.noted()) == 10
    assert shop.work() == 10
    shop.assert_all_right()


@on_rented
def test_many_rows_are_looked_at_in_slices(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noted, "SLICE_ROWS", 7)
    monkeypatch.setattr("pg_bridge.jobs.query.FIRST_PAGE_ROWS", 3)
    monkeypatch.setattr("pg_bridge.jobs.query.MOST_PAGE_ROWS", 3)
    monkeypatch.setattr(noted, "FIRST_PAGE_ROWS", 2)
    shop.keep_kind()
    assert shop.step()
    assert 0 < shop.state("answered")[0] < 20
    shop.conn.execute("UPDATE reviews SET review = 'changed' WHERE id = 60")  # which has its turn before the others
    shop.conn.execute("DELETE FROM reviews WHERE id = 1")
    assert shop.step()
    assert shop.rows("SELECT kind FROM reviews_kind WHERE id IN (1, 60)") == [(kind_of("changed"),)]
    shop.work()
    shop.assert_all_right()
    shop.conn.execute("UPDATE reviews SET review = 'all ' || id")
    assert shop.work() == 59
    shop.assert_all_right()


STATEMENTS = {
    "INSERT INTO reviews VALUES (61, 'new'), (62, 'new')": [61, 62],
    "INSERT INTO reviews VALUES (1, 'new') ON CONFLICT DO NOTHING": [],
    "INSERT INTO reviews VALUES (1, 'new') ON CONFLICT (id) DO UPDATE SET review = excluded.review": [1],
    "INSERT INTO reviews VALUES (1, 'new', 7) ON CONFLICT (id) DO UPDATE SET stars = excluded.stars": [],
    "UPDATE reviews SET review = 'x' WHERE id = 3": [3],
    "UPDATE reviews SET review = NULL WHERE id < 3": [1, 2],
    "UPDATE reviews SET review = 'x' WHERE false": [],
    "UPDATE reviews SET review = 'review ' || id % 50": list(range(50, 61)),  # more rows than a small plan is for
    "UPDATE reviews SET id = id + 100 WHERE id > 58": [59, 60, 159, 160],
    "UPDATE reviews SET id = -id": [*range(-60, 0), *range(1, 61)],
    "DELETE FROM reviews WHERE id > 58": [59, 60],
    "TRUNCATE reviews": [None],
    "WITH gone AS (DELETE FROM reviews WHERE id = 1 RETURNING *) INSERT INTO reviews SELECT 1001, review FROM gone": [
        1,
        1001,
    ],
}


@on_rented
@pytest.mark.parametrize("is_partitioned", [False, True], ids=["plain", "partitioned"])
def test_each_statement_notes_the_rows_that_it_changed(shop: Shop, is_partitioned: bool) -> None:
    if is_partitioned:
        shop.conn.execute("DROP TABLE reviews")
        shop.conn.execute("CREATE TABLE reviews (id int PRIMARY KEY, review text, stars int) PARTITION BY RANGE (id)")
        shop.conn.execute("CREATE TABLE low PARTITION OF reviews FOR VALUES FROM (MINVALUE) TO (50)")
        shop.conn.execute("CREATE TABLE high PARTITION OF reviews DEFAULT")
        shop.conn.execute("INSERT INTO reviews SELECT i, 'review ' || i, 1 FROM generate_series(1, 60) AS i")
    shop.keep_kind()
    shop.work()
    for statement, expected in STATEMENTS.items():
        with shop.conn.transaction(force_rollback=True):
            shop.conn.execute(statement.encode())
            found = sorted({note for note in shop.noted() if note is not None}) or shop.noted()
            assert found == expected, statement


@on_rented
def test_copy_and_merge_note_what_they_change(shop: Shop) -> None:
    shop.keep_kind()
    shop.forget_notes()
    with shop.conn.cursor() as cursor, cursor.copy("COPY reviews FROM STDIN") as rows:
        rows.write_row((70, "copied", 1))
    assert shop.noted() == [70]
    if shop.conn.info.server_version >= 150000:
        shop.conn.execute(
            "MERGE INTO reviews AS r USING (VALUES (1), (2), (80)) AS v (i) ON r.id = v.i "
            "WHEN MATCHED AND i = 1 THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET review = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (i, 'merged')"
        )
        assert sorted(shop.noted()) == [1, 2, 70, 80]
