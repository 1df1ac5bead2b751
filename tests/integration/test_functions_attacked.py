"""Every function of schema llm, called by a role without rights, with whatever arguments: errors, and nothing else.

The functions are read from the catalog. Arguments are drawn at random for each type; a failure prints the seed, and
`PG_BRIDGE_SEED=… pytest tests/integration/test_functions_attacked.py` repeats it.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pg_bridge.testing.double import EngineDouble
from tests.conftest import WRAPPER, Connect, Database, create_server
from tests.integration.test_map import Role

Conn = psycopg.Connection[Any]
MULTICORN_IS_SLOW = True

KEY = "sk-hidden-key-4711"
HIDDEN = "a row that nobody else may see"
DRAWS = 25  # of arguments, for each function and each way to call it
LARGE = "repeat('x', 1000000)"

TEXTS = (
    "NULL::text",
    "''",
    "'x'",
    f"{LARGE}",
    "'vllm'",
    "'hidden'",
    "'SELECT 1 AS a'",
    "'SELECT * FROM hidden'",
    "'SELECT 1; DROP TABLE hidden'",
    "'DELETE FROM hidden RETURNING *'",
    "E'; -- \\n'",
    "'{a}'",
    "'{'",
    "'%s %n {0} {}'",
    "'[]'",
    "'{}'",
    "'[1]'",
    "'null'",
    '\'{"server": "vllm"}\'',
    '\'{"server": 5, "max_tokens": "x"}\'',
    "'{\"internal\": true}'",
    '\'{"do": "usage_reset"}\'',
    '\'{"do": "cache_clear", "server": "hidden"}\'',
    '\'{"table": 1259, "statement": 1, "node": 1, "cursor": "x", "needed": [], "quals": [], "sort": []}\'',
    "'{\"table\": -1}'",
    "(SELECT json_build_object('table', c.oid::bigint, 'needed', '[]'::json, 'quals', '[]'::json, 'sort', '[]'::json,"
    " 'statement', 1, 'node', 1, 'verbose', true, 'cursor', 'c')::text"
    " FROM pg_class AS c WHERE relname = 'foreign_hidden')",
    '\'{"server": "vllm", "schema": "public", "restriction": "all", "tables": [], "options": {}}\'',
    '\'{"sqlstate": "00000", "message": null}\'',
    '\'{"sqlstate": "22000", "message": "m", "detail": "d", "hint": "h"}\'',
    "repeat('[', 20000)",
    "repeat('{\"a\":', 20000)",
)
JSONS = (
    "NULL::json",
    "'{}'::json",
    "'null'::json",
    "'[]'::json",
    "'7'::json",
    "'\"x\"'::json",
    '\'{"a": {"b": [1, null]}}\'::json',
    '\'{"type": "object", "required": ["a"]}\'::json',
    '\'{"kind": "boolean", "window_rows": 0}\'::json',
    "json_build_object('a', repeat('x', 1000000))",
    "(repeat('[', 2000) || repeat(']', 2000))::json",
    "'{\"\\u0000\": 1}'::json",
    '\'{"do": "usage_reset"}\'::json',
    '\'{"do": "cache_clear"}\'::json',
    '\'{"do": "cache_clear", "server": "hidden", "older_than_s": "x"}\'::json',
    '\'{"do": "cache_clear", "server": ["hidden"], "older_than_s": -1}\'::json',
    '\'{"do": "usage", "role": 10}\'::json',
    "'{\"do\": {}}'::json",
)
ELEMENTS = {"json": JSONS[:10], "text": TEXTS[:12]}


def arrays(element: str, of: tuple[str, ...]) -> tuple[str, ...]:
    """Arrays of every shape."""
    return (
        f"NULL::{element}[]",
        f"'{{}}'::{element}[]",
        f"ARRAY[NULL]::{element}[]",
        f"ARRAY[NULL, NULL]::{element}[]",
        *(f"ARRAY[{each}]::{element}[]" for each in of),
        f"ARRAY[{of[2]}, {of[1]}]::{element}[]",
        f"ARRAY[[{of[2]}], [{of[1]}]]::{element}[]",
        f"ARRAY[[{of[2]}, NULL], [{of[1]}, {of[2]}]]::{element}[]",
        f"ARRAY[[[{of[2]}]]]::{element}[]",
        f"array_fill({of[2]}::{element}, ARRAY[3], ARRAY[0])",
        f"array_fill({of[1]}::{element}, ARRAY[2, 2], ARRAY[-5, 7])",
        f"array_fill({of[2]}::{element}, ARRAY[5000])",
    )


NUMBERS = ("NULL", "0", "1", "-1", "64")
VALUES: dict[str, tuple[str, ...]] = {
    "bytea": ("NULL", "''", r"'\x89504e470d0a1a0a'", r"'\xffd8ff'", "'%PDF-'"),
    "text": TEXTS,
    "name": ("NULL::name", "'postgres'::name", "'intruder'::name", "''::name", "'no_one'::name"),
    "integer": (*NUMBERS, "2147483647", "(-2147483648)"),
    "bigint": (*NUMBERS, "9223372036854775807", "(-9223372036854775808)"),
    "double precision": (*NUMBERS, "'NaN'::float8", "'Infinity'::float8", "'-Infinity'::float8", "1e308", "0.5"),
    "boolean": ("NULL", "true", "false"),
    "interval": ("NULL", "'0'", "'-1 day'", "'1 year 2 mons'", "'178000000 years'"),
    "json": JSONS,
    "jsonb": tuple(each.replace("::json", "::jsonb") for each in JSONS[:-1]),
    "text[]": arrays("text", ELEMENTS["text"]),
    "json[]": arrays("json", ELEMENTS["json"]),
    "bigint[]": arrays("bigint", NUMBERS),
    "real[]": arrays("real", ("NULL", "0", "1", "'NaN'", "'-Infinity'", "'3e38'", "'1e-40'")),
    "double precision[]": arrays("float8", ("NULL", "0", "-1", "'NaN'", "'Infinity'", "'1e308'", "0.5")),
    "refcursor": ("NULL::refcursor", "''::refcursor", "'none'::refcursor", "'pg_bridge_1'::refcursor"),
    "regprocedure": ("NULL::regprocedure", "0::regprocedure", "1::oid::regprocedure", "'now()'::regprocedure"),
    "regclass": ("NULL::regclass", "0::regclass", "'pg_class'::regclass", "'hidden'::regclass", "4294967295::regclass"),
    "oid": ("NULL::oid", "0::oid", "1259::oid", "4294967295::oid"),
    "oid[]": ("NULL::oid[]", "'{}'::oid[]", "ARRAY['now()'::regprocedure]::oid[]", "'{NULL}'::oid[]",
              "'{{1},{2}}'::oid[]", "'{0,1,4294967295}'::oid[]",
              "array_fill('now()'::regprocedure::oid, ARRAY[100], ARRAY[-5])",
              "ARRAY['pg_read_file(text)'::regprocedure, 'pg_ls_dir(text)'::regprocedure]::oid[]"),
    "regprocedure[]": ("NULL::regprocedure[]", "'{}'::regprocedure[]", "'{now()}'::regprocedure[]",
                       "'{version(),pg_backend_pid()}'::regprocedure[]", "'{0}'::regprocedure[]",
                       "'{{now()},{version()}}'::regprocedure[]",
                       "'{pg_terminate_backend(int,bigint)}'::regprocedure[]"),
    "anyelement": ("NULL::int", "1", "'x'::text", "ROW(1, NULL)", "'{\"a\": 1}'::jsonb", "t", "'{1,2}'::int[]",
                   f"ROW({LARGE})", "'[1]'::json", "NULL::record", "'infinity'::timestamptz", "'\\x00'::bytea",
                   "llm.row(NULL, '{\"a\": 1}'::jsonb)", "'[7]'::llm.parts"),
    '"any"': ("NULL", "t", "t, NULL, 1", "NULL::record, ROW(1)", "'x'", f"{LARGE}", "'{\"\\u0000\": 1}'::json",
              "VARIADIC ARRAY[t, t]", "VARIADIC NULL::jsonb[]", "VARIADIC '{{1,2},{3,4}}'::int[]"),
    "llm.parts": ("NULL::llm.parts", "'[]'", "'[{}, null, {\"a\": 1}]'", "'{}'", "'7'", "'null'", "'[[1]]'",
                  "'[\"{\"]'", "(repeat('[', 2000) || repeat(']', 2000))::llm.parts",
                  f"concat('[{{\"a\": \"', {LARGE}, '\"}}]')"),
    "llm.gathered": ("NULL::llm.gathered", "'0'", "'-1'", "'9223372036854775807'", "'2147483649'"),
    "internal": ("NULL",),  # nothing else can be written
    "cstring": ("NULL::cstring", "''", "'x'", "'[]'", f"textout({LARGE})"),
    "trigger": ("NULL",),
}  # fmt: skip

# An SQLSTATE of class XX says that pg_bridge or PostgreSQL is broken. Multicorn can carry no other, and says it.
CLEAN_ELSEWHERE = re.compile("SQLSTATE (?!XX)")


@dataclass(frozen=True)
class Function:
    """A function, as the catalog has it."""

    name: str
    arguments: tuple[str, ...]
    returns_set: bool
    returns_row: bool


UNTYPED = ("anyelement", '"any"', "trigger", "internal")


def functions(conn: Conn) -> list[Function]:
    rows = conn.execute(
        "SELECT p.proname, ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, o) "
        "ORDER BY o), p.proretset, p.prorettype = 'record'::regtype FROM pg_proc AS p "
        "WHERE p.pronamespace = 'llm'::regnamespace AND p.prokind = 'f' ORDER BY 1, 2"
    ).fetchall()
    return [Function(name, tuple(arguments), is_set, is_row) for name, arguments, is_set, is_row in rows]


def calls(function: Function, draw: random.Random) -> Iterator[str]:
    """Statements that call a function: all NULL, one NULL, and drawn ones."""
    pools = [VALUES[each] for each in function.arguments]
    drawn = [[pool[0] for pool in pools]]
    drawn += [[draw.choice(pool) for pool in pools] for _ in range(DRAWS if pools else 1)]
    for place in range(len(pools)):  # one of them NULL, the others likely to be let through
        drawn.append([pool[0] if i == place else pool[min(2, len(pool) - 1)] for i, pool in enumerate(pools)])
    for arguments in drawn:
        typed = [
            value
            if value == "t"
            else f"{value}::{of}"
            if of not in ("anyelement", '"any"', "trigger", "internal")
            else value
            for value, of in zip(arguments, function.arguments, strict=True)
        ]
        call = f"llm.{function.name}({', '.join(typed)})"
        rows = "(VALUES (1, 'x'), (2, NULL)) AS t (a, b)"
        ways = [f"SELECT {call} FROM {rows}"]
        if "t" not in arguments:
            ways += [f"SELECT {call}", f"SELECT * FROM {call}"]
            ways += [f"SELECT ({call}).*"] if function.returns_row else []
        yield draw.choice(ways)


@pytest.fixture
def intruder(conn: Conn, database: Database, engine: EngineDouble, connect: Connect) -> Iterator[Conn]:
    """A role with nothing but CONNECT, in a database that has something to hide."""
    if database.host == "multicorn":
        conn.execute("DROP SERVER vllm")
        create_server(conn, engine.url, **WRAPPER["multicorn"])
    engine.behaviour.api_key = KEY
    conn.execute(
        sql.SQL(
            "CREATE TABLE hidden (a text); INSERT INTO hidden VALUES ({});"
            "CREATE USER MAPPING FOR PUBLIC SERVER vllm OPTIONS (api_key {}, user 'postgres')"
        ).format(HIDDEN, KEY)
    )
    if database.host == "multicorn" or database.cluster.has_module:
        conn.execute("CREATE FOREIGN TABLE foreign_hidden (a text) SERVER vllm OPTIONS (source 'public.hidden')")
    conn.execute("SELECT * FROM llm.map('TABLE hidden', '{a}')")
    conn.execute("DROP ROLE IF EXISTS intruder")  # after a crash it was left behind
    with Role(conn, "intruder"):
        intruding = connect(user="intruder")
        intruding.execute("SET statement_timeout = '20s'")
        yield intruding
        intruding.close()


@pytest.mark.parametrize("share", [0.4, pytest.param(1.0, marks=pytest.mark.slow)])  # of the calls
def test_no_call_of_any_function_does_any_harm(
    conn: Conn, intruder: Conn, engine: EngineDouble, database: Database, share: float
) -> None:
    seed = int(os.environ.get("PG_BRIDGE_SEED") or random.randrange(1 << 32))
    draw = random.Random(seed)
    started = conn.execute("SELECT pg_postmaster_start_time()").fetchone()
    pid = intruder.info.backend_pid
    asked = len(engine.received.requests)
    found: list[str] = []
    called = 0
    for function in functions(conn):
        unknown = set(function.arguments) - VALUES.keys()
        assert not unknown, f"llm.{function.name} takes {unknown}: say what it is attacked with"
        for statement in calls(function, draw):
            if draw.random() > share:
                continue
            called += 1
            shown = statement if len(statement) < 500 else f"{statement[:500]}…"
            try:
                cursor = intruder.execute(statement)
                said = str(cursor.fetchall()) if cursor.description else ""
                state = ""
            except psycopg.Error as error:
                said = f"{error} {error.diag.message_detail} {error.diag.message_hint} {error.diag.context}"
                state = error.sqlstate or "none"
                if error.sqlstate is None or intruder.closed:
                    pytest.fail(f"seed {seed}: {shown}: the session was lost: {said}")
            if KEY in said or HIDDEN in said:
                found.append(f"{shown}: shows a secret: {said[:300]}")
            if state.startswith("XX") and not CLEAN_ELSEWHERE.search(said):
                found.append(f"{shown}: {said[:300]}")
    assert conn.execute("SELECT pg_postmaster_start_time()").fetchone() == started
    assert intruder.execute("SELECT pg_backend_pid()").fetchone() == (pid,)
    assert len(engine.received.requests) == asked, "a role without USAGE on the server made a request"
    assert conn.execute("SELECT a FROM hidden").fetchall() == [(HIDDEN,)]
    assert called > 500 * share
    assert not found, f"seed {seed}: {len(found)} of {called}:\n" + "\n".join(found[:40])
