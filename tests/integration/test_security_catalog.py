"""What safety rests on, read from the catalog: paths, owners, rights and kinds of all that the extension makes.

A new function fails here until it has a fixed search_path, or names that are bound when it is made, or stands in one of
the lists below with its reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.conftest import EXTENSIONS, Database

Conn = psycopg.Connection[Any]

FIXED = "search_path=pg_catalog, pg_temp"

OWN_PATH = {
    "_check_query": "parses the caller's query, which his path reads",
    "_open": "plans the caller's query, which his path reads",
    "_map": "runs the caller's query",
    "_estimate": "runs the caller's query",
    "_rank": "runs the caller's query",
    "_map_with_tools": "runs the caller's query and functions",
    "_use_tool": "runs the caller's functions",
    "_try": "runs the caller's query",
    "_sample": "runs the caller's query",
    "_alike": "runs the caller's query",
    "_stage": "runs the caller's query",
    "_fetch": "runs the caller's query, which goes on with each row",
    "_foreign_import": "one call of Python; the names of its commands are read by the path of IMPORT FOREIGN SCHEMA",
    "submit": "keeps the caller's path beside his query, whose names are meant as that has them",
    "classify_many": "the planner puts its body in its place, which a path would forbid",
    "embed": "as classify_many",
    "relevance": "as classify_many",
    "translate": "as classify_many",
    "sentiment": "as classify_many",
    "redact": "as classify_many",
    "fix_grammar": "as classify_many",
    "refine": "as classify_many",
    "_under_no_name": "to_json calls it for each row, and a path would take longer than all of it",
    "row": "PostgreSQL's own json_build_array, and looks nothing up",
    "_parts_in": "PostgreSQL's own json_in",
    "_parts_out": "PostgreSQL's own json_out",
    "_parts_receive": "PostgreSQL's own json_recv",
    "_parts_send": "PostgreSQL's own json_send",
    "_gathered_in": "PostgreSQL's own int8in",
    "_gathered_out": "PostgreSQL's own int8out",
    "aggregate": "an aggregate; its functions have a path",
    "summarize": "an aggregate; its functions have a path",
    "_aggregate": "an aggregate; its functions have a path",
    "_summarize": "an aggregate; its functions have a path",
    "_foreign_handler": "C, and looks nothing up",
    "_source_table": "C, and looks nothing up but what its argument names",
    "_source_columns": "C, and looks nothing up but what its argument names",
    "_source_size": "C, and looks nothing up but what its argument names",
    "_source_rows": "C, and looks nothing up but what its argument names",
}
"""Functions without a fixed path whose bodies are texts. The test looks at them: all in them is qualified."""

SECURITY_DEFINER = {
    "_connect": "reads user mappings, whose secrets stay in the backend's Python",
    "usage_reset": "may be granted, and is to nobody; behind it stands a check for superusers",
}

EXECUTED_BY_ALL = {
    "_connect": "every role puts its own servers into the session; it returns nothing",
    "_open": "llm.map calls it as the caller, whose query it opens",
    "_check_query": "_open calls it; it does less",
    "_names": "_open calls it; it looks at its argument only",
    "_checked": "llm.map and its kin call it; it looks at its argument only",
    "_under_no_name": "the cast of what llm.row returns; it looks at its argument only",
    "_raise": "llm.map and its kin call it; it raises what it is told, as any DO block can",
    "_map": "llm.map calls it; it asks as the caller",
    "_estimate": "llm.estimate calls it; it asks nothing, and reads as the caller",
    "_rank": "llm.rank and llm.rank_estimate call it; it asks and reads as the caller",
    "_map_with_tools": "llm.map_with_tools calls it; it asks, reads and calls functions as the caller",
    "_tools": "Python calls it; it reads the catalog, as all may",
    "_use_tool": "Python calls it; it is no more than EXECUTE, of what writes nothing",
    "_try": "llm.evaluate and llm.tune call it; it asks and reads as the caller",
    "_sample": "llm.cascade and its kin call it; it asks and reads as the caller",
    "_alike": "llm.resolve and llm.clusters call it; it asks and reads as the caller",
    "_complete": "_ask calls it; it asks as the caller",
    "_ask": "llm.complete and its kin call it; it asks as the caller",
    "_classify_many": "llm.classify_many calls it; it asks as the caller",
    "_labels": "llm.classify without labels calls it; it looks at its argument only",
    "_embed": "llm.embed calls it; it asks as the caller",
    "_medium": "llm.embed calls it; it looks at its argument only",
    "_relevance_of": "llm.relevance calls it; it asks as the caller",
    "_label_array": "llm.classify_many calls it; it looks at its argument only",
    "_ledger": "llm.cache_stats and its kin call it; behind it stand checks by the current role",
    "_reply": "as _ledger, which raises what it replies",
    "_session": "llm.last_run and llm.version call it; it tells of the current role's runs",
    "_stage": "_map calls it; what it stages belongs to the current role",
    "_fetch": "Python and _stage call it; it is no more than FETCH",
    "_batch": "the batch functions call it; it asks as the caller, and numbers of statements cannot be guessed",
    "_answers": "the batch functions call it",
    "_note": "the aggregates call it; what it keeps is the current role's, until the transaction ends",
    "_gather": "llm.aggregate calls it; as _note",
    "_gather_text": "llm.summarize calls it; as _note",
    "_reduce": "the aggregates call it; it asks as the caller about what the caller has gathered",
    "_reduced": "as _reduce",
    "_aggregate": "llm.aggregate without its last step, for the module",
    "_summarize": "llm.summarize without its last step, for the module",
    "_report": "EXPLAIN ANALYZE calls it as the role that asked; numbers of statements cannot be guessed",
    "_batch_result": "llm.register_batch calls it as the owner of the function; it reads the catalog, as all may",
    "_misfit": "as _batch_result",
    "_registered": "the view llm.batch_function calls it; it reads the catalog, as all may",
    "_source_table": "Python calls it as the role that reads a foreign table; it refuses outside of such a scan",
    "_source_columns": "as _source_table",
    "_source_size": "as _source_table",
    "_source_rows": "as _source_table",
    "_submit": "llm.submit calls it; it makes a job of the caller's own",
    "_state_of": "llm.cancel and llm.wait call it; policies show a role its own jobs",
    "_kept_base": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_by_row": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_check": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_chunk_check": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_comment": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_equal": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_name": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_new_name": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_note_all": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_parts": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_sent": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_state": "the view llm.kept calls it; it reads as whoever looks",
    "_kept_trigger": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_view": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_watch": "llm.keep and its kin call it; it reads and makes as the caller",
    "_kept_work": "a worker calls it as the role that keeps a column; it reads and mends as that role",
}
"""Internal functions that roles without any right may execute, and why they must. Batch functions of the extension's
own functions are among them, by their names: the executor checks that the caller may execute them."""
OWN_BATCHES = (
    "_(complete|(is_true|classify|score)(_confidence)?|classify_many|embed|relevance_of|extract|aggregate|summarize)"
    "_batch"
)

READ_BY_ALL = {"batch_function", "result", "rowset", "_state", "_desk", "jobs", "_job", "kept", "_kept"}
WRITTEN_BY_ALL = {
    "rowset": "row sets go in by INSERT, and belong to role and transaction",
    "_further_rows": "as rowset: llm.map stages rows there as the caller",
}
GUARDED = {
    "_job": "its policies let a role write its own rows: tests/integration/test_worker.py",
    "_kept": "its policies let a role write its own rows: tests/integration/test_kept.py",
}
NOT_STRICT = {
    "_source_table": "checks its arguments, which Python leaves NULL",
    "_source_columns": "as _source_table",
    "_source_size": "as _source_table",
    "_source_rows": "as _source_table",
}


@dataclass(frozen=True)
class Function:
    """A function of the extension."""

    name: str
    language: str
    settings: tuple[str, ...]
    is_bound: bool
    is_definer: bool
    is_strict: bool
    is_leakproof: bool
    is_public: bool
    owner: str
    body: str


def functions(conn: Conn, extension: str) -> list[Function]:
    rows = conn.execute(
        "SELECT p.proname, l.lanname, coalesce(p.proconfig, '{}'), p.prosqlbody IS NOT NULL, p.prosecdef, "
        "p.proisstrict, p.proleakproof, has_function_privilege('public', p.oid, 'EXECUTE'), "
        "p.proowner::regrole::text, p.prosrc "
        "FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.objid JOIN pg_language AS l ON l.oid = p.prolang "
        "JOIN pg_extension AS e ON e.oid = d.refobjid WHERE d.classid = 'pg_proc'::regclass "
        "AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = %s ORDER BY 1",
        [extension],
    ).fetchall()
    return [Function(name, language, tuple(settings), *rest) for name, language, settings, *rest in rows]


@pytest.fixture
def made(db: Conn, database: Database) -> list[Function]:
    found = functions(db, EXTENSIONS[database.host])
    assert len(found) > 15
    return found


# -- search_path

_PYTHON = re.compile(r"\s*from pg_bridge\.plpython import (\w+)\nreturn \1\.\w+\([\w, ]*\)\s*")
_COMMENT = re.compile(r"--[^\n]*")
_STRING = re.compile(r"E?'((?:''|[^'])*)'")
_QUALIFIED_OPERATOR = re.compile(r"OPERATOR\(pg_catalog\.[^)]+\)")
_NO_OPERATOR = re.compile(r":=|\.\.|=>|::|\w\.\*|%[sI]|\* FROM|\b(ERRCODE|MESSAGE|DETAIL|HINT|DIAGNOSTICS \w+)\s*=")
_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|`?]+")
_HIDDEN_OPERATOR = re.compile(
    r"\b(IN|(I?LIKE|SIMILAR|BETWEEN|OVERLAPS|NULLIF|GREATEST|LEAST|USING(?=\s*\())|DISTINCT\s+FROM)\b", re.I
)
_CALL = re.compile(
    r"(?<![\w.])(?!(?:VALUES|IF|AND|OR|NOT|EXISTS|FROM|AS|INTO|LATERAL|OPERATOR|rowset)\b)\w+\s*\(", re.I
)
_CAST = re.compile(r"::\s*(?!pg_catalog\.)")
_INTO_COLUMNS = re.compile(r"INTO\s+llm\.\w+\s*\([\w, ]*\)", re.I)


def unqualified(body: str) -> list[str]:
    """What in a body of SQL or PL/pgSQL would be looked up by the caller's path."""
    text = _COMMENT.sub("", body)
    queries = [s for s in _STRING.findall(text) if re.match(r"\s*(SELECT|INSERT|WITH|FETCH)\b", s)]
    found: list[str] = []
    declared = re.search(r"\bDECLARE\b(.*?)\bBEGIN\b", text, re.S)
    for line in declared.group(1).strip().splitlines() if declared else ():
        words = line.replace("CONSTANT", "").split()
        found += [line.strip()] if words and not words[1].startswith("pg_catalog.") else []
    for piece in [_STRING.sub("''", text), *queries]:
        for part in re.split(r"\bFOR \w+ IN (?:\d|EXECUTE\b)", piece):  # such loops are PL/pgSQL's own
            plain = _INTO_COLUMNS.sub("INTO t", _NO_OPERATOR.sub(" ", _QUALIFIED_OPERATOR.sub(" ", part)))
            found += _OPERATOR.findall(plain) + [m.group(0) for m in _HIDDEN_OPERATOR.finditer(plain)]
            found += [m.group(0) for m in _CALL.finditer(plain)]
        found += ["a cast"] * len(_CAST.findall(piece))
        found += ["CASE … WHEN"] if re.search(r"\bCASE\s+(?!WHEN)", piece, re.I) else []
    return found


