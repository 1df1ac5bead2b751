"""Whose rights count for a foreign table's source, and what nobody may learn of rows that are hidden from him."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database
from tests.integration.test_foreign_tables import REVIEWS, asked, failure, summary

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]


@pytest.fixture
def host() -> str:
    return "plpython"


@pytest.fixture
def reviews(foreign: Conn) -> Conn:
    foreign.execute(REVIEWS)
    return foreign


@pytest.fixture
def new_role(reviews: Conn, connect: Connect, database: Database) -> Iterator[Any]:
    """Make roles that may use the server and a schema of their own, connected."""
    made: list[str] = []

    def new(name: str) -> Conn:
        role = f"{name}_{database.name}"
        reviews.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON FOREIGN SERVER vllm TO {role}")
        reviews.execute(f"CREATE SCHEMA {role} AUTHORIZATION {role}")
        made.append(role)
        return connect(user=role)

    yield new
    for role in made:
        reviews.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.fixture
def stranger(new_role: Any) -> Conn:
    found: Conn = new_role("stranger")
    return found


TROJAN = (
    "CREATE TABLE tried (how text, as_whom text); GRANT ALL ON tried TO PUBLIC; "
    "CREATE FUNCTION troj() RETURNS int LANGUAGE plpgsql {kind} AS $$ BEGIN "
    "RAISE WARNING 'troj as %', current_user; "
    "BEGIN EXECUTE 'CREATE ROLE of_troj SUPERUSER'; EXCEPTION WHEN OTHERS THEN RAISE WARNING 'no: %', SQLERRM; END; "
    "BEGIN PERFORM set_config('role', 'none', false); EXCEPTION WHEN OTHERS THEN RAISE WARNING 'no: %', SQLERRM; END; "
    "BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN OTHERS THEN RAISE WARNING 'no: %', SQLERRM; END; "
    "BEGIN EXECUTE 'CREATE TEMP TABLE left_behind ()'; EXCEPTION WHEN OTHERS THEN RAISE WARNING 'no: %', SQLERRM; END; "
    "BEGIN EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT 1'; "
    "EXCEPTION WHEN OTHERS THEN RAISE WARNING 'no: %', SQLERRM; END; "
    "BEGIN PERFORM count(*) FROM pg_authid; EXCEPTION WHEN OTHERS THEN RAISE WARNING 'no: %', SQLERRM; END; "
    "PERFORM set_config('search_path', 'evil', false), set_config('work_mem', '64kB', false); "
    "RETURN 1; END $$"
)
ATTEMPTS = 6


def heard(conn: Conn) -> list[str]:
    said: list[str] = []
    conn.add_notice_handler(lambda diag: said.append(str(diag.message_primary)))
    return said


# -- the owner's rights (21)


@pytest.mark.parametrize("kind", ["VOLATILE", "STABLE", "IMMUTABLE"])
def test_a_strangers_code_runs_as_the_stranger(reviews: Conn, stranger: Conn, kind: str) -> None:
    """A superuser who plans, explains, reads a stranger's foreign table lends him nothing."""
    role = stranger.info.user
    stranger.execute(f"SET search_path = {role}; {TROJAN.format(kind=kind)}")
    stranger.execute(
        "CREATE FOREIGN TABLE bait (id int, answer text OPTIONS (prompt 'What is {id}?')) SERVER vllm "
        f"OPTIONS (source_query 'SELECT {role}.troj() AS id')"
    )
    said = heard(reviews)
    for how in ("EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN ANALYZE", ""):
        reviews.execute(f"{how} SELECT * FROM {role}.bait")
        reviews.execute(f"PREPARE q AS SELECT id FROM {role}.bait")
        reviews.execute(f"{how} EXECUTE q")
        reviews.execute("DEALLOCATE q")
    names = {line.removeprefix("troj as ") for line in said if line.startswith("troj as ")}
    assert names == {role}
    assert len([line for line in said if line.startswith("no: ")]) == ATTEMPTS * len(
        [line for line in said if line.startswith("troj as ")]
    )
    assert reviews.execute("SHOW search_path").fetchone() == ('"$user", public',)
    assert reviews.execute("SHOW work_mem").fetchone() == ("4MB",)
    assert reviews.execute("SELECT current_user::text, session_user::text").fetchone() == ("postgres", "postgres")
    assert reviews.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'of_troj'").fetchone() == (0,)
    assert reviews.execute("SELECT count(*) FROM pg_cursors WHERE name = 'held'").fetchone() == (0,)


