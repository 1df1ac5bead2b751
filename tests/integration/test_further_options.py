"""What else a request carries, from SQL: further keys, headers, a role's salt, thoughts; by whom, and seen by whom."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pg_bridge.testing.double import EngineDouble
from tests.conftest import WRAPPER, Connect, Database, create_server

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

HUSH = "hush-4711"
ROWS = "SELECT i AS id, 'review ' || i AS review FROM generate_series(1, 20) AS i"
CALLS = (
    "llm.complete('Is {review} so?', r, request_options => %s)",
    "llm.is_true('Is {review} so?', r, request_options => %s)",
    "llm.classify('Is {review} so?', r, '{a,b}', request_options => %s)",
    "llm.score('Is {review} so?', r, request_options => %s)",
    "llm.extract('Is {review} so?', r, '{}'::jsonb, request_options => %s)",
    "(SELECT m.output FROM llm.map('SELECT 1 AS review', 'Is {review} so?', request_options => %s) AS m)",
)


@pytest.fixture
def conn(db: Conn, engine: EngineDouble) -> Conn:
    """A superuser's connection; its server is a vLLM that keeps answers."""
    engine.behaviour.owned_by = "vllm"
    create_server(db, engine.url, cache="persistent")
    db.execute("CREATE TABLE reviews AS " + ROWS)
    db.execute("ANALYZE reviews")
    return db


def said(engine: EngineDouble, name: str) -> set[str]:
    found = {json.dumps(body.get(name)) for body in engine.received.bodies}
    engine.received.bodies.clear()
    return found


def alter(conn: Conn, **options: str | None) -> None:
    """Set options of the server `vllm`; None for none."""
    for name, value in options.items():
        have = conn.execute(
            "SELECT FROM pg_foreign_server AS s, pg_options_to_table(s.srvoptions) AS o "
            "WHERE s.srvname = 'vllm' AND o.option_name = %s",
            [name],
        ).rowcount
        if value is None:
            conn.execute(f"ALTER SERVER vllm OPTIONS (DROP {name})".encode())
        else:
            verb = "SET" if have else "ADD"
            conn.execute(sql.SQL("ALTER SERVER vllm OPTIONS ({} {} {})").format(sql.SQL(verb), sql.SQL(name), value))


def make_foreign_table(conn: Conn, database: Database, **options: str) -> None:
    if database.host == "multicorn":
        (wrapper,) = WRAPPER["multicorn"].values()
        conn.execute(f"ALTER SERVER vllm OPTIONS (ADD wrapper '{wrapper}')".encode())
        dsn = psycopg.conninfo.conninfo_to_dict(database.dsn)
        for name in ("host", "port"):
            conn.execute(f"ALTER SERVER vllm OPTIONS (ADD {name} '{dsn[name]}')".encode())
        conn.execute(
            "CREATE USER MAPPING FOR postgres SERVER vllm OPTIONS (user 'postgres', password_required 'false')"
        )
    elif not database.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    listed = "".join(f", {name} '{value}'" for name, value in options.items())
    conn.execute(
        "CREATE FOREIGN TABLE asked (id integer, review text, kind text OPTIONS (prompt 'Is {review} so?'"
        f"{listed})) SERVER vllm OPTIONS (source 'public.reviews')".encode()
    )


@pytest.mark.parametrize("call", CALLS)
def test_every_call_takes_them(conn: Conn, engine: EngineDouble, call: str) -> None:
    conn.execute(f"SELECT {call} FROM reviews AS r LIMIT 1".encode() % b"""'{"seed": 7, "top_p": 0.5}'""")
    assert said(engine, "seed") == {"7"}


def test_a_call_goes_over_the_server(conn: Conn, engine: EngineDouble) -> None:
    alter(conn, request_options='{"seed": 1, "top_p": 0.5}')
    conn.execute("""SELECT llm.complete('a', request_options => '{"seed": 2}')""")
    (body,) = engine.received.bodies
    assert (body["seed"], body["top_p"]) == (2, 0.5)


def test_a_foreign_tables_column_takes_them(conn: Conn, engine: EngineDouble, database: Database) -> None:
    make_foreign_table(conn, database, request_options='{"seed": 7}', reasoning="low", max_reasoning_tokens="50")
    assert len(conn.execute("SELECT kind FROM asked").fetchall()) == 20
    assert {(body["seed"], body["reasoning_effort"], body["max_tokens"]) for body in engine.received.bodies} == {
        (7, "low", 178)
    }


