"""A schema before pg_catalog in the caller's path holds traps: nothing of the extension may step into one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.cluster import Cluster
from tests.conftest import Shared

Conn = psycopg.Connection[Any]

# An operator or function of public for each of pg_catalog's on these types that the extension could mean, and types by
# the names of pg_catalog's. Whoever calls one gets an error.
TRAPS = """
CREATE FUNCTION public.spring() RETURNS pg_catalog.bool LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'a trap was stepped into' USING ERRCODE = 'P0666'; END $$;
DO $do$
DECLARE
    meant CONSTANT oid[] := '{text,json,jsonb,int4,int8,float8,bool,name,oid,uuid,text[],json[],oid[],anyarray,
                              anyelement,anynonarray,anycompatible,anycompatiblearray,anycompatiblenonarray}'::regtype[];
    body CONSTANT text := $$BEGIN PERFORM public.spring(); RETURN NULL; END$$;
    one record;
    number integer := 0;
BEGIN
    FOR one IN SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result
               FROM pg_operator AS o
               WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b' AND o.oprresult <> 0
                     AND o.oprleft = ANY (meant) AND o.oprright = ANY (meant)
    LOOP
        number := number + 1;
        EXECUTE format('CREATE FUNCTION public.trap_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L',
                       number, one.l, one.r, one.result, body);
        EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.trap_%s, LEFTARG = %s, RIGHTARG = %s)',
                       one.oprname, number, one.l, one.r);
    END LOOP;
    FOR one IN SELECT DISTINCT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments,
                      p.prorettype::regtype AS result
               FROM pg_proc AS p
               WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
                     AND p.provariadic = 0 AND p.proargmodes IS NULL
                     AND p.prorettype = ANY (meant) AND meant @> p.proargtypes::oid[]
                     AND p.proname ~ '^(json|to_json|row_to_json|regexp_replace|gen_random|concat|format|'
                                     'coalesce|array|cardinality|current_setting|has_server|set_config|count|substr|split_part)'
    LOOP
        EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L',
                       one.proname, one.arguments, one.result, body);
    END LOOP;
END $do$;
CREATE DOMAIN public.json AS pg_catalog.json CHECK (public.spring());
CREATE DOMAIN public.jsonb AS pg_catalog.jsonb CHECK (public.spring());
CREATE DOMAIN public.name AS pg_catalog.name CHECK (public.spring());
CREATE DOMAIN public.refcursor AS pg_catalog.refcursor CHECK (public.spring());
CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.spring());
"""


@pytest.fixture(scope="module")
def set_traps(share: Callable[[str], Shared]) -> Callable[[str], None]:
    @cache
    def once(host: str) -> None:
        conn = share(host).conn
        conn.execute("CREATE TABLE public.t (i int, w text); INSERT INTO public.t VALUES (1, 'a'), (2, 'b'), (3, NULL)")
        conn.execute(TRAPS)

    return once


@pytest.fixture
def trapped(host: str, set_traps: Callable[[str], None], used_conn: Conn) -> Conn:
    conn = used_conn
    set_traps(host)
    conn.execute("SET search_path = public, pg_catalog")
    for statement in ("SELECT w = 'a' FROM t", "SELECT 'a'::text", "SELECT i || w FROM t", "SELECT i < i FROM t"):
        with pytest.raises(psycopg.Error, match="a trap was stepped into"):
            conn.execute(statement)
    return conn


CALLS = (
    "llm.complete('say {i}', t)",
    "llm.complete('say it')",
    "llm.complete('say {}', w)",
    """llm.complete('say {i}, {a}', llm.row(t, '{"a": 1}'::pg_catalog.jsonb))""",
    "llm.is_true('odd {i}?', t)",
    "llm.classify('which {i}?', t, ARRAY['a', 'b'])",
    "llm.score('how {i}?', t)",
    """llm.extract('what {i}?', t, '{"type": "object", "required": ["a"]}')""",
)


@pytest.mark.some(6)
@pytest.mark.parametrize("call", CALLS)
def test_calls_step_into_no_trap(trapped: Conn, cluster: Cluster, call: str) -> None:
    for batching in ("on", "off") if cluster.has_module else ("off",):
        trapped.execute(f"SET pg_bridge.batching = {batching}")
        assert len(trapped.execute(f"SELECT {call} FROM t").fetchall()) == 3
        assert len(trapped.execute(f"SELECT i FROM t WHERE {call} IS NOT NULL").fetchall()) == 3
    if call == "llm.complete('say it')":
        assert trapped.execute(f"SELECT {call}").fetchone()


def test_llm_map_steps_into_no_trap(trapped: Conn) -> None:
    for query in ("SELECT i, w FROM t", "TABLE t ; ", "SELECT i FROM public.t"):
        assert len(trapped.execute("SELECT * FROM llm.map(%s, 'say {i}')", [query]).fetchall()) == 3
        assert len(trapped.execute("SELECT (llm.map(%s, 'say {i}')).*", [query]).fetchall()) == 3
        assert trapped.execute("SELECT rows FROM llm.estimate(%s, 'say {i}')", [query]).fetchone() == (3,)
    refused: tuple[tuple[str | None, str], ...] = (
        (None, "22004"),
        ("", "42601"),
        ("SELECT 1; SELECT 2", "42601"),
        ("SHOW search_path", "42601"),
        ("SELECT i, i FROM t", "42701"),
        ("SELECT i AS pg_bridge_row FROM t", "42939"),
    )
    for text, sqlstate in refused:
        with pytest.raises(psycopg.Error) as caught:
            trapped.execute("SELECT * FROM llm.map(%s, 'x')", [text])
        assert caught.value.sqlstate == sqlstate, text


def test_the_caller_s_query_is_read_by_the_caller_s_path(conn: Conn) -> None:
    conn.execute(
        "CREATE SCHEMA mine; CREATE TABLE mine.here (i int); INSERT INTO mine.here VALUES (1);"
        "CREATE FUNCTION mine.looked_up() RETURNS bigint LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN (SELECT count(*) FROM here); END $$"
    )
    conn.execute("SET search_path = mine")
    rows = conn.execute("SELECT input FROM llm.map('SELECT i, looked_up() AS n FROM here', 'say {i}')").fetchall()
    assert rows == [({"i": 1, "n": 1},)]


def test_other_functions_step_into_no_trap(trapped: Conn) -> None:
    trapped.execute("SELECT * FROM llm.map('SELECT i FROM t', 'say {i}')")
    assert trapped.execute("SELECT rows FROM llm.last_run()").fetchone() == (3,)
    assert trapped.execute("SELECT llm.version()").fetchone()
    with pytest.raises(psycopg.errors.UndefinedColumn, match="the input is a single value"):
        trapped.execute("SELECT llm.complete('say {it}', 1)")
    for statement, sqlstate in (
        ("CREATE SERVER other FOREIGN DATA WRAPPER pg_bridge OPTIONS (colour 'red')", "HV00D"),
        ("CREATE SERVER other FOREIGN DATA WRAPPER pg_bridge", "HV00J"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            trapped.execute(statement)
        assert caught.value.sqlstate == sqlstate