@pytest.mark.parametrize("type_", ["checked", "checked[]", "pair", "int"])
def test_a_strangers_type_runs_as_the_stranger(reviews: Conn, stranger: Conn, type_: str) -> None:
    """Rows become values of the columns' types: a domain's condition is code, too."""
    role = stranger.info.user
    stranger.execute(
        f"SET search_path = {role}; CREATE FUNCTION loud(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE WARNING 'loud as %, %', current_user, current_setting('search_path'); RETURN true; END $$;"
        "CREATE DOMAIN checked AS int CHECK (loud(VALUE)); CREATE TYPE pair AS (a checked, b int)"
    )
    value = {"checked": "1", "checked[]": "'{1}'", "pair": "'(1,2)'", "int": "1"}[type_]
    quoted = f"SELECT {value}::text AS v".replace("'", "''")
    stranger.execute(f"CREATE FOREIGN TABLE bait (v {type_}) SERVER vllm OPTIONS (source_query '{quoted}')")
    said = heard(reviews)
    reviews.execute("SET search_path = evil, public")
    assert len(reviews.execute(f"SELECT v FROM {role}.bait WHERE v IS NOT NULL").fetchall()) == 1
    assert len(reviews.execute(f"SELECT * FROM {role}.bait LIMIT 1").fetchall()) == 1
    assert {line.split(", ")[0] for line in said} == ({f"loud as {role}"} if type_ != "int" else set())
    assert not any("evil" in line for line in said)


def test_explain_needs_no_rights_and_shows_no_error(reviews: Conn, stranger: Conn) -> None:
    """The owner of the foreign table may not read the source: nothing is sampled, and only the read itself fails."""
    role = stranger.info.user
    stranger.execute(
        f"CREATE FOREIGN TABLE {role}.t (review_id bigint, summary text OPTIONS (prompt 'Summarise {{review_id}}.')) "
        "SERVER vllm OPTIONS (source 'public.reviews')"
    )
    query = f"SELECT summary FROM {role}.t"
    shown = "\n".join(line for (line,) in reviews.execute(f"EXPLAIN VERBOSE {query}").fetchall())
    assert "Sample" not in shown
    assert "Estimated" not in shown
    assert "rows=1000 " in shown
    said = failure(reviews, query)  # a superuser could, but the owner may not
    assert (said.sqlstate, said.message_primary) == ("42501", "reading the source: permission denied for table reviews")


def test_with_security_invoker_the_readers_rights_count(
    reviews: Conn, stranger: Conn, new_role: Any, engine: EngineDouble
) -> None:
    role = stranger.info.user
    reviews.execute(f"GRANT SELECT ON review_insight TO {role}")
    assert stranger.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)
    reviews.execute("ALTER FOREIGN TABLE review_insight OPTIONS (ADD security_invoker 'true')")
    assert failure(stranger, "SELECT count(*) FROM review_insight").sqlstate == "42501"
    reviews.execute(f"GRANT SELECT ON reviews TO {role}; ALTER TABLE reviews ENABLE ROW LEVEL SECURITY")
    reviews.execute(f"CREATE POLICY p ON reviews TO {role} USING (stars = 1)")
    assert stranger.execute("SELECT count(*), max(stars) FROM review_insight").fetchone() == (400, 1)
    shown = explained(stranger, "SELECT summary FROM review_insight WHERE stars > 1")
    assert not figures(shown)  # what the owner sees is none of the reader's business
    rows = {rows_of(stranger, f"SELECT * FROM review_insight WHERE stars = {stars}") for stars in (1, 3, 77)}
    assert len(rows) == 1
    assert figures(explained(reviews, "SELECT summary FROM review_insight WHERE stars > 1"))
    reviews.execute("SET plan_cache_mode = force_generic_plan")
    reviews.execute("PREPARE q AS SELECT summary FROM review_insight WHERE stars > 1")
    assert figures(explained(reviews, "EXECUTE q"))
    reviews.execute(f"SET ROLE {role}")
    assert not figures(explained(reviews, "EXECUTE q"))  # the plan that was kept is another role's
    reviews.execute("RESET ROLE")


def test_the_policies_of_the_source_are_the_owners(reviews: Conn, stranger: Conn, new_role: Any) -> None:
    reader = new_role("reader")
    role, owner = reader.info.user, stranger.info.user
    reviews.execute(f"GRANT SELECT ON reviews TO {owner}, {role}; ALTER TABLE reviews ENABLE ROW LEVEL SECURITY")
    reviews.execute(f"CREATE POLICY o ON reviews TO {owner} USING (stars <= 2)")
    stranger.execute(
        f"CREATE FOREIGN TABLE {owner}.t (stars int) SERVER vllm OPTIONS (source 'public.reviews');"
        f"GRANT USAGE ON SCHEMA {owner} TO {role}; GRANT SELECT ON {owner}.t TO {role}"
    )
    for conn in (reviews, stranger, reader):
        assert conn.execute(f"SELECT count(*), max(stars) FROM {owner}.t").fetchone() == (800, 2)
    reviews.execute(f"REVOKE SELECT ON reviews FROM {owner}")
    assert failure(reviews, f"SELECT * FROM {owner}.t").sqlstate == "42501"


