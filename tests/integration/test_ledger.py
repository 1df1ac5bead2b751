"""The ledger: what has been answered is found again, by whoever may, and by nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server

MULTICORN_IS_SLOW = True
KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

ROWS = "SELECT i AS id, 'review ' || i AS review FROM generate_series(1, 50) AS i"
MAP = f"SELECT row_id, output FROM llm.map('{ROWS.replace(chr(39), chr(39) * 2)}', 'Is {{review}} kind?')"


@pytest.fixture
def conn(db: Conn, engine: EngineDouble, database: Database) -> Conn:
    """A superuser's connection; its server keeps answers, as a new one does."""
    create_server(db, engine.url, cache="persistent")
    db.execute("CREATE TABLE reviews AS " + ROWS)
    return db


def test_an_answer_is_found_again(conn: Conn, asked: Callable[[], int], connect: Connect) -> None:
    first = sorted(conn.execute(MAP).fetchall())
    assert asked() == 50
    assert sorted(conn.execute(MAP).fetchall()) == first
    assert sorted(connect().execute(MAP).fetchall()) == first
    assert asked() == 0
    run = conn.execute("SELECT rows, unique_prompts, from_cache, requests FROM llm.last_run()").fetchone()
    assert run == (50, 0, 50, 0)


@pytest.mark.parametrize("how", ["ROLLBACK", "error", "read only"])
def test_what_was_answered_outlives_its_transaction(
    conn: Conn, asked: Callable[[], int], how: str, database: Database
) -> None:
    if how == "read only" and database.host == "multicorn":
        pytest.skip("llm.map stages rows, which a read-only transaction may not")
    conn.execute("BEGIN READ ONLY" if how == "read only" else "BEGIN")
    conn.execute(MAP)
    if how == "error":
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("SELECT 1/0")
    conn.execute("ROLLBACK")
    assert asked() == 50
    conn.execute(MAP)
    assert asked() == 0


def test_only_what_is_new_is_asked(conn: Conn, asked: Callable[[], int]) -> None:
    conn.execute(
        "CREATE MATERIALIZED VIEW kind AS SELECT id, llm.complete('Is {review} kind?', r) AS kind FROM reviews AS r"
    )
    assert asked() == 50
    conn.execute("INSERT INTO reviews SELECT i, 'review ' || i FROM generate_series(51, 60) AS i")
    conn.execute("REFRESH MATERIALIZED VIEW kind")
    assert asked() == 10
    assert conn.execute("SELECT count(*), count(DISTINCT kind) FROM kind").fetchone() == (60, 60)


def test_three_ways_in_and_any_order_of_columns_are_one_question(
    conn: Conn, asked: Callable[[], int], database: Database
) -> None:
    conn.execute("SELECT * FROM llm.map('SELECT review, id FROM reviews', 'Is {review} of {id} kind?')")
    assert asked() == 50
    conn.execute("SELECT * FROM llm.map('SELECT id, review FROM reviews ORDER BY 1 DESC', 'Is {review} of {id} kind?')")
    conn.execute("SELECT llm.complete('Is {review} of {id} kind?', r) FROM reviews AS r")
    assert asked() == 0
    make_foreign_table(conn, database)
    kinds = conn.execute("SELECT id, kind FROM asked ORDER BY id").fetchall()
    assert asked() == 0
    assert (
        kinds
        == conn.execute(
            "SELECT id, llm.complete('Is {review} of {id} kind?', r) FROM reviews AS r ORDER BY id"
        ).fetchall()
    )


def test_a_foreign_table_is_read_in_a_read_only_transaction(
    conn: Conn, asked: Callable[[], int], database: Database
) -> None:
    make_foreign_table(conn, database)
    for expected in (50, 0):
        conn.execute("BEGIN READ ONLY")
        assert len(conn.execute("SELECT kind FROM asked").fetchall()) == 50
        conn.execute("ROLLBACK")
        assert asked() == expected


def test_the_native_module_is_not_needed(
    conn: Conn, asked: Callable[[], int], connect: Connect, database: Database, without_module: Path
) -> None:
    for setting in (f"dynamic_library_path = '{without_module}'", "session_preload_libraries = '$libdir/plpgsql'"):
        conn.execute(f"ALTER DATABASE {database.name} SET {setting}")
    for expected in (51, 0):
        session = connect()
        session.execute(MAP)
        session.execute("SELECT llm.complete('Is {review} short?', r) FROM reviews AS r WHERE id = 1")
        assert asked() == expected


def make_foreign_table(conn: Conn, database: Database) -> None:
    if database.host == "multicorn":
        conn.execute("ALTER SERVER vllm OPTIONS (ADD wrapper 'pg_bridge.multicorn.wrapper.Wrapper')")
        conn.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user 'postgres')")
    conn.execute(
        "CREATE FOREIGN TABLE asked (id int, review text, kind text OPTIONS (prompt 'Is {review} of {id} kind?'))"
        " SERVER vllm OPTIONS (source 'reviews')"
    )


