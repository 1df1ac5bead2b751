"""From one PostgreSQL to a newer one, with the extension in use: pg_upgrade for real, and pg_dump.

`PG_CONFIG` names the old server's pg_config, `PG_CONFIG_NEW` the new one's, or those of several with a colon between,
one after another. Without the second, the newest of Debian's that is newer than the first. All need
`pg-bridge install`, and Python of one version. The database is one that was made with this version of the extension, or
one that was made with 0.1 and updated.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.errors import PgBridgeError
from pg_bridge.testing.binaries import find_binaries
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import WRAPPER, create_server
from tests.extension_0_1 import install_scripts, members
from tests.integration.batch_functions import calls, make_functions, make_tables

pytestmark = pytest.mark.upgrade

Conn = psycopg.Connection[Any]

OBJECTS = """
CREATE ROLE ana LOGIN;
GRANT USAGE ON FOREIGN SERVER vllm TO ana;
CREATE USER MAPPING FOR ana SERVER vllm OPTIONS (api_key 'sesame');
CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (api_key 'sesame');
CREATE FOREIGN TABLE insight (id int, t text, kind text OPTIONS (prompt 'What is {t}?'))
    SERVER vllm OPTIONS (source 'public.a');
CREATE VIEW asked AS SELECT id, llm.complete('What is {t}?', a) AS answer FROM a WHERE word(t, g) LIKE 'word%';
-- as for any function in a materialized view: it is filled with a search_path that knows nothing
ALTER FUNCTION note SET search_path = public;
ALTER FUNCTION word_batch SET search_path = public;
CREATE MATERIALIZED VIEW kept AS SELECT id, llm.complete('What is {t}?', a) AS answer, word(t, g) AS w FROM a
    WITH NO DATA;
CREATE VIEW above AS SELECT upper(answer) AS answer FROM asked;
CREATE TABLE thing (id int, kind text DEFAULT llm.complete('Say something.', '{}'::jsonb));
CREATE FUNCTION kind_of(what a) RETURNS text LANGUAGE sql STABLE
    BEGIN ATOMIC SELECT llm.classify('Which is {t}?', what, '{x,y}'); END;