def test_the_server_and_its_key_are_the_readers(reviews: Conn, stranger: Conn, new_role: Any) -> None:
    reader = new_role("reader")
    reviews.execute(f"GRANT SELECT ON review_insight TO {reader.info.user}")
    assert reader.execute("SELECT summary FROM review_insight WHERE review_id = 1").fetchone() == (summary(1),)
    reviews.execute(f"REVOKE USAGE ON FOREIGN SERVER vllm FROM {reader.info.user}")
    assert failure(reader, "SELECT summary FROM review_insight").sqlstate == "42501"


HOSTILE = (
    "SELECT 1) AS s; CREATE TABLE owned (); SELECT * FROM (SELECT 1",
    "SELECT 1 AS id; SELECT 2 AS id",
    "WITH gone AS (DELETE FROM public.reviews RETURNING 1) SELECT 1 AS id FROM gone",
    "SELECT review_id::int AS id FROM public.reviews FOR UPDATE",
    "SELECT 1 AS id INTO public.owned",
    "SELECT llm._source_rows(1000000, 'SELECT 1', '{}')::text AS id",
    "SELECT llm._source_columns('SELECT 1')::text AS id",
    "SELECT llm._source_rows(1, NULL, NULL)::text AS id",
    'SELECT id FROM public."a \'quoted"" name"',
    "EXPLAIN SELECT 1",
)


@pytest.mark.parametrize("source", HOSTILE)
def test_hostile_sources(reviews: Conn, source: str) -> None:
    """A superuser's own, so that rights stop nothing."""
    made = psycopg.sql.SQL(
        'CREATE FOREIGN TABLE {} (id int, "w""h\'at" text OPTIONS (prompt \'What is {{id}}?\')) SERVER vllm '
        "OPTIONS (source_query {})"
    ).format(psycopg.sql.Identifier("a 'quoted\" name"), psycopg.sql.Literal(source))
    reviews.execute(made)
    query = 'SELECT * FROM "a \'quoted"" name"'
    for verbose in ("", "VERBOSE", "(VERBOSE, FORMAT JSON)"):
        reviews.execute(f"EXPLAIN {verbose} {query}")
    assert failure(reviews, query).sqlstate in {"42601", "25006", "54001", "55000", "0A000", "22P02"}
    assert reviews.execute("SELECT to_regclass('owned'), count(*) FROM reviews").fetchone() == (None, 2000)


# -- functions that SQL can call (20)

FUNCTIONS = {
    "_source_table": ("text",),
    "_source_columns": ("text",),
    "_source_size": ("text", "text[]"),
    "_source_rows": ("integer", "text", "text[]"),
}
VALUES = {
    "text": ("NULL", "''", "'x'", "'SELECT 1'", "'SELECT 1; SELECT 2'", "repeat('x', 100000)", "'reviews'"),
    "integer": ("NULL", "0", "(-1)", "1", "2147483647", "(-2147483648)"),
    "text[]": ("NULL", "'{}'", "ARRAY[NULL]::text[]", "'{{a,b},{c,d}}'", "'[-5:-4]={a,b}'", "ARRAY['x']"),
}


def test_c_functions_refuse_whatever_they_are_given(reviews: Conn, stranger: Conn) -> None:
    for conn in (stranger, reviews):
        for name, types in FUNCTIONS.items():
            for given in product(*(VALUES[type_] for type_ in types)):
                arguments = ", ".join(f"{value}::{type_}" for value, type_ in zip(given, types, strict=True))
                said = failure(conn, f"SELECT llm.{name}({arguments})")
                assert said.sqlstate in {"55000", "22004"}, arguments
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_internal_functions_are_nobodys(reviews: Conn, stranger: Conn) -> None:
    held = (
        "SELECT proname FROM pg_proc WHERE pronamespace = 'llm'::regnamespace AND proname LIKE '\\_foreign%' "
        f"AND has_function_privilege('{stranger.info.user}', oid, 'EXECUTE')"
    )
    assert reviews.execute(held).fetchall() == []
    for name in ("_foreign_size", "_foreign_explain", "_foreign_scan", "_foreign_import"):
        assert failure(stranger, f"SELECT * FROM llm.{name}('{{}}')").sqlstate == "42501"
    for handler in ("SELECT llm._foreign_handler()", "SELECT llm._foreign_handler() IS NULL"):
        assert failure(stranger, handler).sqlstate == "42501"
    assert failure(reviews, "SELECT llm._foreign_handler()").sqlstate == "0A000"
    assert stranger.execute("SELECT 1").fetchone() == (1,)