def has_own_path_soundly(function: Function) -> list[str]:
    """What is wrong with a function that keeps the caller's path."""
    if function.name not in OWN_PATH:
        return ["it has neither a fixed search_path nor a reason for none"]
    if function.language in ("c", "internal"):
        return []
    if function.language == "plpython3u":
        return [] if _PYTHON.fullmatch(function.body) else ["its body is more than one call"]
    return unqualified(function.body)


def test_every_function_has_a_fixed_path_or_a_reason(made: list[Function]) -> None:
    wrong = {}
    for function in made:
        paths = [each for each in function.settings if each.startswith("search_path=")]
        if paths == [FIXED] or (function.is_bound and not paths):
            continue
        found = has_own_path_soundly(function) if not paths else [f"its path is {paths}"]
        if found:
            wrong[function.name] = found
    assert wrong == {}
    assert any(function.name in OWN_PATH for function in made)


@pytest.mark.parametrize(
    "body",
    [
        "SELECT a = b FROM llm.result",
        "SELECT a OPERATOR(pg_catalog.=) b OR a <> c FROM t",
        "SELECT 'x' || a",
        "SELECT a::text",
        "SELECT lower(a)",
        "SELECT pg_catalog.lower(a), upper (b)",
        "DECLARE a text; BEGIN RETURN a; END",
        "DECLARE a pg_catalog.text;\n b CONSTANT integer := 1; BEGIN RETURN a; END",
        "BEGIN IF a IN (1, 2) THEN RETURN 1; END IF; END",
        "BEGIN RETURN a LIKE 'x'; END",
        "BEGIN RETURN a IS DISTINCT FROM b; END",
        "BEGIN RETURN NULLIF(a, b); END",
        "BEGIN RETURN CASE a WHEN 1 THEN 2 END; END",
        "BEGIN EXECUTE 'SELECT a = 1 FROM t'; END",
        "BEGIN EXECUTE pg_catalog.format(E'SELECT lower(%s) FROM t', a); END",
        "BEGIN EXIT WHEN a < b; END",
    ],
)
def test_what_a_body_leaves_to_the_caller_s_path_is_noticed(body: str) -> None:
    assert unqualified(body)