CREATE POLICY kind ON thing TO ana USING (llm.is_true('Is {kind} kind?', thing));
ALTER TABLE thing ENABLE ROW LEVEL SECURITY;
CREATE RULE told AS ON DELETE TO thing DO ALSO SELECT llm.complete('Gone?', a) FROM a;
CREATE FUNCTION told(statement bigint, node int) RETURNS text[] LANGUAGE sql AS $$ SELECT '{Told,so}'::text[] $$;
CREATE FUNCTION "word's"(t text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN t; END';
CREATE FUNCTION "word's ""batch"" of" (bigint, int, json[]) RETURNS text[] LANGUAGE sql AS
    $$ SELECT note('odd', cardinality($3)); SELECT ARRAY(SELECT x #>> '{}' FROM unnest($3) AS x) $$;
SELECT llm.register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])', 'told(bigint, int)');
SELECT llm.register_batch('"word''s"(text)', '"word''s ""batch"" of"(bigint, int, json[])');
GRANT SELECT ON ALL TABLES IN SCHEMA public TO ana;
"""


def newer_pg_configs(old: Path) -> list[str]:
    """The pg_configs of the servers to move to, one after another; none if there is no other server."""
    if named := os.environ.get("PG_CONFIG_NEW"):
        return named.split(":")
    majors = [path for path in Path("/usr/lib/postgresql").glob("*") if path.name.isdecimal()]
    newer = [path for path in majors if int(path.name) > major(old) and (path / "bin" / "initdb").exists()]
    return [str(path / "bin/pg_config") for path in sorted(newer, key=lambda path: int(path.name))[-1:]]


def major(binaries: Path) -> int:
    told = subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\d+", told)
    assert found
    return int(found[0])


@pytest.fixture(scope="module")
def versions() -> list[str]:
    """The pg_configs of the old server and of the newer ones, one at least."""
    try:
        old = find_binaries()
    except PgBridgeError as error:
        pytest.skip(str(error))
    newer = newer_pg_configs(old)
    if not newer:
        pytest.skip("there is no second PostgreSQL: set PG_CONFIG_NEW")
    return [str(old / "pg_config"), *newer]


def cluster_of(pg_config: str) -> Cluster:
    # From 18 on clusters have checksums unless told otherwise, and pg_upgrade wants both to agree.
    plain = ("--no-data-checksums",) if major(find_binaries(pg_config)) >= 18 else ()
    cluster = Cluster(pg_config=pg_config, initdb=plain)
    if not cluster.has_module:
        pytest.fail(f"no module there: run `pg-bridge install --pg-config {pg_config}`", pytrace=False)
    return cluster


@pytest.fixture(params=["new", "updated"])
def old(request: pytest.FixtureRequest, versions: list[str], engine: EngineDouble) -> Iterator[Cluster]:
    """A cluster of the old version with a database `shop` that uses the extension in all its ways."""
    engine.behaviour.api_key = "sesame"
    with cluster_of(versions[0]) as cluster:
        cluster.psql("CREATE DATABASE shop")
        with psycopg.connect(cluster.dsn_of("shop"), autocommit=True) as conn:
            if request.param == "new":
                conn.execute("CREATE EXTENSION pg_bridge CASCADE")
                make_objects(conn, engine)
            else:
                with install_scripts(cluster):
                    conn.execute("CREATE EXTENSION pg_bridge VERSION '0.1' CASCADE")
                make_objects(conn, engine)
                conn.execute("ALTER EXTENSION pg_bridge UPDATE")
        with psycopg.connect(cluster.dsn_of("shop"), autocommit=True) as conn:
            conn.execute("ALTER SERVER vllm OPTIONS (ADD cache 'transaction')")  # so that every look asks
            conn.execute("REFRESH MATERIALIZED VIEW kept")
            assert state(conn, engine)["registrations"]
        yield cluster


def make_objects(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(f"CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint '{engine.url}')".encode())
    make_functions(conn)
    make_tables(conn)
    conn.execute(OBJECTS)


@pytest.fixture
def new(versions: list[str]) -> Iterator[Cluster]:
    """An empty cluster of the first newer version."""
    with cluster_of(versions[1]) as cluster:
        yield cluster


def state(conn: Conn, engine: EngineDouble) -> dict[str, Any]:
    """What the database answers, and in how many calls and requests."""
    seen: dict[str, Any] = {}
    calls(conn)
    for name, query in {
        "registrations": "SELECT function::text, batch::text, report::text FROM llm.batch_function ORDER BY 1",
        "words": "SELECT word(t, g) FROM a ORDER BY id",
        "odd": """SELECT "word's"(t) FROM a ORDER BY id""",
        "asked": "SELECT * FROM asked ORDER BY id",
        "kept": "SELECT * FROM kept ORDER BY id",
        "insight": "SELECT * FROM insight ORDER BY id",
        "above": "SELECT * FROM above ORDER BY 1",
        "default": "DELETE FROM thing; INSERT INTO thing (id) VALUES (1) RETURNING *",
        "body": "SELECT kind_of(a) FROM a ORDER BY id",
        "map": "SELECT row_id, output FROM llm.map('SELECT * FROM a ORDER BY id', 'What is {t}?') ORDER BY 1",
        "servers": "SELECT srvname, ARRAY(SELECT unnest(srvoptions) ORDER BY 1) FROM pg_foreign_server",
        "rights": "SELECT oid::regprocedure::text, proacl::text, proconfig FROM pg_proc"
        " WHERE pronamespace = 'llm'::regnamespace ORDER BY 1",
    }.items():
        engine.reset()
        seen[name] = conn.execute(query.encode()).fetchall()
        seen[f"{name}: batches, requests"] = (calls(conn), len(engine.received.requests))
    plan = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT word(t, g) FROM a"
    seen["told"] = "Told: so" in str(conn.execute(plan.encode()).fetchall())
    return seen


def state_of(cluster: Cluster, engine: EngineDouble) -> dict[str, Any]:
    with psycopg.connect(cluster.dsn_of("shop"), autocommit=True) as conn:
        found = state(conn, engine)
        conn.execute("REFRESH MATERIALIZED VIEW kept")
        assert conn.execute("SELECT * FROM kept ORDER BY id").fetchall() == found["kept"]
        conn.execute("SET ROLE ana")
        assert conn.execute("SELECT count(*) <= 1 FROM thing").fetchone() == (True,)  # by the policy, which asks
        conn.execute("RESET ROLE")
        # … and what comes later works as well
        conn.execute("SELECT llm.unregister_batch('word(text, int)')")
        assert conn.execute("SELECT count(word(t, g)) FROM a").fetchone() == (52,)
        conn.execute("DROP EXTENSION pg_bridge CASCADE; CREATE EXTENSION pg_bridge")
    return found


def upgrade(old: Cluster, new: Cluster, *further: str) -> None:
    """Run pg_upgrade; the new cluster runs afterwards."""
    old.halt()
    new.halt()
    arguments = [
        *("--old-bindir", str(old.binaries), "--new-bindir", str(new.binaries), "--username", "postgres"),
        *("--old-datadir", str(old.directory / "data"), "--new-datadir", str(new.directory / "data")),
        *further,
    ]
    assert "compatible" in new.run("pg_upgrade", "--check", *arguments)
    assert "Upgrade Complete" in new.run("pg_upgrade", *arguments)
    new.resume()


def test_pg_upgrade(old: Cluster, versions: list[str], engine: EngineDouble) -> None:
    with psycopg.connect(old.dsn_of("shop"), autocommit=True) as conn:
        before = state(conn, engine)
    with ExitStack() as clusters:
        for version in versions[1:]:
            new = clusters.enter_context(cluster_of(version))
            engine.reset()
            upgrade(old, new, "--new-options", "-c session_preload_libraries=pg_bridge")
            assert engine.received.requests == []
            assert_catalog_is_a_new_one_s(new)
            old = new
        assert state_of(new, engine) == before


def assert_catalog_is_a_new_one_s(cluster: Cluster) -> None:
    cluster.psql("CREATE DATABASE fresh")
    cluster.psql("CREATE EXTENSION pg_bridge CASCADE", database="fresh")
    found, wanted = (members(cluster, database) for database in ("shop", "fresh"))
    cluster.psql("DROP DATABASE fresh")
    assert found.keys() == wanted.keys()
    differ = {  # what differs of each, so that a failure shows no more
        name: [pair for pair in zip(found[name] or [], wanted[name] or [], strict=True) if pair[0] != pair[1]]
        for name in found
    }
    assert {name: pairs for name, pairs in differ.items() if pairs} == {}


def test_the_ledger_goes_along_if_it_is_copied(old: Cluster, new: Cluster, engine: EngineDouble) -> None:
    query = "SELECT row_id, output FROM llm.map('SELECT * FROM a', 'Is {t} kept?') ORDER BY 1"
    old.psql("ALTER SERVER vllm OPTIONS (SET cache 'persistent')", database="shop")
    before = old.psql(query, database="shop")
    old.halt()
    shutil.copytree(old.directory / "data" / "pg_bridge", new.directory / "data" / "pg_bridge")
    shutil.chown(new.directory / "data" / "pg_bridge", *_owner(new.directory / "data"))
    for path in (new.directory / "data" / "pg_bridge").iterdir():
        shutil.chown(path, *_owner(new.directory / "data"))
    old.resume()
    upgrade(old, new, "--new-options", "-c session_preload_libraries=pg_bridge")
    engine.reset()
    assert new.psql(query, database="shop") == before
    assert engine.received.prompts == []


def _owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


@pytest.mark.multicorn
def test_pg_upgrade_on_multicorn(versions: list[str], new: Cluster, engine: EngineDouble) -> None:
    with cluster_of(versions[0]) as old:
        for cluster in (old, new):
            if not cluster.psql("SELECT 1 FROM pg_available_extensions WHERE name = 'multicorn'"):
                pytest.skip("one of the servers has no Multicorn2")
        old.psql("CREATE EXTENSION pg_bridge_multicorn CASCADE; CREATE TABLE a AS SELECT 1 AS id, 'text'::text AS t")
        with psycopg.connect(old.dsn, autocommit=True) as conn:
            create_server(conn, engine.url, **WRAPPER["multicorn"])
        old.psql(
            "CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user 'postgres');"
            "CREATE FOREIGN TABLE insight (id int, t text, kind text OPTIONS (prompt 'What is {t}?'))"
            " SERVER vllm OPTIONS (source 'public.a');"
            "CREATE VIEW asked AS SELECT id, llm.complete('What is {t}?', a) AS answer FROM a"
        )
        query = "SELECT * FROM asked; TABLE insight; SELECT output FROM llm.map('SELECT * FROM a', 'What is {t}?')"
        before = old.psql(query)
        upgrade(old, new)
        assert new.psql(query) == before


@pytest.mark.parametrize("to", ["the same version", "the next"])
def test_pg_dump(old: Cluster, versions: list[str], engine: EngineDouble, to: str) -> None:
    with psycopg.connect(old.dsn_of("shop"), autocommit=True) as conn:
        before = state(conn, engine)
    with cluster_of(versions[to == "the next"]) as new:
        new.psql("CREATE ROLE ana LOGIN")
        new.psql(dump_of(old, new))
        assert_catalog_is_a_new_one_s(new)
        assert state_of(new, engine) == before


def test_a_dump_is_restored_while_the_engine_is_down(old: Cluster, new: Cluster, engine: EngineDouble) -> None:
    with psycopg.connect(old.dsn_of("shop"), autocommit=True) as conn:
        before = state(conn, engine)
    dump = dump_of(old, new)
    assert "REFRESH MATERIALIZED VIEW" in dump
    assert "REFRESH MATERIALIZED VIEW" not in dump_of(old, new, "--exclude-table-data=kept")
    new.psql("CREATE ROLE ana LOGIN")
    engine.behaviour.api_key = "another"
    new.psql(f"\\set ON_ERROR_STOP off\n{dump}")
    empty = "SELECT oid::regclass FROM pg_class WHERE relkind = 'm' AND NOT relispopulated"
    assert new.psql(empty, database="shop").split() == ["kept"]
    engine.behaviour.api_key = "sesame"
    new.psql("REFRESH MATERIALIZED VIEW kept", database="shop")
    assert state_of(new, engine) == before


def dump_of(old: Cluster, new: Cluster, *further: str) -> str:
    return subprocess.run(
        [new.binaries / "pg_dump", "--create", "--dbname", "shop", *further],
        env=old.client_environment("shop"),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