FORGED: tuple[Any, ...] = (
    None,
    "",
    "{}",
    "[]",
    "null",
    "{",
    {"table": 0},
    {"table": 1259, "quals": [], "needed": [], "discreet": False},
    {"table": 10**30, "quals": [], "needed": [], "discreet": False},
    {"table": "x", "quals": {}, "needed": 3, "discreet": None, "sort": 1, "verbose": "x"},
    {"table": None, "quals": [{"column": "x"}], "needed": ["x"], "sort": [{}], "verbose": True, "statement": 10**40},
)


@pytest.mark.parametrize("number", range(len(FORGED) + 1))
def test_forged_requests_by_a_superuser(reviews: Conn, number: int) -> None:
    """They come back as a fault; the session goes on."""
    oid = reviews.execute("SELECT 'review_insight'::regclass::oid::int8").fetchone()
    real = {"table": (oid or (0,))[0], "quals": [], "needed": ["title"], "sort": [], "verbose": True, "statement": 1}
    real["costs"] = True
    forged = [*FORGED, {**real, "node": 1, "discreet": False}][number]
    text = forged if forged is None or isinstance(forged, str) else json.dumps(forged)
    for name in ("_foreign_size", "_foreign_explain", "_foreign_scan", "_foreign_import"):
        found = reviews.execute(f"SELECT fault FROM llm.{name}(%s)", [text]).fetchall()
        if number < len(FORGED):
            assert found
            assert found[-1][0]
    assert reviews.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)


# -- hidden rows (22)


def explained(conn: Conn, query: str) -> str:
    return "\n".join(line for (line,) in conn.execute(f"EXPLAIN VERBOSE {query}").fetchall())


def figures(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if re.search("Sample|unique prompts|Estimated", line)]


def rows_of(conn: Conn, query: str) -> int:
    (((plan,),),) = conn.execute(f"EXPLAIN (FORMAT JSON) {query}").fetchall()
    rows: int = plan["Plan"]["Plan Rows"]
    return rows


@pytest.fixture
def secrets(reviews: Conn, stranger: Conn) -> Conn:
    """A view with a condition that only PostgreSQL knows, which hides two rows of three."""
    reviews.execute(
        "CREATE TABLE pay AS SELECT g AS id, 'salary ' || g * 1000 AS txt, g % 3 = 0 AS open "
        "FROM generate_series(1, 300) AS g; ANALYZE pay;"
        "CREATE FUNCTION visible(int) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT $1 % 3 = 0';"
        "CREATE FOREIGN TABLE pays (id int, txt text, open boolean, "
        "flag boolean OPTIONS (prompt 'Is {txt} high?'), kind text OPTIONS (prompt 'What is {txt}?')) "
        "SERVER vllm OPTIONS (source 'public.pay', key 'id');"
        "CREATE VIEW late WITH (security_barrier) AS SELECT * FROM pays WHERE visible(id);"
        "CREATE VIEW early WITH (security_barrier) AS SELECT * FROM pays WHERE open;"
        f"GRANT SELECT ON late, early TO {stranger.info.user}"
    )
    return stranger


def test_a_model_is_not_asked_before_the_barrier(secrets: Conn, engine: EngineDouble) -> None:
    """The condition cannot be handed over: that is an error, with what to do about it, and nothing is sent."""
    for query in (
        "SELECT id FROM late WHERE flag AND txt >= 'zz' COLLATE \"C\"",
        "SELECT kind FROM late",
        "SELECT late FROM late",
        "SELECT count(*) FROM late JOIN early USING (id) WHERE late.flag",
    ):
        for explain in ("", "EXPLAIN VERBOSE "):
            said = failure(secrets, explain + query)
            assert said.sqlstate == "0A000"
            assert "source" in (said.message_hint or "")
    assert asked(engine) == {}
    assert secrets.execute("SELECT count(*), min(id) FROM late WHERE txt >= 'salary 1'").fetchone() == (100, 3)


