"""The database that tests of a module use one after the other is as new to each of them, and its session is not."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.conftest import MakeDatabase, create_server
from tests.kept_database import EXTENSIONS_SCHEMA, KeptSession

LEFT = """
SELECT (SELECT count(*) FROM pg_class WHERE relname IN ('t', 'u', 'v') OR relpersistence = 't'),
       (SELECT count(*) FROM pg_type WHERE typname = 'mood'),
       (SELECT count(*) FROM pg_namespace WHERE nspname = 'other'),
       (SELECT count(*) FROM pg_roles WHERE rolname = 'somebody'),
       (SELECT count(*) FROM pg_foreign_server WHERE srvname = 'vllm'),
       (SELECT count(*) FROM pg_db_role_setting),
       current_setting('work_mem')
"""


@pytest.fixture
def kept(make_database: MakeDatabase, host: str) -> Iterator[KeptSession]:
    with make_database(host, EXTENSIONS_SCHEMA) as database:
        session = KeptSession(database.dsn)
        yield session
        session.close()


def test_nothing_is_left_but_the_session(kept: KeptSession) -> None:
    conn = kept.borrow()
    pid, before = conn.info.backend_pid, conn.execute(LEFT).fetchone()
    create_server(conn, "http://127.0.0.1:9")
    conn.execute(
        "CREATE TABLE t (i int); CREATE TYPE mood AS ENUM ('sad'); CREATE SCHEMA other; CREATE TABLE other.u (i int);"
        "CREATE ROLE somebody; GRANT USAGE ON FOREIGN SERVER vllm TO somebody;"
        "GRANT CREATE ON SCHEMA public TO somebody; CREATE TEMP TABLE v (i int); SET work_mem = '1MB'"
    )
    conn.execute(f"ALTER DATABASE {conn.info.dbname} SET work_mem = '2MB'")
    assert conn.execute(LEFT).fetchone() == (3, 1, 1, 1, 1, 1, "1MB")
    conn.execute("SET ROLE somebody; BEGIN")
    with pytest.raises(psycopg.errors.DivisionByZero):
        conn.execute("SELECT 1 / 0")
    kept.reset()
    conn = kept.borrow()
    assert conn.info.backend_pid == pid
    assert conn.execute(LEFT).fetchone() == before
    assert conn.execute("SELECT current_user, has_schema_privilege('public', 'CREATE')").fetchone() == (
        "postgres",
        True,
    )


@pytest.mark.parametrize(
    "change",
    [
        "REVOKE EXECUTE ON FUNCTION llm.version() FROM PUBLIC",
        "ALTER FUNCTION llm.version() SET work_mem = '1MB'",
        "CREATE FUNCTION llm.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FOREIGN DATA WRAPPER pg_bridge NO HANDLER",
    ],
)
@pytest.mark.parametrize("host", ["plpython"])
def test_a_change_of_the_extension_fails_the_test_that_made_it(kept: KeptSession, change: str) -> None:
    kept.borrow().execute(change.encode())
    with pytest.raises(AssertionError, match="new_database"):
        kept.reset()


def test_a_session_that_has_ended_is_replaced(kept: KeptSession) -> None:
    kept.borrow().close()
    assert kept.borrow().execute("SELECT 1").fetchone() == (1,)
