"""An engine that means harm, seen from SQL: clean errors, rows that fail alone, the key in no message and no log."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server
from tests.hostile import HostileEngine, Reply, Request, completion, raw, well
from tests.integration.test_map import ask

Conn = psycopg.Connection[Any]
MULTICORN_IS_SLOW = True

KEY = "sk-ne/ver+to=be seen"


@contextmanager
def turned_hostile(conn: Conn, reply: Callable[[Request], Reply]) -> Iterator[Conn]:
    """The server `vllm` is such an engine, for the length of a with block."""
    with HostileEngine(reply) as engine:
        conn.execute("DROP SERVER IF EXISTS vllm CASCADE")
        create_server(conn, engine.url, max_retries="0", request_timeout_s="20")
        conn.execute("CREATE USER MAPPING FOR PUBLIC SERVER vllm OPTIONS (api_key 'sk-ne/ver+to=be seen')")
        yield conn


@pytest.fixture
def hostile(used_conn: Conn, used_engine: EngineDouble) -> Iterator[Callable[[Callable[[Request], Reply]], Any]]:
    yield partial(turned_hostile, used_conn)
    used_conn.execute("DROP SERVER IF EXISTS vllm CASCADE")
    create_server(used_conn, used_engine.url)


@pytest.fixture
def conn(used_conn: Conn) -> Iterator[Conn]:
    """A session that other tests have used; what this one makes is rolled back."""
    with used_conn.transaction(force_rollback=True):
        yield used_conn


@pytest.mark.parametrize(
    "key", ["a\nb", "a\rb", "a\r\nX-Evil: 1", "\n", "a\n", "a\x01b", "a\x7fb", "a\tb", "a\x1fb", ""]
)
def test_a_key_that_would_break_the_header_is_refused_when_it_is_set(conn: Conn, key: str) -> None:
    create = sql.SQL("CREATE USER MAPPING FOR PUBLIC SERVER vllm OPTIONS (api_key {})")
    refused = pytest.raises(psycopg.errors.FdwInvalidStringFormat, match='invalid value for option "api_key"')
    with refused as caught, conn.transaction():
        conn.execute(create.format(key))
    assert "line breaks" in (caught.value.diag.message_hint or "")
    conn.execute(create.format("fine"))
    with pytest.raises(psycopg.errors.FdwInvalidStringFormat):
        conn.execute(sql.SQL("ALTER USER MAPPING FOR PUBLIC SERVER vllm OPTIONS (SET api_key {})").format(key))


@pytest.mark.parametrize("key", ["sk-plain", "Ünïcödé 🐘", "with space", "'\"\\{}[]:,;"])
def test_any_other_key_is_taken(conn: Conn, key: str) -> None:
    conn.execute(sql.SQL("CREATE USER MAPPING FOR PUBLIC SERVER vllm OPTIONS (api_key {})").format(key))
    assert len(ask(conn, "SELECT 1 AS a", "{a}")) == 1


@pytest.mark.parametrize(
    "endpoint",
    ["http://a\nb", "http://a/\x01", "http://user:word@host", "http://a b", "http://a?b", "file:///x", "http://a\r"],
)
def test_an_endpoint_with_a_user_or_a_line_break_is_refused_when_it_is_set(conn: Conn, endpoint: str) -> None:
    with pytest.raises(psycopg.errors.FdwInvalidStringFormat, match='invalid value for option "endpoint"'):
        create_server(conn, endpoint, name="other")


@pytest.mark.parametrize(
    ("everything", "error", "words"),
    [(False, psycopg.errors.DataException, "could not answer"), (True, psycopg.errors.SystemError, "every prompt")],
)
def test_a_refusal_that_repeats_the_key_shows_it_nowhere(
    db: Conn, database: Database, connect: Connect, everything: bool, error: type[psycopg.Error], words: str
) -> None:
    def echoes(request: Request) -> Reply:
        if request.is_control and not everything:
            yield completion(request)
            return
        coded = base64.b64encode(f"Bearer {KEY}".encode()).decode()
        told = f"bad header Authorization {request.headers['Authorization']} or {coded} or {KEY.upper()}"
        yield well({"error": {"message": told}}, status="400 Bad Request")

    before = database.cluster.log_path.stat().st_size
    with turned_hostile(db, echoes):
        reader = connect()
        said: list[str] = []
        for statement in (
            "SELECT * FROM llm.map('SELECT 1 AS a', '{a}')",
            "SELECT llm.complete('x')",
            "SELECT llm.complete('{a}', t) FROM (VALUES (1), (2)) AS t (a)",
        ):
            with pytest.raises(error, match=words) as caught:
                reader.execute(statement)
            assert "bad header" in (caught.value.diag.message_detail or "")
            said.append(f"{caught.value} {caught.value.diag.message_detail} {caught.value.diag.context}")
        if not everything:
            said += [str(ask(reader, "SELECT 1 AS a", "{a}", on_error="null"))]
    with database.cluster.log_path.open(encoding="utf-8", errors="replace") as log:
        log.seek(before)
        said.append(log.read())
    assert "bad header" in said[-1]
    for secret in (KEY, KEY.upper(), "ne/ver", "NE/VER", base64.b64encode(f"Bearer {KEY}".encode()).decode()[12:-4]):
        for each in said:
            assert secret not in each.replace(f"api_key '{KEY}'", "")  # what the test itself set


def test_numbers_of_tokens_out_of_all_proportion_do_not_break_last_run(hostile: Any) -> None:
    usage = {"prompt_tokens": 10**30, "completion_tokens": -5, "prompt_tokens_details": {"cached_tokens": "many"}}
    with hostile(lambda request: [completion(request, usage=usage)]) as conn:
        assert len(ask(conn, "SELECT i FROM generate_series(1, 40) AS i", "{i}")) == 40
        conn.execute("SELECT llm.complete('{i}', t) FROM (SELECT i FROM generate_series(1, 40) AS i) AS t")
        run = conn.execute(
            "SELECT rows, prompt_tokens, cached_tokens, completion_tokens FROM llm.last_run()"
        ).fetchone()
        assert run is not None
        assert run[1:] == (None, None, None)


def test_as_many_tokens_as_are_sane_can_be_added_up(hostile: Any) -> None:
    usage = {"prompt_tokens": 10**9, "completion_tokens": 10**9, "prompt_tokens_details": {"cached_tokens": 10**9}}
    with hostile(lambda request: [completion(request, usage=usage)]) as conn:
        ask(conn, "SELECT i FROM generate_series(1, 200) AS i", "{i}")
        run = conn.execute("SELECT prompt_tokens > 1000000000 FROM llm.last_run()").fetchone()
        assert run == (True,)


@pytest.mark.parametrize("text", ["a\0b", "half \ud83d", 5, None, ["x"]])
def test_an_answer_that_cannot_be_held_fails_its_own_row(hostile: Any, text: object) -> None:
    with hostile(lambda request: [completion(request, text)]) as conn:
        rows = ask(conn, "VALUES (1), (2)", "{column1}", on_error="null")
        assert [row[2] for row in rows] == [None, None]
        assert all(row[3] for row in rows)
        assert conn.execute("SELECT llm.complete('x', on_error => 'null')").fetchone() == (None,)
        with pytest.raises(psycopg.errors.DataException, match="could not answer row"):
            ask(conn, "VALUES (1), (2)", "{column1}")


def test_a_reason_that_cannot_be_held_is_made_fit(hostile: Any) -> None:
    refusal = well({"error": {"message": "bad \0 half \ud83d esc \x1b[2J"}}, status="400 Bad Request")
    with hostile(lambda request: [completion(request) if request.is_control else refusal]) as conn:
        rows = ask(conn, "VALUES (1)", "{column1}", on_error="null")
        assert rows[0][3] == "bad � half � esc �[2J"
        with pytest.raises(psycopg.errors.DataException) as caught:
            ask(conn, "VALUES (1)", "{column1}")
        assert caught.value.diag.message_detail == "bad � half � esc �[2J"


@pytest.mark.parametrize(
    "text",
    ["NaN", '{"a": "\\u0000"}', '{"a": "\\ud800"}', '{"a": 1e999999}', '{"a": ' * 3000 + "1" + "}" * 3000, '{"a"', "7"],
    ids=lambda text: text[:12],
)
def test_json_that_jsonb_cannot_hold_fails_its_own_row(hostile: Any, text: str) -> None:
    call = 'llm.extract(\'x\', t, \'{"type": "object", "required": ["a"]}\', on_error => %s)'
    with hostile(lambda request: [completion(request, text)]) as conn:
        found = conn.execute(f"SELECT {call} FROM (VALUES (1), (2)) AS t (a)", ["null"]).fetchall()
        assert found == [(None,), (None,)]
        with pytest.raises(psycopg.errors.DataException) as caught:
            conn.execute(f"SELECT {call} FROM (VALUES (1), (2)) AS t (a)", ["fail"])
        assert caught.value.sqlstate == "22000"


@pytest.mark.parametrize(
    ("reply", "sqlstate"),
    [
        (raw(b"[" * 300_000), "58000"),
        (raw(b"\xff\xfe"), "58000"),
        (raw(json.dumps({"choices": [{"index": 7, "message": {"content": "x"}}]}).encode()), "58000"),
        (raw(b"", status="302 Found", headers="Location: http://127.0.0.1:1/\r\n"), "58000"),
        (raw(b" " * (3 << 20)), "58000"),
        (raw(b"{", length=10), "08001"),
        (b"no http at all\r\n\r\n", "08001"),
    ],
    ids=range(7),
)
def test_an_answer_that_is_none_is_a_clean_error(hostile: Any, reply: bytes, sqlstate: str) -> None:
    with hostile(lambda _: [reply]) as conn:
        for statement in ("SELECT * FROM llm.map('SELECT 1 AS a', '{a}')", "SELECT llm.complete('x')"):
            with pytest.raises(psycopg.Error) as caught:
                conn.execute(statement)
            assert caught.value.sqlstate == sqlstate
            assert KEY not in str(caught.value)
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_an_answer_has_as_many_bytes_as_the_server_says(hostile: Any) -> None:
    with hostile(lambda request: [completion(request, "x" * 5000)]) as conn:
        conn.execute("ALTER SERVER vllm OPTIONS (ADD max_answer_bytes '5000')")
        for statement in ("SELECT * FROM llm.map('SELECT 1 AS a', '{a}')", "SELECT llm.complete('x')"):
            with pytest.raises(psycopg.errors.SystemError, match="more than 5000 bytes") as caught:
                conn.execute(statement)
            assert "max_answer_bytes" in (caught.value.diag.message_hint or "")
        conn.execute("ALTER SERVER vllm OPTIONS (SET max_answer_bytes '6000')")
        assert conn.execute("SELECT length(llm.complete('x'))").fetchone() == (5000,)
        for wrong in ("0", "-1", "1e6", "many", "1234567890"):
            with pytest.raises(psycopg.errors.FdwInvalidStringFormat), conn.transaction():
                conn.execute(f"ALTER SERVER vllm OPTIONS (SET max_answer_bytes '{wrong}')".encode())


TOO_LONG = {"error": {"message": "This model's maximum context length is 4096 tokens. You requested 9000."}}
KINDS = {
    "too long": ("400 Bad Request", TOO_LONG, "54000", "max_tokens"),
    "used up": ("429 Too Many", {"error": {"message": "no", "code": "insufficient_quota"}}, "53000", "billing"),
    "expired": ("401 Unauthorized", {"error": {"message": "the key has expired"}}, "28P01", "Make a new key"),
    "overloaded": ("503 Busy", {"error": {"message": "Loading model"}}, "57P03", "patience_s"),
}


@pytest.mark.some(6)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("statement", ["SELECT * FROM llm.map('VALUES (1)', '{column1}')", "SELECT llm.complete('x')"])
def test_refusals_are_told_apart(hostile: Any, kind: str, statement: str) -> None:
    status, body, sqlstate, word = KINDS[kind]
    refusal = well(body, status=status)
    with hostile(lambda request: [completion(request) if request.is_control else refusal]) as conn:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(statement.encode())
        assert caught.value.sqlstate == sqlstate
        assert word in (caught.value.diag.message_hint or "")
        assert caught.value.diag.message_detail
