"""Operators and functions that fit their arguments better than PostgreSQL's own, in a schema of everybody's path.

In: a connection of who means harm. Out: whoever calls one of them without naming its schema is trapped, with an error
that says as whom.
"""

from __future__ import annotations

from typing import Any

import psycopg

_OPERATORS = ("=", "<>", ">", ">=")
_PAIRS = ("text[], text[]", "varchar, varchar", "varchar, text", "oid, regclass", "oid, int", "oid[], oid[]")
_FUNCTIONS = (
    "unnest(text[])",
    "unnest(oid[])",
    "unnest(int[])",
    "array_agg(bigint)",
    "array_agg(text)",
    "parse_ident(text)",
    "to_regclass(varchar)",
)


def set_traps(conn: psycopg.Connection[Any], schema: str = "public") -> None:
    """Make them."""
    made = [f"CREATE FUNCTION {schema}.{each} RETURNS boolean LANGUAGE plpgsql AS {_BODY}" for each in _FUNCTIONS]
    for number, pair in enumerate(_PAIRS):
        name = f"{schema}.trap_{number}"
        made.append(f"CREATE FUNCTION {name}({pair}) RETURNS boolean LANGUAGE plpgsql AS {_BODY}")
        left, right = pair.split(", ")
        made += [
            f"CREATE OPERATOR {schema}.{operator} (FUNCTION = {name}, LEFTARG = {left}, RIGHTARG = {right})"
            for operator in _OPERATORS
        ]
    for statement in made:
        conn.execute(statement.encode())


_BODY = "$$ BEGIN RAISE 'trapped as %', current_user; END $$"
