"""Rights on Multicorn: a foreign table's owner has no code run there that he could not run himself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database
from tests.integration.test_foreign_tables import REVIEWS, asked, failure

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

pytestmark = pytest.mark.multicorn


@pytest.fixture
def host() -> str:
    return "multicorn"


@pytest.fixture
def reviews(foreign: Conn) -> Conn:
    foreign.execute(REVIEWS)
    return foreign


@pytest.fixture
def stranger(reviews: Conn, connect: Connect, database: Database) -> Iterator[Conn]:
    """A role that may use the server; its table calls a function of its own, which counts its calls."""
    role = f"stranger_{database.name}"
    reviews.execute(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON FOREIGN SERVER vllm TO {role};"
        f"CREATE SCHEMA {role} AUTHORIZATION {role};"
        f"CREATE USER MAPPING FOR {role} SERVER vllm OPTIONS (user '{role}', password_required 'false')"
    )
    conn = connect(user=role)
    conn.execute(
        f"CREATE FUNCTION {role}.troj() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN "
        "RAISE LOG 'troj as %', current_user; RETURN 1; END $$;"
        f"CREATE FOREIGN TABLE {role}.bait (id int, answer text OPTIONS (prompt 'What is {{id}}?')) SERVER vllm "
        f"OPTIONS (source_query 'SELECT {role}.troj() AS id')"
    )
    yield conn
    reviews.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def called(database: Database, since: int) -> set[str]:
    log = database.cluster.log_path.read_text()[since:]
    return {line.split("troj as ")[1].strip() for line in log.splitlines() if "troj as " in line}


def test_a_strangers_code_is_not_run_as_the_superuser(reviews: Conn, stranger: Conn, database: Database) -> None:
    bait = f"{stranger.info.user}.bait"
    since = len(database.cluster.log_path.read_text())
    for explain in ("EXPLAIN", "EXPLAIN VERBOSE"):
        shown = "\n".join(line for (line,) in reviews.execute(f"{explain} SELECT answer FROM {bait}").fetchall())
        assert "Sample" not in shown
        assert "Estimated" not in shown
    said = failure(reviews, f"SELECT id FROM {bait}")
    assert "has not the rights" in str(said.message_primary)
    assert "security_invoker" in str(said.message_hint)
    assert called(database, since) == set()
    assert stranger.execute(f"SELECT id FROM {bait}").fetchone() == (1,)
    assert called(database, since) == {stranger.info.user}


def test_with_security_invoker_it_is(reviews: Conn, stranger: Conn, database: Database) -> None:
    """As for any view: whoever reads it runs what is in it. EXPLAIN alone still does not."""
    bait = f"{stranger.info.user}.bait"
    stranger.execute(f"ALTER FOREIGN TABLE {bait} OPTIONS (ADD security_invoker 'true')")
    since = len(database.cluster.log_path.read_text())
    reviews.execute(f"EXPLAIN VERBOSE SELECT answer FROM {bait}")
    assert called(database, since) == set()
    assert reviews.execute(f"SELECT id FROM {bait}").fetchone() == (1,)
    assert called(database, since) == {"postgres"}


def test_a_copy_of_anothers_table_opens_and_shuts_nothing(reviews: Conn, stranger: Conn, connect: Connect) -> None:
    role = stranger.info.user
    copy = REVIEWS[REVIEWS.index("CREATE FOREIGN") :].replace("review_insight", f"{role}.copied")
    stranger.execute(copy)
    assert reviews.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)
    assert connect().execute(f"SELECT count(*) FROM {role}.copied").fetchone() == (2000,)  # the same SQL, word for word
    stranger.execute(f"CREATE DOMAIN {role}.t AS text; ALTER FOREIGN TABLE {role}.copied ALTER title TYPE {role}.t")
    assert "has not the rights" in str(failure(connect(), f"SELECT title FROM {role}.copied").message_primary)


def test_a_type_of_the_owner_is_code(reviews: Conn, stranger: Conn, connect: Connect, database: Database) -> None:
    """The user mapping leads to a role whose rights he has; but values are made in the backend of whoever reads."""
    role = stranger.info.user
    stranger.execute(
        f"CREATE DOMAIN {role}.checked AS int CHECK ({role}.troj() = VALUE);"
        f"CREATE FOREIGN TABLE {role}.typed (id {role}.checked) SERVER vllm OPTIONS (source_query 'SELECT 1 AS id')"
    )
    reviews.execute(f"ALTER USER MAPPING FOR postgres SERVER vllm OPTIONS (SET user '{role}')")
    since = len(database.cluster.log_path.read_text())
    other = connect()
    assert "has not the rights" in str(failure(other, f"SELECT id FROM {role}.typed").message_primary)
    assert "postgres" not in called(database, since)
    assert other.execute(f"SELECT id FROM {role}.bait").fetchone() == (1,)
    assert stranger.execute(f"SELECT id FROM {role}.typed").fetchone() == (1,)


def test_figures_of_the_source_are_for_the_owner(reviews: Conn, stranger: Conn, engine: EngineDouble) -> None:
    role = stranger.info.user
    reviews.execute(f"GRANT SELECT ON review_insight, reviews TO {role}")
    query = "EXPLAIN VERBOSE SELECT summary FROM review_insight"
    assert "Sample" in str(reviews.execute(query).fetchall())
    assert "Estimated" in str(reviews.execute(query).fetchall())
    shown = str(stranger.execute(query).fetchall())
    assert "Source SQL" in shown
    assert "Sample" not in shown
    assert "Estimated" not in shown
    assert asked(engine) == {}


@pytest.mark.some(1)
@pytest.mark.parametrize("condition", ["stars <= 2", "length(review) > 3", "random() >= 0", "sentiment = 'positive'"])
def test_behind_a_barrier_no_model_is_asked(
    batching: Database, reviews: Conn, stranger: Conn, engine: EngineDouble, condition: str
) -> None:
    role = stranger.info.user
    reviews.execute(
        f"CREATE VIEW guarded WITH (security_barrier) AS SELECT * FROM review_insight WHERE {condition};"
        f"GRANT SELECT ON guarded, reviews TO {role}"
    )
    for query in (
        "SELECT summary FROM guarded",
        "SELECT review_id FROM guarded WHERE spoiler AND review >= 'zz' COLLATE \"C\"",
        "SELECT count(*) FROM guarded AS g JOIN guarded AS h USING (review_id) WHERE h.sentiment = 'positive'",
    ):
        for explain in ("", "EXPLAIN VERBOSE "):
            said = failure(stranger, explain + query)
            assert said.sqlstate == "0A000"
            assert "hides" in str(said.message_primary)
            assert "source" in str(said.message_hint)
    assert engine.received.prompts == []


def test_without_a_barrier_it_is(reviews: Conn, engine: EngineDouble) -> None:
    reviews.execute("CREATE VIEW plain AS SELECT * FROM review_insight WHERE stars <= 2")
    assert len(reviews.execute("SELECT summary FROM plain WHERE review_id < 10").fetchall()) > 0
    assert engine.received.prompts != []