@pytest.mark.parametrize(
    "other",
    [
        "max_tokens => 5",
        "temperature => 0.5, cache => 'persistent'",
        "system_prompt => ''",
        "choices => '{yes,no}'",
        "cache => 'transaction'",
        "cache => 'off'",
        "dedup => false",
        "max_age => 0",
    ],
)
def test_what_an_answer_depends_on_makes_another_question(conn: Conn, asked: Callable[[], int], other: str) -> None:
    conn.execute(MAP)
    asked()
    time.sleep(1.1 if "max_age" in other else 0)  # ages are whole seconds
    conn.execute(MAP.replace("kind?')", f"kind?', {other})"))
    assert asked() == 50


@pytest.mark.parametrize(
    "change",
    [
        "ALTER SERVER vllm OPTIONS (ADD model 'double-model')",
        "ALTER SERVER vllm OWNER TO somebody",
        "ALTER SERVER vllm OPTIONS (ADD cache_scope 'role')",
        "ALTER SERVER vllm OPTIONS (SET cache 'off')",
    ],
)
def test_what_a_server_is_makes_another_question(
    conn: Conn, asked: Callable[[], int], engine: EngineDouble, change: str
) -> None:
    conn.execute(MAP)
    asked()
    if "model" in change:
        engine.behaviour.models = ("double-model",)
    if "somebody" in change:
        conn.execute("CREATE ROLE somebody SUPERUSER")
    conn.execute(change)
    conn.execute(MAP)
    assert asked() == 50
    conn.execute("ALTER SERVER vllm OWNER TO CURRENT_USER")
    conn.execute("DROP ROLE IF EXISTS somebody")


def test_temperatures_above_zero_are_asked_anew(conn: Conn, asked: Callable[[], int]) -> None:
    for _ in range(2):
        conn.execute(MAP.replace("kind?')", "kind?', temperature => 0.7)"))
        assert asked() == 50


def test_off_forgets_within_the_statement(conn: Conn, asked: Callable[[], int]) -> None:
    query = "SELECT llm.complete('Is {review} kind?', r, cache => %s) FROM reviews AS r UNION ALL " * 2
    query = query.removesuffix(" UNION ALL ")
    conn.execute(query, ["transaction"] * 2)
    assert asked() in (50, 100)  # 100 where each call is a statement of its own
    conn.execute(query, ["off"] * 2)
    assert asked() == 100


