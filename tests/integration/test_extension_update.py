"""ALTER EXTENSION … UPDATE: from what 0.1 was to this version, with everything that was made of it.

The install scripts of 0.1 are put into the server's folder for as long as a test needs them, where this user may write
there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pg_bridge import EXTENSION_VERSION
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import EXTENSIONS
from tests.extension_0_1 import MEMBERS, install_scripts
from tests.integration.batch_functions import make_functions

Conn = psycopg.Connection[Any]


@pytest.fixture
def old_scripts(cluster: Cluster) -> Iterator[None]:
    """Those of 0.1 in the server's folder."""
    with install_scripts(cluster):
        yield


@pytest.fixture(params=EXTENSIONS)
def host(request: pytest.FixtureRequest, cluster: Cluster) -> str:
    found = cluster.psql("SELECT count(*) FROM pg_available_extensions WHERE name = 'multicorn'").strip()
    if request.param == "multicorn" and found == "0":
        pytest.skip("this server has no Multicorn2")
    return str(request.param)


@pytest.fixture
def make(cluster: Cluster, old_scripts: None, host: str) -> Iterator[Any]:
    """Makes a database with the extension of a version."""
    made: list[tuple[str, Conn]] = []

    def make_one(name: str, version: str) -> Conn:
        cluster.psql(f"CREATE DATABASE {name}")
        connection = psycopg.connect(cluster.dsn_of(name), autocommit=True)
        made.append((name, connection))
        connection.execute(f"CREATE EXTENSION {EXTENSIONS[host]} VERSION '{version}' CASCADE".encode())
        return connection

    yield make_one
    for name, connection in made:
        connection.close()
        cluster.psql(f"DROP DATABASE {name}")


def members(conn: Conn) -> dict[tuple[str, str], list[str | None]]:
    """All that belongs to the extension, by kind and name."""
    conn.execute("SET search_path = pg_catalog")
    found = {(kind, name): what for kind, name, what in conn.execute(MEMBERS).fetchall()}
    conn.execute("RESET search_path")
    return found