def test_a_function_without_a_path_is_noticed(db: Conn, database: Database) -> None:
    extension = EXTENSIONS[database.host]
    for name in ("helped", "_fetch"):
        db.execute(
            f"CREATE FUNCTION llm.{name}(a int) RETURNS bool LANGUAGE sql AS 'SELECT a = 1';"
            f"ALTER EXTENSION {extension} ADD FUNCTION llm.{name}(int)"
        )
    without = [each for each in functions(db, extension) if not each.settings and not each.is_bound]
    assert {"helped", "_fetch"} <= {each.name for each in without if has_own_path_soundly(each)}


# -- rights


def test_only_the_named_functions_run_with_their_owner_s_rights(made: list[Function]) -> None:
    definers = [function for function in made if function.is_definer]
    assert {function.name for function in definers} == set(SECURITY_DEFINER)
    assert all(FIXED in function.settings for function in definers)


def test_internal_functions_are_executed_by_those_who_must(made: list[Function]) -> None:
    public = {function.name for function in made if function.is_public and function.name.startswith("_")}
    own_batches = {name for name in public if re.fullmatch(OWN_BATCHES, name)}
    assert public - own_batches - EXECUTED_BY_ALL.keys() == set()
    hidden = {"_validate", "_servers", "_connect_current"} & {function.name for function in made}
    assert hidden
    assert not hidden & public