@pytest.mark.parametrize(
    ("call", "server"),
    [
        ("""request_options => '{"seed": 8}'""", {}),
        ("reasoning => 'low'", {}),
        ("max_reasoning_tokens => 7", {}),
        ("", {"request_options": '{"top_k": 1}'}),
        ("", {"reasoning": "medium"}),
        ("", {"max_reasoning_tokens": "8"}),
    ],
)
def test_other_options_are_another_question(
    conn: Conn, asked: Callable[[], int], call: str, server: dict[str, str]
) -> None:
    def ask(more: str) -> None:
        more = f", {more}" if more else ""
        conn.execute(f"SELECT llm.complete('Is {{review}} so?', r{more}) FROM reviews AS r".encode())

    ask("")
    assert asked() == 20
    alter(conn, **server)
    ask(call)
    assert asked() == 20
    ask(call)
    assert asked() == 0
    alter(conn, **dict.fromkeys(server))
    ask("reasoning => 'off'")
    assert asked() == 0


def test_calls_that_differ_in_them_alone_are_asked_apart(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(
        """SELECT llm.complete('Is it so?', r, request_options => jsonb_build_object('seed', id %% 2))
           FROM reviews AS r""".replace("%%", "%")
    )
    assert said(engine, "seed") == {"0", "1"}


# -- values that are forged

NESTED = "(repeat('{\"a\":', 5000) || '1' || repeat('}', 5000))::jsonb"

DIGITS = """'{"a": 1e5000}'"""


@pytest.mark.some(20)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "value",
    [
        "'[1]'",
        "'7'",
        "'\"seed\"'",
        "'null'",
        NESTED,
        "jsonb_build_object('a', repeat('x', 1000000))",
        "jsonb_build_object('a', ARRAY['x', NULL], 'messages', 1)",
        """'{"n": 2}'""",
        """'{"n": 2, "n": 1, "stream": true}'""",
        DIGITS,
    ],
)
def test_forged_values_are_errors_of_their_statement(
    conn: Conn, asked: Callable[[], int], call: str, value: str
) -> None:
    statement = f"SELECT {call.replace('%s', value)} FROM reviews AS r LIMIT 2".encode()
    if value == "'null'":  # JSON's null is SQL's
        conn.execute(statement)
        return
    # What nobody can read fails on Multicorn where errors have no state of their own.
    errors = psycopg.errors.InvalidParameterValue, psycopg.errors.InternalError_, psycopg.errors.StatementTooComplex
    with pytest.raises(errors) as caught:
        conn.execute(statement)
    if value in {NESTED, DIGITS}:
        assert "JSON" in str(caught.value.diag.message_primary)
    else:
        assert isinstance(caught.value, psycopg.errors.InvalidParameterValue)
        assert "request_options" in str(caught.value.diag.message_primary)
        assert caught.value.diag.message_hint
    assert asked() == 0
    assert conn.execute("SELECT llm.complete('still there')").fetchone()


@pytest.mark.parametrize("call", CALLS)
def test_null_is_nothing(conn: Conn, engine: EngineDouble, call: str) -> None:
    conn.execute(f"SELECT {call.replace('%s', 'NULL')} FROM reviews AS r LIMIT 1".encode())
    for body in engine.received.bodies:
        assert body.keys() <= {"model", "max_tokens", "temperature", "structured_outputs", "chat_template_kwargs"}


@pytest.mark.parametrize(
    ("name", "value", "when"),
    [
        ("request_options", "[]", "set"),
        ("request_options", "seed=7", "set"),
        ("request_options", '{"seed": 7', "used"),
        ("request_options", '{"model": "other"}', "used"),
        ("request_options", '{"a": "\\u0000"}', "used"),
        ("request_options", '{"a":' * 5000 + "1" + "}" * 5000, "used"),
        ("headers", "X-Team: a", "set"),
        ("headers", '{"X-Team": 7}', "set"),
        ("headers", '{"X-Team": "a\\r\\nX-Evil: b"}', "set"),
        ("headers", '{"X-Team": "a\r\nX-Evil: b"}', "set"),
        ("headers", '{"X-Team\\u000d": "a"}', "set"),
        ("headers", '{"X-Team": "a\\u000ab"}', "set"),
        ("headers", '{"X Team": "a"}', "set"),
        ("headers", '{"X-Team": "ü"}', "set"),
        ("headers", '{"authorization": "Bearer x"}', "used"),
        ("headers", '{"CONTENT-LENGTH": "0"}', "used"),
        ("headers", '{"Host": "other"}', "used"),
        ("headers", '{"X-a": "1", "x-A": "2"}', "used"),
        ("cache_salt", "everybody", "set"),
        ("reasoning", "a lot", "set"),
        ("reasoning", "", "set"),
        ("max_reasoning_tokens", "0", "set"),
        ("max_reasoning_tokens", "-1", "set"),
    ],
)
def test_what_a_server_may_not_say(conn: Conn, asked: Callable[[], int], name: str, value: str, when: str) -> None:
    if when == "set":
        with pytest.raises(psycopg.errors.FdwInvalidStringFormat, match=f'invalid value for option "{name}"'):
            alter(conn, **{name: value})
        return
    alter(conn, **{name: value})
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        conn.execute("SELECT llm.complete('a')")
    assert name.removesuffix("s") in str(caught.value)
    assert asked() == 0