def test_failures_are_not_kept(conn: Conn, asked: Callable[[], int], engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = "review 7"
    query = MAP.replace("kind?')", "kind?', on_error => 'null')")
    assert sum(output is None for _, output in conn.execute(query).fetchall()) == 1
    engine.behaviour.reject_marker = ""
    asked()
    assert all(output is not None for _, output in conn.execute(query).fetchall())
    assert asked() == 1


def test_a_dead_engine_is_not_needed_for_what_is_known(conn: Conn) -> None:
    with EngineDouble() as engine:
        conn.execute("ALTER SERVER vllm OPTIONS (ADD connect_timeout_s '0.3', ADD patience_s '0.3')")
        conn.execute(f"ALTER SERVER vllm OPTIONS (SET endpoint '{engine.url}')")
        known = sorted(conn.execute(MAP).fetchall())
    assert sorted(conn.execute(MAP).fetchall()) == known
    with pytest.raises(psycopg.errors.SqlclientUnableToEstablishSqlconnection):
        conn.execute(MAP.replace("kind?", "long?"))


def test_roles_share_answers_unless_they_are_kept_apart(
    conn: Conn, asked: Callable[[], int], role: Callable[[str], Conn]
) -> None:
    reader = role("reader")
    conn.execute("GRANT USAGE ON FOREIGN SERVER vllm TO reader")
    conn.execute(MAP)
    assert asked() == 50
    reader.execute(MAP)
    assert asked() == 0
    conn.execute("ALTER SERVER vllm OPTIONS (ADD cache_scope 'role')")
    conn.execute(MAP)
    reader.execute(MAP)
    reader.execute(MAP)
    assert asked() == 100


@pytest.mark.new_database
def test_stats_and_clear_are_for_whom_they_are(
    conn: Conn, asked: Callable[[], int], role: Callable[[str], Conn]
) -> None:
    conn.execute(MAP)
    (stats,) = conn.execute(
        "SELECT server, answers, bytes > 1000, oldest > now() - interval '1 hour' FROM llm.cache_stats()"
    )
    assert stats == ("vllm", 50, True, True)
    reader = role("reader")
    assert reader.execute("SELECT * FROM llm.cache_stats()").fetchall() == []
    conn.execute("GRANT USAGE ON FOREIGN SERVER vllm TO reader")
    assert len(reader.execute("SELECT * FROM llm.cache_stats()").fetchall()) == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match='must be owner of foreign server "vllm"'):
        reader.execute("SELECT llm.cache_clear('vllm')")
    assert reader.execute("SELECT llm.cache_clear()").fetchone() == (0,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT llm.usage_reset()")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("""SELECT llm._ledger('{"do": "usage_reset"}')""")
    assert conn.execute("SELECT llm.cache_clear('vllm', older_than => '1 hour')").fetchone() == (0,)
    assert conn.execute("SELECT llm.cache_clear('vllm')").fetchone() == (50,)
    conn.execute(MAP)
    assert asked() == 100


def test_usage_is_seen_by_its_role(conn: Conn, role: Callable[[str], Conn]) -> None:
    conn.execute("SELECT llm.usage_reset()")
    conn.execute("BEGIN")
    conn.execute(MAP)
    conn.execute("ROLLBACK")
    conn.execute(MAP)
    reader = role("reader")
    conn.execute("GRANT USAGE ON FOREIGN SERVER vllm TO reader")
    reader.execute(MAP.replace("kind", "short"))
    figures = "SELECT role::text, server, statements, rows, questions, from_cache, failures FROM llm.usage() ORDER BY 1"
    mine, its = ("postgres", "vllm", 2, 100, 50, 50, 0), ("reader", "vllm", 1, 50, 50, 0, 0)
    assert reader.execute(figures).fetchall() == [its]
    assert conn.execute(figures).fetchall() == [mine, its]
    tokens = conn.execute(
        "SELECT sum(prompt_tokens) > 0, sum(requests) > 0, sum(seconds) > 0 FROM llm.usage()"
    ).fetchone()
    assert tokens == (True, True, True)
    conn.execute("SELECT llm.usage_reset()")
    assert reader.execute(figures).fetchall() == []


@pytest.fixture
def role(conn: Conn, connect: Connect) -> Iterator[Callable[[str], Conn]]:
    """Make a role without rights, and connect as it; it is gone afterwards."""
    made: list[str] = []

    def make(name: str) -> Conn:
        conn.execute(f"CREATE ROLE {name} LOGIN")
        made.append(name)
        return connect(user=name)

    yield make
    for name in made:
        conn.execute(f"DROP OWNED BY {name}")
        conn.execute(f"DROP ROLE {name}")


def folder(conn: Conn) -> Path:
    (data,) = conn.execute("SHOW data_directory").fetchone() or ("",)
    return Path(data, "pg_bridge")


def test_its_files_are_the_server_s_alone(conn: Conn) -> None:
    conn.execute("SELECT llm.complete('A discreet question on {a}?', jsonb_build_object('a', 'a discreet value'))")
    assert folder(conn).stat().st_mode & 0o777 == 0o700
    files = {path.name: path.stat().st_mode & 0o777 for path in folder(conn).iterdir()}
    assert "ledger.db" in files
    assert set(files.values()) == {0o600}
    written = b"".join(path.read_bytes() for path in folder(conn).iterdir())
    assert b"discreet" not in written


def test_nobody_else_says_where_it_is(
    conn: Conn, asked: Callable[[], int], role: Callable[[str], Conn], tmp_path: Path
) -> None:
    conn.execute("GRANT USAGE ON FOREIGN SERVER vllm TO PUBLIC")
    conn.execute(MAP)
    asked()
    reader = role("reader")
    # Without the module it is a name like any other, and says nothing; with it, it cannot be set.
    with suppress(psycopg.errors.CantChangeRuntimeParam, psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT set_config('pg_bridge.ledger_directory', %s, false)", [str(tmp_path)])
    reader.execute(MAP)
    assert asked() == 0
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_kept(conn: Conn, asked: Callable[[], int], database: Database) -> None:
    if not database.cluster.has_module:
        pytest.skip("the setting is the native module's")
    conn.execute("LOAD 'pg_bridge'")
    conn.execute("ALTER SYSTEM SET pg_bridge.ledger_directory = ''")
    try:
        conn.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + 30
        while conn.execute("SHOW pg_bridge.ledger_directory").fetchone() != ("",) and time.monotonic() < until:
            pass
        for _ in range(2):
            conn.execute(MAP)
            assert asked() == 50
    finally:
        conn.execute("ALTER SYSTEM RESET pg_bridge.ledger_directory")
        conn.execute("SELECT pg_reload_conf()")


def test_prompts_are_kept_on_demand(conn: Conn) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD cache_prompts 'true')")
    conn.execute(MAP.replace("kind", "unheard of"))
    assert b"unheard of" in b"".join(path.read_bytes() for path in folder(conn).iterdir())


def test_a_damaged_ledger_is_set_aside(conn: Conn, asked: Callable[[], int], connect: Connect) -> None:
    before = sorted(conn.execute(MAP).fetchall())
    for path in folder(conn).iterdir():
        if path.name.startswith("ledger.db"):
            path.write_bytes(b"nonsense" * 4096)
    asked()
    other = connect()
    said: list[str] = []
    other.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    assert sorted(other.execute(MAP).fetchall()) == before
    assert asked() == 50
    assert len(said) == 1
    assert "was damaged and has been set aside" in said[0]
    assert sorted(other.execute(MAP).fetchall()) == before
    assert asked() == 0
    assert sorted(conn.execute(MAP).fetchall()) == before  # it had the old one open


def test_a_ledger_that_was_removed_is_begun_anew(conn: Conn, asked: Callable[[], int]) -> None:
    conn.execute(MAP)
    for path in folder(conn).iterdir():
        path.unlink()
    asked()
    conn.execute(MAP)
    assert asked() == 50
    conn.execute(MAP)
    assert asked() == 0
