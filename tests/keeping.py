"""A shop whose owner keeps columns answered, for tests of `llm.keep`, and the fixtures that open it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.cli.install import jobs_script
from pg_bridge.jobs import keeper, kept, running
from pg_bridge.jobs.database import Database, Session
from pg_bridge.jobs.engines import Engines
from pg_bridge.jobs.keeper import APPLICATION, Keeper
from pg_bridge.jobs.kept import CHANNEL
from pg_bridge.options import Server
from pg_bridge.testing.behaviour import choose
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import create_server

PROMPT = "Is {review} kind?"
_numbers = count(1)


def kind_of(review: str | None, prompt: str = "Is review kind?") -> str:
    return choose(f"{prompt}\n{json.dumps({'review': review}, ensure_ascii=False)}", ["yes", "no"])


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "this takes too long"
        time.sleep(0.01)


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
        while self.keeper.work():
            pass
        return len(self.engine.received.prompts)

    def step(self) -> bool:
        return self.keeper.work()

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
        assert wrong == [], wrong[:5]


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
        if schema == "llm":
            create_server(admin, engine.url)
            admin.execute("GRANT USAGE ON FOREIGN SERVER vllm TO ana")
        yield Shop(conn, admin, engine, dsn, schema, said, stack.enter_context(keeping(dsn, schema, engine, said)))


@contextmanager
def keeping(
    dsn: str,
    schema: str,
    engine: EngineDouble,
    said: list[str],
    endpoint: str | None = None,
    ledger: Path | None = None,
) -> Iterator[Keeper]:
    as_keeper = psycopg.conninfo.make_conninfo(dsn, user="keeper")
    engines = Engines(schema, {"vllm": Server("vllm", endpoint or engine.url)})
    with closing(Database(as_keeper, session=Session(APPLICATION))) as database:
        database.connect()
        database.run(lambda connection: connection.execute(f"LISTEN {CHANNEL}".encode()))
        with closing(Keeper(as_keeper, database, engines, ledger=ledger, say=said.append)) as keeper:
            yield keeper


@pytest.fixture
def shop(
    cluster: Cluster,
    administer: Callable[[str], None],
    engine: EngineDouble,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    monkeypatch.setattr(running, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(keeper, "STEP_PATIENCE_S", 0.0)
    monkeypatch.setattr(keeper, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(kept, "FIRST_BACKOFF_S", 0.0)
    with opened(cluster, administer, engine, schema) as made:
        yield made


@contextmanager
def worker_of(shop: Shop, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A `pg-bridge worker` that has logged in as `keeper`; killed in the end, if it has not ended."""
    program = "from pg_bridge.cli import main; raise SystemExit(main())"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PG", "PG_BRIDGE"))},
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(shop.conn.info.port),
        "PGUSER": "keeper",
        "PGDATABASE": shop.conn.info.dbname,
        **({"PG_BRIDGE_ENDPOINT": shop.engine.url} if shop.schema == "llm_jobs" else {}),
    }
    command = [sys.executable, "-c", program, "worker", *words]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


on_rented = pytest.mark.parametrize("schema", ["llm_jobs"], indirect=True)
"""What is the same SQL on both is tried on one."""


def during(act: Callable[[], None]) -> Callable[[str], str]:
    """Answers as the double does, and does something before the first answer."""
    acts = [act]

    def answer(prompt: str) -> str:
        if acts:
            acts.pop()()
        return choose(prompt, ["yes", "no"])

    return answer


@pytest.fixture
def joe(shop: Shop) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shop.dsn, user="joe", autocommit=True) as conn:
        yield conn
