"""A statement that waited for another's row looks at it again (EvalPlanQual), through batch nodes as without them."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from tests.conftest import Connect, Database
from tests.integration.batch_functions import make_functions, make_tables

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

STATEMENTS = [
    "UPDATE a SET g = g + 100 WHERE word(t, 1) LIKE 'word%' RETURNING id, g",
    "UPDATE a SET t = word(t, 7) WHERE id BETWEEN 1 AND 6 RETURNING id, t",
    "UPDATE a SET g = 1 FROM b WHERE b.a_id = a.id AND word(b.t, 1) <> word(a.t, 1) AND passes(a, 2)"
    " RETURNING a.id, a.t",
    "UPDATE a SET g = (SELECT length(max(word(b.t, 1))) FROM b WHERE b.a_id = a.id) WHERE id < 9 RETURNING id, g, t",
    "UPDATE a SET t = s.w || a.t FROM (SELECT id, word(t, 9) AS w FROM a AS x ORDER BY id LIMIT 8) AS s"
    " WHERE s.id = a.id RETURNING a.id, a.t",
    "DELETE FROM a WHERE word(t, 1) LIKE 'word%' AND id < 9 RETURNING id",
    "SELECT id, word(t, 2) FROM a WHERE id < 9 ORDER BY id FOR UPDATE",
    "SELECT a.id, word(a.t, 2), b.id FROM a JOIN b ON b.a_id = a.id WHERE word(a.t, 1) <> 'changed-1' FOR UPDATE OF a",
]


@pytest.fixture
def host() -> str:
    return "plpython"


@pytest.fixture
def tables(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    return db


def outcome_of_waiting(statement: str, batching: str, connect: Connect, watcher: Conn) -> list[tuple[Any, ...]]:
    """What a statement returns that had to wait for a change of rows 3 and 4; nothing is left changed."""
    first, second = connect(autocommit=False), connect(autocommit=False)
    second.execute(f"SET pg_bridge.batching = {batching}")
    second.commit()
    first.execute("UPDATE a SET t = 'Changed' WHERE id IN (3, 4)")
    found: list[tuple[Any, ...]] = []
    waiting = threading.Thread(target=lambda: found.extend(second.execute(statement).fetchall()))
    waiting.start()
    pid = second.info.backend_pid
    deadline = time.monotonic() + 60
    while not watcher.execute("SELECT pg_blocking_pids(%s) <> '{}'", [pid]).fetchall()[0][0]:
        assert waiting.is_alive(), "the statement did not wait"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.commit()
    waiting.join()
    second.rollback()
    watcher.execute("UPDATE a SET t = 'Word ' || id % 9 WHERE id IN (3, 4)")
    return sorted(found, key=str)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_changed_row_is_looked_at_again(tables: Conn, connect: Connect, statement: str) -> None:
    alone, batched = (outcome_of_waiting(statement, setting, connect, tables) for setting in ("off", "on"))
    assert batched == alone
    assert batched != sorted(outcome_of_nobody(statement, connect), key=str)  # so the change did matter


def outcome_of_nobody(statement: str, connect: Connect) -> list[tuple[Any, ...]]:
    with connect(autocommit=False) as alone:
        found = alone.execute(statement).fetchall()
        alone.rollback()
    return found