# -- headers, and who says them


@contextmanager
def role(conn: Conn, name: str = "asker") -> Iterator[str]:
    conn.execute(f"CREATE ROLE {name} LOGIN; GRANT USAGE ON FOREIGN SERVER vllm TO {name}".encode())
    try:
        yield name
    finally:
        conn.execute("RESET ROLE")
        conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_a_secret_header_goes_to_the_engine_and_is_shown_nowhere(
    conn: Conn, engine: EngineDouble, database: Database
) -> None:
    alter(conn, headers='{"X-Team": "films", "X-Key": null}')
    make_foreign_table(conn, database)
    with role(conn) as name:
        mapping = sql.SQL("CREATE USER MAPPING FOR {} SERVER vllm OPTIONS (secret_headers {})")
        conn.execute(mapping.format(sql.Identifier(name), json.dumps({"x-key": HUSH})))
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
        shown = [str(conn.execute("SELECT llm.complete('a')").fetchall())]
        assert engine.received.headers[-1]["x-key"] == HUSH
        assert engine.received.headers[-1]["x-team"] == "films"
        engine.behaviour.refuse_every = f"wrong key {HUSH} in X-Key"
        for statement in (
            "SELECT llm.complete('b')",
            "SELECT * FROM llm.map('SELECT 1 AS a', '{a}', on_error => 'null')",
        ):
            with pytest.raises(psycopg.Error) as caught:
                conn.execute(statement)
            diag = caught.value.diag
            shown.append(f"{caught.value} {diag.message_detail} {diag.message_hint} {diag.context}")
        assert "wrong key" in shown[1]
        for statement in (
            "EXPLAIN (VERBOSE) SELECT llm.complete('b')",
            "EXPLAIN (VERBOSE) SELECT * FROM llm.map('SELECT 1 AS a', '{a}')",
            "SELECT * FROM llm.last_errors()",
            "SELECT * FROM llm.usage()",
            "SELECT * FROM llm.progress()",
            "SELECT srvoptions FROM pg_foreign_server",
        ):
            shown += [str(conn.execute(statement.encode()).fetchall())]
        assert "films" in shown[-1]  # what is no secret
        conn.execute("RESET ROLE")
        shown.append(str(conn.execute("EXPLAIN (VERBOSE) SELECT * FROM asked").fetchall()))
        engine.behaviour.refuse_every = ""
    assert all(HUSH not in each for each in shown)
    assert HUSH not in database.cluster.log_path.read_text().replace("CREATE USER MAPPING", "")


def test_names_come_from_the_owner_alone(conn: Conn, engine: EngineDouble) -> None:
    """Who may use a server makes his own user mapping: he says no header to the engine that it leaves to nobody."""
    with role(conn) as name:
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
        for statement in (
            'ALTER SERVER vllm OPTIONS (ADD headers \'{"X-Admin": "1"}\')',
            "ALTER SERVER vllm OPTIONS (ADD request_options '{\"seed\": 1}')",
            "ALTER SERVER vllm OPTIONS (ADD cache_salt 'role')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())
        for wrong in ("headers", "request_options", "cache_salt", "reasoning"):
            with pytest.raises(psycopg.errors.FdwInvalidOptionName):
                conn.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS ({wrong} 'x')".encode())
        conn.execute("""CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (secret_headers '{"X-Admin": "1"}')""")
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match='secret_headers has "X-Admin", which server "vllm"'
        ):
            conn.execute("SELECT llm.complete('a')")
        assert not engine.received.requests
        conn.execute("RESET ROLE")
        assert conn.execute("SELECT llm.complete('a')").fetchone()
        assert "x-admin" not in engine.received.headers[-1]


