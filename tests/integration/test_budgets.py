"""Budgets in PostgreSQL, on both hosts and by all three ways in; and who may set which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import WRAPPER, Connect, Database, create_server

MULTICORN_IS_SLOW = True
KEEP_DATABASE = True

Conn = psycopg.Connection[Any]
Exceeded = psycopg.errors.ConfigurationLimitExceeded

MAP = "SELECT row_id, input, output, error FROM llm.map('TABLE reviews', 'Is {review} kind?'%s)"
CALLS = "SELECT id, llm.complete('Is {review} kind?', r%s) FROM reviews AS r"
TABLE = "SELECT id, kind FROM asked"


@pytest.fixture
def conn(db: Conn, engine: EngineDouble, database: Database) -> Conn:
    """A superuser's connection; a server that keeps answers and has few in flight, fifty rows, and a table of them."""
    create_server(db, engine.url, cache="persistent", max_in_flight="8", **WRAPPER[database.host])
    db.execute("CREATE TABLE reviews AS SELECT i AS id, 'review ' || i AS review FROM generate_series(1, 50) AS i")
    db.execute("SELECT llm.usage_reset()")
    return db


@pytest.fixture
def asking_table(conn: Conn, database: Database) -> Callable[..., None]:
    """Make a foreign table with options for its model column."""
    if database.host == "plpython" and not database.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    conn.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user 'postgres')")

    def make(**options: str) -> None:
        listed = "".join(f", {name} '{value}'" for name, value in options.items())
        conn.execute(
            "CREATE FOREIGN TABLE asked (id int, review text, kind text OPTIONS (prompt 'Is {review} kind?'"
            + listed
            + ")) SERVER vllm OPTIONS (source 'public.reviews')"
        )

    return make


@pytest.fixture
def role(conn: Conn, connect: Connect) -> Iterator[Callable[[str], Conn]]:
    """Make a role that may use the server, and connect as it."""
    made: list[str] = []

    def make(name: str) -> Conn:
        conn.execute(f"CREATE ROLE {name} LOGIN")
        made.append(name)
        conn.execute(f"GRANT USAGE ON FOREIGN SERVER vllm TO {name}")
        conn.execute(f"GRANT SELECT ON reviews TO {name}")
        return connect(user=name)

    yield make
    for name in made:
        conn.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


# -- a statement


def test_llm_map_ends_at_its_limit_and_what_was_answered_is_found_again(conn: Conn, asked: Callable[[], int]) -> None:
    sent: list[int] = []
    errors: list[Exceeded] = []
    while sent[-1:] != [0]:
        with pytest.raises(Exceeded, match="max_prompt_tokens = 400") as caught:
            conn.execute(MAP % ", max_prompt_tokens => 400")
        errors.append(caught.value)
        sent.append(asked())
        assert sent[-1] <= 30
        if sum(sent) >= 40:
            break
    for error, count in zip(errors, sent, strict=True):
        kept = "What was answered is kept" if count else "Nothing was sent"
        assert kept in (error.diag.message_hint or "")
    assert len(conn.execute(MAP % "").fetchall()) == 50
    assert sum(sent) + asked() == 50


def test_what_would_be_too_much_is_refused_before_the_first_prompt(
    conn: Conn, asked: Callable[[], int], asking_table: Callable[..., None], database: Database
) -> None:
    asking_table(max_requests="20")
    ways = [TABLE]
    if database.host == "plpython":
        ways += [MAP % ", max_requests => 20", CALLS % ", max_requests => 20"]
        conn.execute("LOAD 'pg_bridge'")
    kind = Exceeded if database.host == "plpython" else psycopg.errors.InternalError  # Multicorn hands on no SQLSTATE
    for query in ways:
        with pytest.raises(kind, match="would exceed its limit: max_requests = 20") as caught:
            conn.execute(query)
        assert "at least" in (caught.value.diag.message_detail or "")
        assert "Nothing was sent" in (caught.value.diag.message_hint or "")
    assert asked() == 0


def test_the_rest_is_null_and_says_why(conn: Conn, asked: Callable[[], int]) -> None:
    rows = conn.execute(MAP % ", max_requests => 17, on_budget => 'null'").fetchall()
    assert len(rows) == 50
    assert asked() == 17
    errors = [error for _, _, output, error in rows if output is None]
    assert errors == ["not asked: the statement has reached its limit: max_requests = 17"] * 33
    answered = {row_id for row_id, _, output, _ in rows if output is not None}
    known = conn.execute(MAP % ", max_requests => 0, on_budget => 'null'").fetchall()
    assert {row_id for row_id, _, output, _ in known if output is not None} == answered
    assert asked() == 0