def test_a_function_in_c_checks_its_arguments(made: list[Function]) -> None:
    careless = {f.name for f in made if f.language == "c" and not f.is_strict} - NOT_STRICT.keys()
    assert careless == set()


def test_no_function_is_said_to_be_leakproof(made: list[Function]) -> None:
    assert [function.name for function in made if function.is_leakproof] == []


def test_all_belongs_to_who_made_the_extension(db: Conn, made: list[Function], database: Database) -> None:
    owner, schema = db.execute(
        "SELECT e.extowner::regrole::text, n.nspowner::regrole::text "
        "FROM pg_extension AS e, pg_namespace AS n WHERE e.extname = %s AND n.nspname = 'llm'",
        [EXTENSIONS[database.host]],
    ).fetchone() or ("", "")
    assert owner == schema
    assert {function.owner for function in made} == {owner}
    for catalog, column in (
        ("pg_class", "relowner"),
        ("pg_foreign_data_wrapper", "fdwowner"),
        ("pg_foreign_server", "srvowner"),
    ):
        others = db.execute(
            f"SELECT o.oid FROM pg_depend AS d JOIN {catalog} AS o ON o.oid = d.objid "
            f"WHERE d.classid = '{catalog}'::regclass AND d.deptype = 'e' "
            f"AND d.refclassid = 'pg_extension'::regclass AND o.{column}::regrole::text <> %s",
            [owner],
        ).fetchall()
        assert others == []


def test_nobody_has_rights_on_tables_but_the_named_ones(db: Conn) -> None:
    tables = db.execute(
        "SELECT c.relname, has_table_privilege('public', c.oid, 'SELECT'), has_table_privilege('public', c.oid, "
        "'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') FROM pg_class AS c "
        "WHERE c.relnamespace = 'llm'::regnamespace AND c.relkind NOT IN ('i', 'c') AND NOT c.relispartition"
    ).fetchall()
    assert tables
    assert {name for name, read, _ in tables if read} <= READ_BY_ALL
    assert {name for name, _, written in tables if written} <= WRITTEN_BY_ALL.keys() | GUARDED.keys()
    for name in GUARDED:
        query = f"SELECT relrowsecurity FROM pg_class WHERE oid = 'llm.{name}'::regclass"
        assert db.execute(query).fetchone() == (True,)
    more = "'UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'"
    assert not any(
        db.execute(f"SELECT has_table_privilege('public', 'llm.{name}', {more})").fetchone() == (True,)
        for name in WRITTEN_BY_ALL.keys() & {name for name, _, _ in tables}
    )


def test_nobody_makes_things_in_the_schema_or_servers(db: Conn) -> None:
    assert db.execute(
        "SELECT has_schema_privilege('public', 'llm', 'USAGE'), has_schema_privilege('public', 'llm', 'CREATE'), "
        "has_foreign_data_wrapper_privilege('public', 'pg_bridge', 'USAGE')"
    ).fetchone() == (True, False, False)
    assert (
        db.execute(
            "SELECT srvname FROM pg_foreign_server WHERE has_server_privilege('public', oid, 'USAGE')"
        ).fetchall()
        == []
    )


def test_no_table_keeps_oids_that_an_upgrade_would_change(db: Conn) -> None:
    """pg_upgrade refuses a database with such a column in a table, a materialized view or an index."""
    found = db.execute(
        "SELECT c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid "
        "WHERE c.relnamespace = 'llm'::regnamespace AND c.relkind IN ('r', 'm', 'i', 'f', 'p') AND NOT a.attisdropped "
        "AND a.atttypid IN ('regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype, "
        "'regclass'::regtype, 'regtype'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype, "
        "'regnamespace'::regtype, 'regrole'::regtype, 'regcollation'::regtype, '_regprocedure'::regtype)"
    ).fetchall()
    assert found == []