def dump_of(cluster: Cluster, database: str) -> str:
    return subprocess.run(
        [cluster.binaries / "pg_dump"],
        env=cluster.client_environment(database),
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def update(conn: Conn, host: str) -> list[str]:
    """Update the extension; what was warned of."""
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    conn.execute(f"ALTER EXTENSION {EXTENSIONS[host]} UPDATE".encode())
    return said


def test_the_catalog_is_that_of_a_new_one(make: Any, host: str) -> None:
    upgraded, fresh = make("upgraded", "0.1"), make("fresh", EXTENSION_VERSION)
    assert update(upgraded, host) == []
    found, wanted = members(upgraded), members(fresh)
    assert found.keys() == wanted.keys()
    assert {name: (what, wanted[name]) for name, what in found.items() if what != wanted[name]} == {}
    assert len(found) > 60


# -- what was made of it

COMPLETE_0_1 = "llm.complete(text,anyelement,text,integer,double precision,text,text[],text,text,boolean,integer)"
USED = """
CREATE ROLE upgraded_ana;
CREATE TABLE a (id int PRIMARY KEY, t text, "Ü x" text);
INSERT INTO a VALUES (1, 'first', 'x'), (2, 'second', NULL);
CREATE VIEW asked WITH (security_barrier = true) AS
    SELECT id, llm.complete('What is {t}?', a, temperature => 0.5) AS answer FROM a;
CREATE VIEW above AS SELECT upper(answer) AS answer FROM asked;
GRANT SELECT ON asked TO upgraded_ana;
COMMENT ON VIEW asked IS 'a view of mine';
CREATE TABLE b (id int, kind text DEFAULT llm.complete('Say something.', '{}'::jsonb));
CREATE FUNCTION kind_of(what a) RETURNS text LANGUAGE sql STABLE
    BEGIN ATOMIC SELECT llm.classify('Which is {t}?', what, '{x,y}'); END;
CREATE PROCEDURE ask() BEGIN ATOMIC INSERT INTO a SELECT 3, llm.complete('Say.', '{}'::jsonb); END;
CREATE FUNCTION late(what a) RETURNS text LANGUAGE sql AS $$ SELECT llm.complete('What is {t}?', what) $$;
ALTER TABLE b ENABLE ROW LEVEL SECURITY;
CREATE POLICY kind ON b USING (llm.is_true('Is {kind} kind?', b)) WITH CHECK (llm.is_true('Is {kind} kind?', b));
CREATE RULE told AS ON DELETE TO b DO ALSO SELECT llm.complete('Gone?', a) FROM a;
"""


@pytest.fixture
def used(make: Any, host: str, engine: EngineDouble, cluster: Cluster) -> Iterator[Conn]:
    """A database in which 0.1 was in use."""
    conn: Conn = make("used", "0.1")
    options = f"endpoint '{engine.url}'" + (
        ", wrapper 'pg_bridge.hosts.multicorn.Wrapper'" if host == "multicorn" else ""
    )
    conn.execute(f"CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS ({options})".encode())
    conn.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (api_key 'sesame')")
    engine.behaviour.api_key = "sesame"
    conn.execute(USED.encode())
    yield conn
    conn.execute("DROP OWNED BY upgraded_ana; DROP ROLE upgraded_ana")


def test_views_policies_defaults_rules_and_functions_call_the_new_ones(
    used: Conn, host: str, engine: EngineDouble
) -> None:
    seen = "SELECT c.relacl::text, c.reloptions, obj_description(c.oid) FROM pg_class AS c WHERE relname = 'asked'"
    before = used.execute(seen).fetchone()
    with pytest.raises(psycopg.Error, match=r"version 0\.1(.|\n)*ALTER EXTENSION pg_bridge UPDATE"):
        used.execute("SELECT * FROM asked")
    assert update(used, host) == []
    assert used.execute(seen).fetchone() == before
    assert used.execute("SELECT count(answer) FROM above").fetchone() == (2,)
    used.execute("INSERT INTO b (id) VALUES (1)")
    assert used.execute("SELECT count(kind), count(kind_of(a)), count(late(a)) FROM a, b").fetchone() == (2, 2, 2)
    used.execute("DELETE FROM b")
    assert [name for (name,) in used.execute("SELECT proname FROM pg_proc WHERE proname LIKE '\\_0\\_1%'")] == []
    assert not used.execute(
        "SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid WHERE d.refclassid = "
        "'pg_extension'::regclass AND d.deptype = 'e' AND e.extname LIKE 'pg_bridge%' AND d.objid IN "
        "('asked'::regclass, 'kind_of(a)'::regprocedure)"
    ).fetchall()


@pytest.mark.some(1)
def test_sessions_that_were_open_go_on(used: Conn, host: str, engine: EngineDouble, cluster: Cluster) -> None:
    with psycopg.connect(cluster.dsn_of("used"), autocommit=True) as other:
        other.execute("PREPARE asked AS SELECT count(answer) FROM asked")
        with pytest.raises(psycopg.Error, match=r"version 0\.1"):
            other.execute("EXECUTE asked")
        with other.transaction():
            other.execute("SELECT count(id) FROM asked")
            used.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                update(used, host)
            used.execute("RESET lock_timeout")
        assert used.execute("SELECT DISTINCT extversion FROM pg_extension WHERE extname ~ 'bridge'").fetchall() == [
            ("0.1",)
        ]
        update(used, host)
        assert other.execute("EXECUTE asked").fetchone() == (2,)


def test_rights_that_were_given_or_taken_hold_and_are_part_of_a_dump(
    used: Conn, host: str, engine: EngineDouble, cluster: Cluster
) -> None:
    used.execute(f"REVOKE ALL ON FUNCTION {COMPLETE_0_1} FROM PUBLIC".encode())
    used.execute(f"GRANT EXECUTE ON FUNCTION {COMPLETE_0_1} TO upgraded_ana WITH GRANT OPTION".encode())
    update(used, host)
    rights = (
        "SELECT has_function_privilege('public', p.oid, 'EXECUTE'), "
        "has_function_privilege('upgraded_ana', p.oid, 'EXECUTE WITH GRANT OPTION') "
        "FROM pg_proc AS p WHERE p.pronamespace = 'llm'::regnamespace AND p.proname = 'complete'"
    )
    assert used.execute(rights.encode()).fetchall() == [(False, True)] * 2
    others = rights.replace("'complete'", "'classify'").replace(" WITH GRANT OPTION", "")
    assert used.execute(others.encode()).fetchall() == [(True, True)] * 2
    dump = dump_of(cluster, "used")
    assert dump.count("REVOKE ALL ON FUNCTION llm.complete(") == 2
    assert dump.count("TO upgraded_ana WITH GRANT OPTION") == 2


@pytest.mark.some(1)
def test_what_cannot_be_bound_anew_keeps_what_it_calls_in_dumps_too(
    used: Conn, host: str, engine: EngineDouble, cluster: Cluster
) -> None:
    used.execute("CREATE MATERIALIZED VIEW kept AS SELECT id, t FROM a WITH NO DATA")
    used.execute(
        "CREATE MATERIALIZED VIEW answers AS "
        "SELECT id, llm.complete('What is {t}?', a, max_tokens => 7) AS answer FROM a WITH NO DATA"
    )
    said = update(used, host)
    assert len(said) == 1
    assert said[0].startswith("llm._0_1_complete(")
    used.execute("REFRESH MATERIALIZED VIEW answers")
    answers = used.execute("SELECT * FROM answers ORDER BY id").fetchall()
    assert [bool(answer) for _, answer in answers] == [True, True]
    assert {body["max_tokens"] for body in engine.received.bodies} == {7}
    dump = dump_of(cluster, "used")
    cluster.psql("CREATE DATABASE restored")
    try:
        cluster.psql(dump, database="restored")
        assert cluster.psql("SELECT count(answer) FROM answers", database="restored").strip() == "2"
    finally:
        cluster.psql("DROP DATABASE restored")
    used.execute("DROP MATERIALIZED VIEW answers")
    used.execute(
        "DO $$ BEGIN EXECUTE (SELECT format('DROP FUNCTION %s', oid::regprocedure) FROM pg_proc "
        "WHERE proname = '_0_1_complete'); END $$"
    )


def test_registrations_live(make: Any, host: str, engine: EngineDouble) -> None:
    if host == "multicorn":
        pytest.skip("batching is of the other host")
    conn: Conn = make("registered", "0.1")
    make_functions(conn)  # of which 0.1 registers two
    conn.execute("SELECT llm.register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])')")
    assert update(conn, host) == []
    registered = "SELECT function::text, batch::text FROM llm.batch_function WHERE function::text LIKE 'word%'"
    batch = "word_batch(bigint,integer,json[],json[])"
    assert conn.execute(registered.encode()).fetchall() == [("word(text,integer)", batch)]


def test_an_update_that_fails_leaves_all_as_it_was(used: Conn, host: str) -> None:
    before = members(used)
    used.execute("CREATE TABLE llm._kept (i int)")
    with pytest.raises(psycopg.errors.DuplicateTable):
        update(used, host)
    assert members(used) == before
    used.execute("DROP TABLE llm._kept; CREATE FUNCTION llm._rebind(text) RETURNS void LANGUAGE sql AS ''")
    with pytest.raises(psycopg.errors.DuplicateFunction):  # which is dropped at the end of an update
        update(used, host)
    used.execute("DROP FUNCTION llm._rebind(text)")
    update(used, host)


def test_only_a_superuser_updates(used: Conn, host: str) -> None:
    used.execute("SET ROLE upgraded_ana")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        update(used, host)
    used.execute("RESET ROLE")


def test_nobody_s_code_is_run_as_who_updates(used: Conn, host: str) -> None:
    """A literal of a composite type is read by way of its domains, whose checks are their owners'.

    Such a check could alter what it is called in, and queue a trigger until whoever updates commits.
    """
    used.execute(
        """
        CREATE SCHEMA hers AUTHORIZATION upgraded_ana;
        SET SESSION AUTHORIZATION upgraded_ana;
        CREATE TABLE hers.ran (by name, what text);
        CREATE TABLE hers.queue (i int);
        CREATE FUNCTION hers.fired() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO hers.ran VALUES (current_user, 'fired'); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER fired AFTER INSERT ON hers.queue DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION hers.fired();
        CREATE FUNCTION hers.check_it(text) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO hers.queue VALUES (1);
            INSERT INTO hers.ran VALUES (current_user, 'checked');
            ALTER FUNCTION llm._rebind(text) SECURITY INVOKER;
            RETURN true;
        EXCEPTION WHEN undefined_function THEN
            RETURN true;
        END $$;
        CREATE DOMAIN hers.d AS text CHECK (hers.check_it(VALUE));
        CREATE TYPE hers.c AS (d hers.d);
        CREATE TYPE hers.outer AS (c hers.c[]);
        CREATE TYPE hers.span AS RANGE (subtype = hers.d);
        CREATE VIEW hers.v1 AS SELECT llm.complete('Say {t}.', jsonb_build_object('t', 'x')) AS a, '(x)'::hers.c AS c;
        CREATE VIEW hers.v2 AS SELECT llm.complete('Say it.', '{}'::jsonb) AS a, '("{(x)}")'::hers.outer AS c;
        CREATE VIEW hers.v3 AS SELECT llm.complete('Say it.', '{}'::jsonb) AS a, '[x,y]'::hers.span AS c;
        SET check_function_bodies = off;
        CREATE FUNCTION hers.f(t text DEFAULT llm.complete('Say it.', '{}'::jsonb)) RETURNS text LANGUAGE sql AS
            $$ SELECT '(x)'::hers.c::text $$;
        RESET check_function_bodies;
        RESET SESSION AUTHORIZATION;
        TRUNCATE hers.ran;
        """
    )
    (said,) = update(used, host)
    assert said.startswith("llm._0_1_complete(")
    assert used.execute("SELECT * FROM hers.ran").fetchall() == []
    bound = "SELECT pg_get_viewdef('hers.v1'::regclass), pg_get_functiondef('hers.f'::regproc)"
    view, function = used.execute(bound).fetchone() or ("", "")
    assert "llm._0_1_complete(" in view
    assert "llm.complete(" in function
    used.execute("DROP VIEW hers.v1, hers.v2, hers.v3")