def test_calls_and_columns_have_nulls_too(
    conn: Conn, asked: Callable[[], int], asking_table: Callable[..., None]
) -> None:
    asking_table(max_requests="17", on_budget="null")
    calls = conn.execute(CALLS % ", max_requests => 17, on_budget => 'null'").fetchall()
    assert asked() == 17
    assert sum(answer is None for _, answer in calls) == 33
    # The column knows what the calls were answered, and asks seventeen more.
    rows = conn.execute(TABLE).fetchall()
    assert asked() == 17
    assert sum(kind is None for _, kind in rows) == 16
    assert {row for row in calls if row[1]} < {row for row in rows if row[1]}


@pytest.mark.parametrize("kind", ["cost", "completion_tokens"])
def test_no_more_than_what_was_in_flight_is_beyond_it(conn: Conn, asked: Callable[[], int], kind: str) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD price_completion '1000000')")  # a token costs one
    whole = MAP % ", cache => 'off'"
    conn.execute(whole)
    (tokens,) = conn.execute("SELECT completion_tokens FROM llm.last_run()").fetchone() or (0,)
    assert asked() == 50
    with pytest.raises(Exceeded):
        conn.execute(MAP % f", cache => 'off', max_{kind} => {tokens // 2}, max_seconds => 1000")
    assert asked() <= 33
    rows = conn.execute(MAP % f", cache => 'off', max_{kind} => {tokens // 2}, on_budget => 'null'").fetchall()
    assert 20 <= asked() <= 33
    (taken,) = conn.execute("SELECT completion_tokens FROM llm.last_run()").fetchone() or (0,)
    assert tokens // 2 - 2 * tokens // 50 <= taken <= tokens // 2 + 8 * tokens // 50
    assert 17 <= sum(output is None for _, _, output, _ in rows) <= 30
    (cost,) = conn.execute("SELECT sum(cost) FROM llm.usage()").fetchone() or (0,)
    assert cost >= tokens


def test_a_cost_without_prices_is_an_error(conn: Conn, asked: Callable[[], int]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='server "vllm" has no prices'):
        conn.execute(MAP % ", max_cost => 0.00001")
    assert asked() == 0


# -- a server


def test_the_server_s_limit_holds_for_all_that_a_statement_does(
    conn: Conn, asked: Callable[[], int], asking_table: Callable[..., None]
) -> None:
    asking_table(on_budget="null")
    conn.execute("ALTER SERVER vllm OPTIONS (ADD max_requests '30')")
    others = [
        MAP.replace("kind", kind) % f", max_requests => {limit}, on_budget => 'null'"
        for kind, limit in (("kind", 10), ("long", 15), ("short", 1000))
    ]
    query = " UNION ALL ".join(f"SELECT output IS NULL FROM ({other}) AS o" for other in others)
    conn.execute(query + " UNION ALL SELECT kind IS NULL FROM asked")
    assert asked() == 30
    # Statements within one are of it: one a row, and in transactions of their own.
    conn.execute(
        "CREATE PROCEDURE ask_each() LANGUAGE plpgsql AS $$ DECLARE r reviews; BEGIN FOR r IN TABLE reviews LOOP "
        "PERFORM llm.complete('What of {review}?', r, on_budget => 'null'); COMMIT; END LOOP; END $$"
    )
    conn.execute("CALL ask_each()")
    assert asked() == 30


def test_nothing_that_is_forged_gets_around_it(
    conn: Conn, asked: Callable[[], int], role: Callable[[str], Conn], database: Database
) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD max_requests '10', ADD daily_requests '25')")
    asker = role("asker")
    forged = '{"server": "vllm", "on_budget": "null", "max_requests": 1000000}'
    if database.host == "plpython":
        rows = "ARRAY(SELECT row_to_json(r) FROM reviews AS r)"
        prompts = "array_fill('\"Is {review} kind?\"'::json, ARRAY[50])"
        servers = "ARRAY[array_fill('\"vllm\"'::json, ARRAY[50])]"
        query = f"SELECT FROM llm._batch(%s, 1, false, {prompts}, {rows}, '{forged}', '{{server}}', {servers})"
        both = f"{query % 1} UNION ALL {query % 2}"
    else:
        query = (
            f"SELECT FROM llm.result WHERE rowset = '%s' AND prompt = 'Is {{review}} kind?' AND options = '{forged}'"
        )
        asker.execute("BEGIN")
        asker.execute("INSERT INTO llm.rowset (rowset, input) SELECT 's', row_to_json(r) FROM reviews AS r")
        both = f"{query % 's'} UNION ALL {query % 's'}"
    for most in (10, 10, 5, 0):
        asker.execute(both)
        assert asked() == most
    asker.execute("ROLLBACK" if database.host == "multicorn" else "SELECT")
    for name, value in (
        ("daily_requests", "5"),
        ("max_requests", "-1"),
        ("max_requests", '"1"'),
        ("max_cost", '"1e9999"'),
    ):
        forged = f'{{"{name}": {value}}}'
        (fault,) = asker.execute("SELECT fault FROM llm._complete('Well?', '{}', %s)", [forged]).fetchone() or ([],)
        assert fault[:2] == ["22023", f'invalid {"option" if "daily" in name else "value for option"} "{name}"']


