"""Who answers whose calls: registrations as settings of functions, what is trusted, and what kept plans see of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Connect, Database
from tests.integration.batch_functions import calls, make_functions, make_tables

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

WORD_BATCH = """
CREATE FUNCTION word_batch(statement bigint, node int, t json[], n json[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note('word', cardinality(t));
    RETURN ARRAY(SELECT lower(a #>> '{}') || '-' || (b #>> '{}')
                 FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;
"""
BATCHED = {"word": (1, 60)}


@pytest.fixture(params=["plpython"])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)  # the other has no batches


@pytest.fixture
def own(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    return db


@pytest.fixture
def roles(own: Conn) -> Iterator[list[str]]:
    """Two roles that may make functions in `public`, and note calls."""
    names = ["ann", "bob"]
    for name in names:
        own.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        own.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(name)))
    own.execute("GRANT SELECT, INSERT ON a, called TO PUBLIC")
    yield names
    for name in names:
        own.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))


def words(conn: Conn) -> list[str]:
    return [word for (word,) in conn.execute("SELECT word(t, g) FROM a ORDER BY id").fetchall()]


def registered(conn: Conn, function: str = "word(text,integer)") -> list[tuple[Any, ...]]:
    return conn.execute(
        "SELECT batch::text, report::text FROM llm.batch_function WHERE function = %s::regprocedure", [function]
    ).fetchall()


# -- what is trusted


@pytest.mark.parametrize("kind", ["table", "view"])
def test_a_fake_registry_counts_for_nothing(batching: Database, kind: str) -> None:
    cluster, name = batching.cluster, f"{batching.name}_fake"
    relation = {
        "table": "CREATE TABLE llm.batch_function (function regprocedure, batch regprocedure, report regprocedure);"
        "INSERT INTO llm.batch_function VALUES ('trusted(text)', 'g(bigint, int, json[])')",
        "view": "CREATE VIEW llm.batch_function AS SELECT 'trusted(text)'::regprocedure AS function,"
        " 'g(bigint, int, json[])'::regprocedure AS batch, NULL::regprocedure AS report",
    }[kind]
    cluster.psql(f"CREATE ROLE mallory LOGIN; CREATE DATABASE {name} OWNER mallory")
    try:
        with psycopg.connect(cluster.dsn_of(name), user="mallory", autocommit=True) as mallory:
            mallory.execute(
                "CREATE SCHEMA llm; CREATE TABLE rows AS SELECT 'mine'::text AS t FROM generate_series(1, 3)"
            )
            mallory.execute(
                "CREATE FUNCTION g(s bigint, n int, t json[]) RETURNS text[] LANGUAGE plpgsql AS $$"
                " BEGIN ALTER ROLE mallory SUPERUSER; RETURN array_fill('stolen'::text, ARRAY[cardinality(t)]); END $$"
            )
        # The called function is the superuser's own: whoever calls mallory's functions runs mallory's code.
        cluster.psql(
            "CREATE FUNCTION trusted(t text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN t; END'",
            database=name,
        )
        with psycopg.connect(cluster.dsn_of(name), user="mallory", autocommit=True) as mallory:
            mallory.execute(relation.encode())
        with psycopg.connect(cluster.dsn_of(name), autocommit=True) as conn:
            assert conn.execute("SELECT trusted(t) FROM rows").fetchall() == [("mine",)] * 3
            assert conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'").fetchone() == (False,)
    finally:
        cluster.psql(f"DROP DATABASE {name} WITH (FORCE); DROP ROLE mallory")


def test_registering_wants_the_owner_of_the_function(own: Conn, connect: Connect, roles: list[str]) -> None:
    ann = connect(user="ann")
    ann.execute(
        "CREATE FUNCTION mine(t text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN t; END';"
        "CREATE FUNCTION mine_batch(s bigint, n int, t json[]) RETURNS text[] LANGUAGE sql AS"
        " $$ SELECT note('mine', cardinality(t)); SELECT ARRAY(SELECT x #>> '{}' FROM unnest(t) AS x) $$"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of function"):
        ann.execute("SELECT llm.register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of function"):
        ann.execute("SELECT llm.unregister_batch('word(text, int)')")
    ann.execute("SELECT llm.register_batch('mine(text)', 'mine_batch(bigint, int, json[])')")
    assert own.execute("SELECT mine(t) FROM a WHERE id <= 2 ORDER BY id").fetchall() == [("Word 1",), ("Word 2",)]
    assert calls(own) == {"mine": (1, 2)}
    bob = connect(user="bob")
    bob.execute("CREATE FUNCTION his(t text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN t; END'")
    with pytest.raises(psycopg.errors.InvalidFunctionDefinition) as raised:
        bob.execute("SELECT llm.register_batch('his(text)', 'mine_batch(bigint, int, json[])')")
    assert "owner" in str(raised.value.diag.message_hint)
    # Past the check, the name counts for nothing: a stranger's function does not answer.
    bob.execute("ALTER FUNCTION his(text) SET pg_bridge.batch = 'public.mine_batch'")
    assert own.execute("SELECT count(his(t)) FROM a").fetchone() == (52,)
    assert calls(own) == {}
    assert registered(own, "his(text)") == [(None, None)]


def test_nobody_takes_the_name_of_a_batch_function(own: Conn, connect: Connect, roles: list[str]) -> None:
    mallory = connect(user="bob")
    before = words(own)
    assert calls(own) == BATCHED
    own.execute("DROP FUNCTION word_batch(bigint, int, json[], json[])")
    assert (words(own), calls(own)) == (before, {})
    mallory.execute(WORD_BATCH)
    assert (words(own), calls(own)) == (before, {})
    assert registered(own) == [(None, None)]
    own.execute("ALTER FUNCTION word_batch(bigint, int, json[], json[]) OWNER TO postgres")
    assert (words(own), calls(own)) == (before, BATCHED)


def test_a_superuser_s_function_answers_as_long_as_he_is_one(own: Conn, roles: list[str]) -> None:
    own.execute("ALTER FUNCTION word(text, int) OWNER TO ann; ALTER ROLE bob SUPERUSER")
    own.execute("ALTER FUNCTION word_batch(bigint, int, json[], json[]) OWNER TO bob")
    own.execute("SET plan_cache_mode = force_generic_plan; PREPARE p AS SELECT count(word(t, g)) FROM a")
    for expected in (BATCHED, {}, BATCHED):
        own.execute("EXECUTE p")
        assert calls(own) == expected
        own.execute("ALTER ROLE bob NOSUPERUSER" if expected else "ALTER ROLE bob SUPERUSER")


def test_a_leakproof_function_wants_a_leakproof_answer(own: Conn) -> None:
    own.execute("ALTER FUNCTION word(text, int) LEAKPROOF")
    words(own)
    assert calls(own) == {}
    assert registered(own) == [(None, None)]
    with pytest.raises(psycopg.errors.InvalidFunctionDefinition) as raised:
        own.execute("SELECT llm.register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])')")
    assert "LEAKPROOF" in str(raised.value.diag.message_hint)
    own.execute("ALTER FUNCTION word_batch(bigint, int, json[], json[]) LEAKPROOF")
    words(own)
    assert calls(own) == BATCHED


@pytest.mark.parametrize(
    ("called", "answering", "fits"),
    [
        ("SAFE", "UNSAFE", False),
        ("SAFE", "RESTRICTED", False),
        ("SAFE", "SAFE", True),
        ("RESTRICTED", "UNSAFE", False),
        ("RESTRICTED", "SAFE", True),
        ("UNSAFE", "SAFE", True),
    ],
)
def test_parallel_labels_are_compared(own: Conn, called: str, answering: str, fits: bool) -> None:
    own.execute(sql.SQL("ALTER FUNCTION word(text, int) PARALLEL {}").format(sql.SQL(called)))
    own.execute(
        sql.SQL("ALTER FUNCTION word_batch(bigint, int, json[], json[]) PARALLEL {}").format(sql.SQL(answering))
    )
    register = "SELECT llm.register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])')"
    if fits:
        own.execute(register.encode())
    else:
        with pytest.raises(psycopg.errors.InvalidFunctionDefinition) as raised:
            own.execute(register.encode())
        assert "PARALLEL" in str(raised.value.diag.message_hint)
    words(own)  # it was registered before the labels were changed
    assert calls(own) == (BATCHED if fits else {})
    assert registered(own) == [("word_batch(bigint,integer,json[],json[])" if fits else None, None)]


def test_a_report_function_is_as_trusted_as_a_batch_function(own: Conn, connect: Connect, roles: list[str]) -> None:
    bob = connect(user="bob")
    bob.execute(
        "CREATE FUNCTION told(s bigint, n int) RETURNS text[] LANGUAGE sql AS $$ SELECT '{Told,bob}'::text[] $$"
    )
    own.execute("ALTER FUNCTION word(text, int) SET pg_bridge.report = 'public.told'")
    explain = "EXPLAIN (ANALYZE, COSTS OFF) SELECT word(t, g) FROM a"
    assert "Told" not in str(own.execute(explain.encode()).fetchall())
    assert registered(own) == [("word_batch(bigint,integer,json[],json[])", None)]
    own.execute("ALTER FUNCTION told(bigint, int) OWNER TO postgres")
    assert "Told: bob" in str(own.execute(explain.encode()).fetchall())


@pytest.mark.parametrize(
    "call",
    [
        "unregister_batch('word(text, int)')",
        "register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])')",
    ],
)
def test_planted_operators_are_not_called(own: Conn, call: str) -> None:
    own.execute(
        "CREATE FUNCTION planted(regprocedure, regprocedure) RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'planted'; END $$;"
        "CREATE OPERATOR public.= (LEFTARG = regprocedure, RIGHTARG = regprocedure, PROCEDURE = planted);"
        "CREATE FUNCTION planted(oid, oid) RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'planted'; END $$;"
        "CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, PROCEDURE = planted);"
        "CREATE OPERATOR public.<> (LEFTARG = oid, RIGHTARG = oid, PROCEDURE = planted)"
    )
    own.execute("SET search_path = public, pg_catalog")
    own.execute(f"SELECT llm.{call}".encode())
    own.execute("SELECT * FROM llm.batch_function")


# -- names


@pytest.mark.parametrize(
    ("schema", "function"),
    [
        ("public", "Ünï"),
        ('sch"ema', 'w"o.r,d'),
        ("a.b", "c d"),
        ("S$1", "select"),
        ("x" * 63, "y" * 60),
        ("ab\ncd", "e\\'f"),
    ],
)
def test_names_are_quoted(own: Conn, schema: str, function: str) -> None:
    if schema != "public":
        own.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    called = sql.Identifier(schema, function)
    batch = sql.Identifier(schema, f"{function}_b")
    own.execute(
        sql.SQL("CREATE FUNCTION {}(t text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN t; END'").format(
            called
        )
    )
    own.execute(
        sql.SQL(
            "CREATE FUNCTION {}(s bigint, n int, t json[]) RETURNS text[] LANGUAGE sql SET search_path = public AS"
            " $$ SELECT note('odd', cardinality(t)); SELECT ARRAY(SELECT x #>> '{{}}' FROM unnest(t) AS x) $$"
        ).format(batch)
    )
    arguments = [f"{called.as_string(own)}(text)", f"{batch.as_string(own)}(bigint, int, json[])"]
    own.execute("SELECT llm.register_batch(%s, %s)", arguments)
    own.execute("SET search_path = pg_catalog")
    assert own.execute(
        "SELECT batch = %s::regprocedure FROM llm.batch_function WHERE function = %s::regprocedure", arguments[::-1]
    ).fetchall() == [(True,)]
    own.execute(sql.SQL("SELECT {}(t) FROM public.a").format(called))
    own.execute("RESET search_path")
    assert calls(own) == {"odd": (1, 60)}
    assert own.execute("SELECT llm.unregister_batch(%s)", arguments[:1]).fetchone() == (True,)
    assert registered(own, arguments[0]) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "word_batch",
        "public.",
        ".word_batch",
        "a.b.c",
        "public.word_batch(bigint, int, json[], json[])",
        'public."word_batch',
        'public.""',
        "public.passes_batch",
        "nowhere.word_batch",
        "public.word",
        "1.2",
        "public.word_batch, public.word_batch",
        "é" * 50_000,
        "public." + "w" * 100_000,
        "." * 1000,
    ],
)
def test_a_name_that_leads_nowhere_leaves_calls_as_they_are(own: Conn, name: str) -> None:
    before = words(own)
    calls(own)
    own.execute(sql.SQL("ALTER FUNCTION word(text, int) SET pg_bridge.batch = {}").format(sql.Literal(name)))
    assert (words(own), calls(own)) == (before, {})
    assert registered(own) == [(None, None)]


@pytest.mark.parametrize("name", ["PUBLIC.Word_Batch", ' "public" . word_batch ', 'public."word_batch"'])
def test_a_name_is_read_as_sql_reads_it(own: Conn, name: str) -> None:
    own.execute(sql.SQL("ALTER FUNCTION word(text, int) SET pg_bridge.batch = {}").format(sql.Literal(name)))
    words(own)
    assert calls(own) == BATCHED
    assert registered(own) == [("word_batch(bigint,integer,json[],json[])", None)]


def test_a_setting_of_anything_but_a_function_says_nothing(own: Conn, connect: Connect, database: Database) -> None:
    own.execute("SELECT llm.unregister_batch('word(text, int)')")
    try:
        own.execute("ALTER ROLE postgres SET pg_bridge.batch = 'public.word_batch'")
        own.execute(f"ALTER DATABASE {database.name} SET pg_bridge.report = 'public.word_batch'".encode())
        session = connect()
        words(session)
        session.execute("SET pg_bridge.batch = 'public.word_batch'")
        words(session)
    finally:
        own.execute("ALTER ROLE postgres RESET pg_bridge.batch")
    assert calls(own) == {}


def test_the_settings_of_functions_are_not_shown_as_a_session_s(own: Conn) -> None:
    shown = "SELECT name FROM pg_settings WHERE name LIKE 'pg_bridge.%'"
    assert {name for (name,) in own.execute(shown.encode()).fetchall()} == {
        "pg_bridge.batching",
        "pg_bridge.ledger_directory",
        "pg_bridge.ledger_size",
        "pg_bridge.window_rows",
    }
    with pytest.raises(psycopg.Error, match="cannot be changed"):
        own.execute("ALTER SYSTEM SET pg_bridge.batch = 'x.y'")


# -- what becomes of a registration


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER FUNCTION word(text, int) RENAME TO other; ALTER FUNCTION other(text, int) RENAME TO word", BATCHED),
        ("ALTER FUNCTION word(text, int) COST 5 STRICT", {"word": (1, 52)}),  # NULLs are not asked about
        ("CREATE SCHEMA s; ALTER FUNCTION word(text, int) SET SCHEMA s; SET search_path = public, s", BATCHED),
        ("ALTER FUNCTION word_batch(bigint, int, json[], json[]) RENAME TO word_answers", {}),
        ("CREATE SCHEMA s; ALTER FUNCTION word_batch(bigint, int, json[], json[]) SET SCHEMA s", {}),
        ("ALTER FUNCTION word(text, int) RESET ALL", {}),
        (
            "CREATE OR REPLACE FUNCTION word(t text, n int) RETURNS text LANGUAGE plpgsql STABLE AS"
            " $$ BEGIN RETURN lower(t) || '-' || n; END $$",
            {},
        ),
        (
            "CREATE OR REPLACE FUNCTION word(t text, n int) RETURNS text LANGUAGE plpgsql STABLE"
            " SET pg_bridge.batch = 'public.word_batch' AS $$ BEGIN RETURN lower(t) || '-' || n; END $$",
            BATCHED,
        ),
        (
            "DROP VIEW v; DROP FUNCTION word(text, int); CREATE FUNCTION word(t text, n int) RETURNS text"
            " LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN lower(t) || '-' || n; END $$",
            {},
        ),
    ],
)
def test_it_is_the_function_s(own: Conn, change: str, expected: dict[str, Any]) -> None:
    before = words(own)
    calls(own)
    own.execute(change.encode())
    assert (words(own), calls(own)) == (before, expected)


def test_it_is_dumped_with_the_function(own: Conn, database: Database) -> None:
    cluster, restored = database.cluster, f"{database.name}_restored"
    own.execute('ALTER FUNCTION word_batch(bigint, int, json[], json[]) RENAME TO "word\'s ""batch"""')
    own.execute(
        "SELECT llm.register_batch('word(text, int)', '\"word''s \"\"batch\"\"\"(bigint, int, json[], json[])')"
    )
    dump = subprocess.run(
        [cluster.binaries / "pg_dump", "--dbname", database.name],
        env=cluster.client_environment(database.name),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    cluster.psql(f"CREATE DATABASE {restored}")
    try:
        cluster.psql(dump, database=restored)
        with psycopg.connect(cluster.dsn_of(restored), autocommit=True) as conn:
            assert words(conn) == words(own)
            assert calls(conn) == BATCHED
            registered = "SELECT count(*) FROM llm.batch_function WHERE batch IS NOT NULL"
            assert conn.execute(registered).fetchone() == own.execute(registered).fetchone()
    finally:
        cluster.psql(f"DROP DATABASE {restored} WITH (FORCE)")


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_kept_plans_see_every_change(own: Conn, connect: Connect, mode: str) -> None:
    sessions = [own, connect()]
    for session in sessions:
        session.prepare_threshold = None  # psycopg must not DEALLOCATE ALL after DROP
        session.execute(sql.SQL("SET plan_cache_mode = {}").format(sql.Identifier(mode)))
        session.execute(
            "PREPARE p (int) AS SELECT word(t, g) FROM a WHERE id > $1 ORDER BY id;"
            "CREATE FUNCTION pg_temp.from_plpgsql() RETURNS bigint LANGUAGE plpgsql AS"
            " $$ BEGIN RETURN (SELECT count(word(t, g)) FROM a); END $$"
        )
    before = words(own)
    calls(own)
    twice = {"word": (2, 120)}
    recreate = (
        "CREATE FUNCTION word(t text, n int) RETURNS text LANGUAGE plpgsql STABLE AS"
        " $$ BEGIN RETURN lower(t) || '-' || n; END $$"
    )
    register = "SELECT llm.register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])')"
    for change, expected in [
        ("SELECT 1", twice),
        ("SELECT llm.unregister_batch('word(text, int)')", {}),
        (register, twice),
        ("DROP FUNCTION word_batch(bigint, int, json[], json[])", {}),
        (WORD_BATCH, twice),
        ("ALTER FUNCTION word_batch(bigint, int, json[], json[]) RENAME TO answers", {}),
        ("ALTER FUNCTION answers(bigint, int, json[], json[]) RENAME TO word_batch", twice),
        ("ALTER FUNCTION word(text, int) PARALLEL SAFE", {}),
        ("ALTER FUNCTION word_batch(bigint, int, json[], json[]) PARALLEL SAFE", twice),
        ("DROP VIEW v; DROP FUNCTION word(text, int); " + recreate, {}),
        (register, twice),
    ]:
        own.execute(change.encode())
        for session in sessions:
            assert [word for (word,) in session.execute("EXECUTE p (0)").fetchall()] == before
            assert session.execute("SELECT pg_temp.from_plpgsql()").fetchone() == (52,)
            assert calls(session) == expected, change


def test_a_registration_that_is_rolled_back_leaves_kept_plans_right(own: Conn) -> None:
    own.execute("SET plan_cache_mode = force_generic_plan; PREPARE p AS SELECT word(t, g) FROM a")
    own.execute("EXECUTE p")
    assert calls(own) == BATCHED
    with own.transaction(force_rollback=True):
        own.execute("SELECT llm.unregister_batch('word(text, int)')")
        own.execute("EXECUTE p")
        assert own.execute("SELECT count(*) FROM called").fetchone() == (0,)
    own.execute("EXECUTE p")
    assert calls(own) == BATCHED


def test_registering_and_calling_do_not_conflict_when_serializable(own: Conn, connect: Connect) -> None:
    other = connect(autocommit=False)
    other.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    own.execute("CREATE TABLE x (i int); CREATE TABLE y (i int)")
    own.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
    other.execute("SELECT count(word(t, g)) FROM a")
    own.execute("SELECT count(word(t, g)) FROM a")
    own.execute("SELECT llm.unregister_batch('word(text, int)'); INSERT INTO x VALUES (1)")
    other.execute("SELECT llm.unregister_batch('passes(anyelement, int)'); INSERT INTO y VALUES (1)")
    own.execute("COMMIT")
    other.commit()


# -- inside a batch function


def test_a_batch_function_may_call_its_own_function(own: Conn) -> None:
    own.execute(
        "CREATE OR REPLACE FUNCTION word_batch(statement bigint, node int, t json[], n json[]) RETURNS text[]"
        " LANGUAGE plpgsql AS $$ BEGIN PERFORM note('word', cardinality(t)); RETURN through(t, n); END $$;"
        "CREATE FUNCTION through(t json[], n json[]) RETURNS text[] LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN ARRAY(SELECT word(a #>> '{}', (b #>> '{}')::int)"
        " FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) WHERE word('x', 1) = 'x-1' ORDER BY o); END $$"
    )
    own.execute("SET plan_cache_mode = force_generic_plan")
    outside = "SELECT through(ARRAY['\"A\"', '\"B\"']::json[], '{1,2}')"
    expected = [None if t is None else f"{t.lower()}-{g}" for t, g in own.execute("SELECT t, g FROM a ORDER BY id")]
    for order in ([True, False, True], [False, True, False]):  # whichever made the plan that is kept
        own.execute("DISCARD PLANS")
        for is_outside in order:
            if is_outside:
                assert own.execute(outside.encode()).fetchone() == (["a-1", "b-2"],)
                assert calls(own)["word"][1] >= 2
            else:
                assert words(own) == expected
                assert calls(own) == BATCHED


def test_a_scan_begun_outside_is_plain_inside(own: Conn) -> None:
    own.execute(
        "CREATE OR REPLACE FUNCTION word_batch(statement bigint, node int, t json[], n json[]) RETURNS text[]"
        " LANGUAGE plpgsql AS $$ DECLARE c refcursor := 'c'; got text;"
        " BEGIN PERFORM note('word', cardinality(t)); FETCH c INTO got;"
        " RETURN array_fill(got, ARRAY[cardinality(t)]); END $$"
    )
    with own.transaction():
        own.execute("DECLARE c CURSOR FOR SELECT word(t, 7) FROM a WHERE id = 1")
        assert own.execute("SELECT DISTINCT word(t, g) FROM a").fetchall() == [("word 1-7",)]
    assert calls(own) == BATCHED


# -- functions of every kind

SHAPES = {
    "an output": ("shape(t text, OUT x int)", "int", "$$ BEGIN x := length(t); END $$", "json[]", "shape(t)"),
    "defaults": (
        "shape(t text, n int DEFAULT 3, m int DEFAULT 4) RETURNS int",
        "int",
        "$$ BEGIN RETURN length(t) + n * m; END $$",
        "json[], json[], json[]",
        "shape(m => id, t => t)",
    ),
    "polymorphic": (
        "shape(t anyelement) RETURNS text",
        "text",
        "$$ BEGIN RETURN t::text; END $$",
        "json[]",
        "shape(d)",
    ),
    "no arguments": ("shape() RETURNS int", "int", "$$ BEGIN RETURN 1; END $$", None, "shape()"),
    "a domain": (
        "shape(t text) RETURNS positive",
        "positive",
        "$$ BEGIN RETURN length(t); END $$",
        "json[]",
        "shape(t)",
    ),
    "a row": ("shape(t text) RETURNS e", "e", "$$ BEGIN RETURN ROW(length(t), t)::e; END $$", "json[]", "shape(t)"),
    "security definer": (
        "shape(t text) RETURNS text",
        "text",
        "$$ BEGIN RETURN current_user; END $$ SECURITY DEFINER",
        "json[]",
        "shape(t)",
    ),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_functions_of_many_kinds(own: Conn, kind: str) -> None:
    declared, result, body, arguments, call = SHAPES[kind]
    own.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    own.execute("CREATE TABLE filled AS SELECT id, coalesce(nullif(t, ''), 'filled') AS t, d FROM a ORDER BY id")
    own.execute(f"CREATE FUNCTION {declared} LANGUAGE plpgsql STABLE AS {body}".encode())
    query = f"SELECT {call} FROM filled"
    before = own.execute(query.encode()).fetchall()
    listed = f"bigint, int{', ' + arguments if arguments else ''}"
    first = "cardinality($3)" if arguments else "60"
    own.execute(
        f"CREATE TABLE kept AS SELECT array_agg(x ORDER BY id) AS results"
        f" FROM (SELECT id, {call} AS x FROM filled) AS q;"
        f"CREATE FUNCTION shape_batch({listed}) RETURNS {result}[] LANGUAGE sql AS"
        f" $$ SELECT note('shape', {first}); SELECT results FROM kept $$".encode()
    )
    (name,) = own.execute("SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'shape'").fetchone() or ("",)
    own.execute("SELECT llm.register_batch(%s, %s)", [name, f"shape_batch({listed})"])
    assert own.execute(query.encode()).fetchall() == before
    assert calls(own) == ({"shape": (1, 60)} if arguments else {})  # a call that depends on no row is made once


REFUSED = {
    "variadic": "FUNCTION shape(VARIADIC t text[]) RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
    "a set": "FUNCTION shape(t text) RETURNS SETOF text LANGUAGE sql AS 'SELECT 1::text'",
    "a table": "FUNCTION shape(t text) RETURNS TABLE (a int) LANGUAGE sql AS 'SELECT 1'",
    "two outputs": "FUNCTION shape(t text, OUT a int, OUT b int) LANGUAGE sql AS 'SELECT 1, 2'",
    "an array": "FUNCTION shape(t text) RETURNS text[] LANGUAGE sql AS $$SELECT '{}'::text[]$$",
    "nothing": "FUNCTION shape(t text) RETURNS void LANGUAGE sql AS ''",
    "polymorphic": "FUNCTION shape(t anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT t'",
    "too many arguments": f"FUNCTION shape({', '.join(['int'] * 99)}) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a procedure": "PROCEDURE shape(t text) LANGUAGE sql AS ''",
    "an aggregate": "AGGREGATE shape(text) (SFUNC = textcat, STYPE = text)",
    "a trigger": "FUNCTION shape() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_functions_that_cannot_be_registered(own: Conn, kind: str) -> None:
    own.execute(f"CREATE {REFUSED[kind]}".encode())
    (name, procedure) = own.execute(
        "SELECT oid::regprocedure::text, prokind = 'p' FROM pg_proc WHERE proname = 'shape'"
    ).fetchone() or ("", False)
    with pytest.raises(psycopg.errors.InvalidFunctionDefinition, match="cannot be answered in batches"):
        own.execute("SELECT llm.register_batch(%s, 'word_batch(bigint, int, json[], json[])')", [name])
    if kind == "an aggregate":
        return  # has no settings
    own.execute(f"ALTER ROUTINE {name} SET pg_bridge.batch = 'public.word_batch'".encode())
    assert registered(own, name) == [(None, None)]
    if kind in {"variadic", "an array", "polymorphic"}:
        assert own.execute("SELECT count(shape(coalesce(t, 'x'))) FROM a").fetchone() == (60,)
    assert not procedure or own.execute("CALL shape('x')")


@pytest.mark.parametrize("function", ["lower(text)", "999999", "NULL"])
def test_what_is_not_there_or_not_ours(own: Conn, function: str) -> None:
    with pytest.raises(psycopg.errors.InvalidFunctionDefinition, match="cannot be answered in batches"):
        own.execute(
            "SELECT llm.register_batch(%s, 'word_batch(bigint, int, json[], json[])')",
            [None if function == "NULL" else function],
        )
    for batch in ("999999", None):
        with pytest.raises(psycopg.errors.UndefinedFunction):
            own.execute("SELECT llm.register_batch('word(text, int)', %s)", [batch])


def test_temporary_functions(own: Conn, connect: Connect) -> None:
    own.execute(
        "CREATE FUNCTION pg_temp.short(t text) RETURNS text LANGUAGE sql STABLE AS 'SELECT t';"
        "CREATE FUNCTION pg_temp.short_batch(bigint, int, json[]) RETURNS text[] LANGUAGE sql AS"
        " $$ SELECT note('short', cardinality($3)); SELECT ARRAY(SELECT x #>> '{}' FROM unnest($3) AS x) $$;"
        "SELECT llm.register_batch('pg_temp.short(text)', 'pg_temp.short_batch(bigint, int, json[])')"
    )
    own.execute("SELECT pg_temp.short(t) FROM a")
    assert calls(own) == {"short": (1, 60)}


def test_a_function_in_sql_is_not_inlined_once_it_is_registered(own: Conn) -> None:
    own.execute(
        "CREATE FUNCTION plain(t text) RETURNS text LANGUAGE sql STABLE AS 'SELECT upper(t)';"
        "CREATE FUNCTION plain_batch(bigint, int, json[]) RETURNS text[] LANGUAGE sql AS"
        " $$ SELECT note('plain', cardinality($3)); SELECT ARRAY(SELECT upper(x #>> '{}') FROM unnest($3) AS x) $$;"
        "SELECT llm.register_batch('plain(text)', 'plain_batch(bigint, int, json[])')"
    )
    own.execute("SELECT plain(t) FROM a")
    assert calls(own) == {"plain": (1, 60)}


def test_a_registered_function_in_a_worker(own: Conn) -> None:
    own.execute("ALTER FUNCTION word(text, int) PARALLEL SAFE COST 1")
    own.execute("ALTER FUNCTION word(text, int) SET pg_bridge.batch = 'public.nobody'")
    own.execute("CREATE TABLE big AS SELECT a.* FROM a, generate_series(1, 500)")
    for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        own.execute(sql.SQL("SET {} = 0").format(sql.Identifier(name)))
    own.execute("ANALYZE big")
    query = "SELECT count(*) FROM big WHERE word(t, g) LIKE 'word%'"
    plan = "\n".join(line for (line,) in own.execute(f"EXPLAIN (COSTS OFF) {query}".encode()).fetchall())
    assert plan.index("Gather") < plan.index("Parallel Seq Scan")
    parallel = own.execute(query.encode()).fetchone()
    own.execute("SET max_parallel_workers_per_gather = 0")
    assert own.execute(query.encode()).fetchone() == parallel


def test_without_the_module_only_a_superuser_can_register(
    own: Conn, connect: Connect, database: Database, roles: list[str]
) -> None:
    own.execute(f"ALTER DATABASE {database.name} SET session_preload_libraries = '$libdir/plpgsql'".encode())
    register = "SELECT llm.register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])')"
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as raised:
        connect(user="ann").execute(register.encode())
    assert "session_preload_libraries" in str(raised.value.diag.message_hint)
    root = connect()
    root.execute(register.encode())
    words(root)  # the setting stands on the function, of a name that this session knows nothing of
    assert calls(root) == {}
    root.execute("LOAD 'pg_bridge'")
    words(root)
    assert calls(root) == BATCHED