def test_explain_counts_no_hidden_row(secrets: Conn, reviews: Conn) -> None:
    query = "SELECT id FROM {view} WHERE flag AND txt >= '{text}' COLLATE \"C\""
    for view in ("early", "(SELECT * FROM early OFFSET 0) AS x"):
        shown = [explained(secrets, query.format(view=view, text=text)) for text in ("a", "zz")]
        assert not any(map(figures, shown))
        assert len({tuple(re.findall("rows=[0-9]+", each)) for each in shown}) == 1
    assert len({rows_of(secrets, f"SELECT id FROM late WHERE txt = 'salary {n}'") for n in (1000, 3000, 7)}) == 1
    assert figures(explained(reviews, query.format(view="pays", text="a")))


def test_last_run_counts_what_was_let_through(secrets: Conn, engine: EngineDouble) -> None:
    assert len(secrets.execute("SELECT kind FROM early WHERE id > 0").fetchall()) == 100
    run = secrets.execute("SELECT to_json(r) FROM llm.last_run() AS r").fetchone()
    assert run is not None
    assert run[0]["unique_prompts"] == 100
    assert all(int(prompt.split("salary ")[1].split('"')[0]) % 3000 == 0 for prompt in engine.received.prompts)
    secrets.execute("SELECT kind FROM early WHERE id = 1")
    assert len(engine.received.prompts) == 100


@pytest.mark.some(2)
@pytest.mark.parametrize(
    "view",
    [
        "SELECT p.* FROM pays AS p JOIN pay AS q USING (id) WHERE q.open",
        "SELECT * FROM pays WHERE EXISTS (SELECT FROM pay WHERE pay.id = pays.id AND pay.open)",
        "SELECT * FROM pays WHERE id IN (SELECT id FROM pay WHERE open OFFSET 0)",
        "SELECT * FROM pays WHERE flag",
        "SELECT * FROM (SELECT * FROM pays OFFSET 0) AS x WHERE visible(id)",
        "SELECT * FROM pays WHERE open OR visible(id)",
        "SELECT * FROM (SELECT * FROM pays) AS x WHERE flag IS NOT NULL",
    ],
)
def test_barriers_that_come_late(secrets: Conn, reviews: Conn, engine: EngineDouble, view: str) -> None:
    reviews.execute(f"CREATE VIEW v WITH (security_barrier) AS {view}; GRANT SELECT ON v TO {secrets.info.user}")
    for query in ("SELECT kind FROM v", "SELECT kind FROM v WHERE id = 1", "SELECT x.kind FROM v AS x, pg_class"):
        assert failure(secrets, query).sqlstate == "0A000"
    assert asked(engine) == {}
    if "flag" not in view:
        assert secrets.execute("SELECT count(*) FROM v").fetchone()


def test_a_policy_of_a_partitioned_table(reviews: Conn, stranger: Conn, engine: EngineDouble) -> None:
    reviews.execute(
        "CREATE TABLE parts (review_id bigint, stars int, summary text) PARTITION BY LIST (stars);"
        "CREATE FOREIGN TABLE part_1 PARTITION OF parts FOR VALUES IN (1) SERVER vllm OPTIONS (source 'reviews');"
        "ALTER FOREIGN TABLE part_1 ALTER summary OPTIONS (prompt 'Summarise {review_id}.');"
        "ALTER TABLE parts ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY p ON parts TO {stranger.info.user} USING (length(review_id::text) = 1);"
        f"GRANT SELECT ON parts TO {stranger.info.user}"
    )
    assert failure(stranger, "SELECT summary FROM parts WHERE review_id = 5").sqlstate == "0A000"
    assert not figures(explained(stranger, "SELECT review_id FROM parts"))
    assert asked(engine) == {}
    reviews.execute(f"DROP POLICY p ON parts; CREATE POLICY p ON parts TO {stranger.info.user} USING (review_id < 10)")
    assert len(stranger.execute("SELECT summary FROM parts WHERE stars = 1").fetchall()) == 1


# -- and the like


def test_import_runs_nothing_of_the_search_path(reviews: Conn, stranger: Conn) -> None:
    reviews.execute(
        'CREATE FUNCTION public.loud("char", "char") RETURNS boolean LANGUAGE plpgsql AS '
        "$$ BEGIN RAISE 'called as %', current_user; END $$;"
        'CREATE OPERATOR public.= (LEFTARG = "char", RIGHTARG = "char", FUNCTION = public.loud);'
        "CREATE FUNCTION public.loud(oid, oid) RETURNS boolean LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'called as %', current_user; END $$;"
        "CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.loud);"
        "CREATE SCHEMA imported; SET search_path = public, pg_catalog"
    )
    reviews.execute("IMPORT FOREIGN SCHEMA public LIMIT TO (reviews) FROM SERVER vllm INTO imported")
    assert reviews.execute("SELECT count(*) FROM imported.reviews").fetchone() == (2000,)