# -- a role and a day


def test_a_day_counts_over_sessions_and_ways_in(
    conn: Conn, asked: Callable[[], int], role: Callable[[str], Conn], connect: Connect
) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD daily_requests '30')")
    asker, other = role("asker"), role("other")
    asker.execute(MAP % ", max_requests => 20, on_budget => 'null'")
    assert asked() == 20
    again = connect(user="asker")
    again.execute(CALLS % ", on_budget => 'null'")
    assert asked() == 10
    with pytest.raises(Exceeded, match="today's daily_requests = 30") as caught:
        again.execute(MAP % "")
    assert "llm.usage()" in (caught.value.diag.message_hint or "")
    assert asked() == 0
    other.execute(MAP.replace("kind", "long") % ", on_budget => 'null'")
    assert asked() == 30
    conn.execute("SELECT llm.usage_reset()")
    again.execute(CALLS.replace("kind", "new") % ", on_budget => 'null'")
    assert asked() == 30


def test_a_user_mapping_says_instead_of_the_server(
    conn: Conn, asked: Callable[[], int], role: Callable[[str], Conn]
) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD daily_requests '10')")
    asker = role("asker")
    conn.execute("CREATE USER MAPPING FOR asker SERVER vllm OPTIONS (daily_requests '30')")
    query = MAP % ", on_budget => 'null'"
    asker.execute(query)
    assert asked() == 30
    asker.execute("DROP USER MAPPING FOR CURRENT_USER SERVER vllm")
    asker.execute(query)
    assert asked() == 0
    conn.execute("CREATE USER MAPPING FOR asker SERVER vllm OPTIONS (daily_requests '45')")
    asker.execute(query)
    assert asked() == 15


def test_the_same_holds_for_foreign_tables(
    conn: Conn, asked: Callable[[], int], asking_table: Callable[..., None], connect: Connect
) -> None:
    asking_table(on_budget="null")
    conn.execute("ALTER USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (ADD daily_requests '30')")
    for most in (30, 0):
        session = connect()
        rows = session.execute(TABLE).fetchall()
        assert asked() == most
        assert sum(kind is None for _, kind in rows) == 20
    assert conn.execute("SELECT sum(questions) FROM llm.usage()").fetchone() == (30,)


def test_a_foreign_table_of_this_transaction_counts(
    conn: Conn, asked: Callable[[], int], asking_table: Callable[..., None]
) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD daily_requests '10', ADD max_requests '8')")
    for most in (8, 2, 0):
        with conn.transaction(force_rollback=True):
            asking_table(on_budget="null")
            conn.execute(TABLE)
            assert asked() == most


def test_a_role_may_not_raise_its_own_limits(conn: Conn, role: Callable[[str], Conn], engine: EngineDouble) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD daily_requests '10')")
    asker = role("asker")
    mine = "USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match='to raise the option "daily_requests"'):
        asker.execute(f"CREATE {mine} (daily_requests '11')")
    asker.execute(f"CREATE {mine} (api_key 'one', daily_requests '10')")
    asker.execute("DROP USER MAPPING FOR CURRENT_USER SERVER vllm")
    conn.execute("CREATE USER MAPPING FOR asker SERVER vllm OPTIONS (api_key 'one', daily_requests '100')")
    asker.execute(f"ALTER {mine} (SET api_key 'two')")
    asker.execute(f"ALTER {mine} (ADD daily_cost '1e-5')")  # the server has none, so it allows less
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        asker.execute(f"ALTER {mine} (SET daily_requests '101')")
    asker.execute(f"ALTER {mine} (SET daily_requests '99')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        asker.execute(f"ALTER {mine} (SET daily_requests '100')")
    # A value of one server is no warrant for another.
    create_server(conn, engine.url, "dear", daily_requests="5")
    conn.execute("GRANT USAGE ON FOREIGN SERVER dear TO asker")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        asker.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER dear OPTIONS (daily_requests '99')")
    # Its owner may, for himself and for others.
    conn.execute("ALTER SERVER vllm OWNER TO asker; ALTER SERVER dear OWNER TO asker")
    asker.execute(f"ALTER {mine} (SET daily_requests '1000')")
    role("other")
    asker.execute("CREATE USER MAPPING FOR other SERVER dear OPTIONS (daily_requests '1000')")
    conn.execute("ALTER SERVER vllm OWNER TO CURRENT_USER; ALTER SERVER dear OWNER TO CURRENT_USER")