def test_who_lacks_a_header_is_told(conn: Conn, engine: EngineDouble) -> None:
    alter(conn, headers='{"X-Key": null}')
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="nobody has said its value") as caught:
        conn.execute("SELECT llm.complete('a')")
    assert "secret_headers" in (caught.value.diag.message_hint or "")
    assert not engine.received.requests


# -- a role's salt


def test_each_role_has_its_own_salt(conn: Conn, engine: EngineDouble, connect: Connect, database: Database) -> None:
    def salt(session: Conn) -> str:
        engine.received.bodies.clear()
        session.execute("SELECT llm.complete('a', cache => 'off')")
        (body,) = engine.received.bodies
        return str(body.get("cache_salt"))

    assert salt(conn) == "None"
    alter(conn, cache_salt="role")
    mine = salt(conn)
    assert len(mine) == 32
    assert mine.isalnum()
    assert salt(conn) == salt(connect()) == mine
    with role(conn) as name:
        theirs = salt(connect(user=name))
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
        assert salt(conn) == theirs != mine
        conn.execute("RESET ROLE")
    create_server(conn, engine.url, name="other", cache_salt="role")
    engine.received.bodies.clear()
    conn.execute("SELECT llm.complete('a', server => 'other', cache => 'off')")
    assert engine.received.bodies[0]["cache_salt"] not in {mine, theirs}
    conn.execute("DROP SERVER other")
    (file,) = (database.cluster.directory / "data").glob("pg_bridge/salt")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_size == 32


def test_what_another_role_asked_is_not_found_in_the_prefix_cache(conn: Conn, engine: EngineDouble) -> None:
    """The double has no salts: the bodies tell. A real vLLM's cache is looked at in test_reasoning_vllm.py."""
    alter(conn, cache_salt="role")
    with role(conn) as name:
        conn.execute("SELECT llm.complete('Is it?')")
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
        conn.execute("SELECT llm.complete('Is it?', cache => 'off')")
        conn.execute("RESET ROLE")
    assert len({body["cache_salt"] for body in engine.received.bodies}) == 2


def test_an_engine_without_salts_is_not_asked(conn: Conn, engine: EngineDouble) -> None:
    alter(conn, cache_salt="role", dialect="openai-compatible")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cache_salt, which its engine does not take"):
        conn.execute("SELECT llm.complete('a')")
    assert not engine.received.requests


# -- models that reason


def test_thoughts_are_told_apart(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reasoning = "Hm. " * 10
    conn.execute("SELECT llm.complete('a', reasoning => 'low')")
    run = conn.execute("SELECT reasoning_tokens, completion_tokens > reasoning_tokens FROM llm.last_run()").fetchone()
    assert run == (10, True)
    engine.behaviour.reasoning = ""
    conn.execute("SELECT llm.complete('b')")
    assert conn.execute("SELECT reasoning_tokens FROM llm.last_run()").fetchone() == (None,)


def test_an_answer_that_thoughts_have_eaten_says_what_to_raise(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reasoning = "Hm. " * 200
    with pytest.raises(psycopg.errors.DataException) as caught:
        conn.execute("SELECT llm.complete('Is {review} so?', r) FROM reviews AS r")
    assert "still reasoned" in str(caught.value)
    assert "max_reasoning_tokens" in (caught.value.diag.message_hint or "")
    rows = conn.execute(
        "SELECT output, error FROM llm.map('SELECT review FROM reviews', 'Is {review} so?', on_error => 'null')"
    ).fetchall()
    assert {(output, "still reasoned" in error) for output, error in rows} == {(None, True)}
    alter(conn, max_reasoning_tokens="500")
    rows = conn.execute("SELECT llm.is_true('Is {review} so?', r) FROM reviews AS r").fetchall()
    assert {row[0] for row in rows} <= {True, False}


@pytest.mark.parametrize("before", ["<think>no?</think>\n\n", "no?</think>\n"])
def test_no_thought_is_a_label_or_a_value(conn: Conn, engine: EngineDouble, before: str) -> None:
    engine.behaviour.ignore_choices = True
    for call, answer, value in (
        ("llm.is_true('Is {review}?', r)", "yes", True),
        ("llm.classify('{review}?', r, '{yes,no}')", "no", "no"),
        ("llm.score('{review}?', r)", "3", 3.0),
        ("llm.extract('{review}?', r, '{}'::jsonb)", '{"a": 1}', {"a": 1}),
        ("llm.complete('{review}?', r)", "It is.", "It is."),
    ):
        engine.behaviour.answer = lambda _, answer=answer: before + answer
        assert {str(row[0]) for row in conn.execute(f"SELECT {call} FROM reviews AS r".encode())} == {str(value)}
