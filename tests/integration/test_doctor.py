"""pg-bridge doctor against a real PostgreSQL: from nothing to well, one mended thing after another."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pg_bridge.cli import main
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import Database, create_server

MULTICORN_IS_SLOW = True

KEY = "sk-very-secret"
_numbers = count(1)


def doctor(capsys: pytest.CaptureFixture[str], dsn: str, *arguments: str) -> tuple[int, str]:
    status = main(["doctor", "--dsn", dsn, *arguments])
    output = capsys.readouterr()
    assert KEY not in output.out + output.err
    return status, output.out + output.err


@pytest.fixture
def role(db: psycopg.Connection[Any]) -> Iterator[str]:
    name = f"doctor_{next(_numbers)}"
    db.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    db.execute(f"DROP OWNED BY {name}")
    db.execute(f"DROP ROLE {name}")


def test_the_road_to_a_well_database(
    capsys: pytest.CaptureFixture[str],
    database: Database,
    db: psycopg.Connection[Any],
    engine: EngineDouble,
    role: str,
) -> None:
    own, others = database.dsn, make_conninfo(database.dsn, user=role)
    engine.behaviour.api_key = KEY

    status, said = doctor(capsys, own)
    assert status == 1
    assert "extension pg_bridge" in said
    assert f"the server's Python {platform.python_version()} imports pg_bridge" in said, said
    assert 'FAIL  no server "vllm"' in said
    assert "CREATE SERVER" in said

    create_server(db, engine.url)
    status, said = doctor(capsys, own)
    assert status == 1
    assert "no user mapping" in said
    assert "FAIL  it wants a key" in said

    status, said = doctor(capsys, others)
    assert status == 1
    assert 'FAIL  no USAGE on server "vllm"' in said
    assert "GRANT USAGE ON FOREIGN SERVER" in said

    db.execute(f"GRANT USAGE ON FOREIGN SERVER vllm TO {role}")
    db.execute(f"CREATE USER MAPPING FOR {role} SERVER vllm OPTIONS (api_key '{KEY}')")
    status, said = doctor(capsys, others)
    assert status == 0, said
    assert "with an api_key" in said
    assert said.endswith("all is well\n")

    db.execute("ALTER SERVER vllm OPTIONS (ADD model 'gpt')")
    status, said = doctor(capsys, others)
    assert status == 1
    assert 'does not serve the model "gpt"' in said
    assert "one of: double" in said

    assert doctor(capsys, others, "--endpoint", engine.url)[0] == 1  # the key is the mapping's, not --endpoint's


def test_a_mapping_that_the_user_may_not_see(
    capsys: pytest.CaptureFixture[str],
    database: Database,
    db: psycopg.Connection[Any],
    engine: EngineDouble,
    role: str,
) -> None:
    create_server(db, engine.url)
    db.execute(f"GRANT USAGE ON FOREIGN SERVER vllm TO {role}")
    db.execute(f"CREATE USER MAPPING FOR PUBLIC SERVER vllm OPTIONS (api_key '{KEY}')")
    status, said = doctor(capsys, make_conninfo(database.dsn, user=role))
    assert status == 0
    assert "may not see it" in said


def test_an_option_that_its_owner_may_not_set(
    capsys: pytest.CaptureFixture[str], database: Database, db: psycopg.Connection[Any], role: str
) -> None:
    """It is refused in the database, so doctor says so, too."""
    create_server(db, "https://127.0.0.1:1", ca_file="/no such", connect_timeout_s="0.1")
    db.execute(f"ALTER SERVER vllm OWNER TO {role}")
    status, said = doctor(capsys, database.dsn)
    assert status == 1
    assert 'FAIL  the server has the option "ca_file", which its owner may not set' in said
    db.execute(f"GRANT pg_read_server_files TO {role}")
    status, said = doctor(capsys, database.dsn)
    assert status == 1
    assert "may not set" not in said
    assert "there is none of that name" in said


@pytest.mark.slow
def test_another_server_is_named(
    capsys: pytest.CaptureFixture[str], database: Database, db: psycopg.Connection[Any], engine: EngineDouble
) -> None:
    create_server(db, engine.url, name="the big one")
    status, said = doctor(capsys, database.dsn)
    assert status == 1
    assert "there are: the big one" in said
    assert doctor(capsys, database.dsn, "--server", "the big one")[0] == 0


def test_a_database_without_the_extension(capsys: pytest.CaptureFixture[str], cluster: Cluster) -> None:
    status, said = doctor(capsys, cluster.dsn_of("postgres"))
    assert status == 1
    assert "FAIL  the extension is not in this database" in said
    assert "CREATE EXTENSION pg_bridge" in said


def test_python_that_does_not_find_the_package(
    capsys: pytest.CaptureFixture[str], database: Database, db: psycopg.Connection[Any]
) -> None:
    db.execute(
        "CREATE OR REPLACE FUNCTION llm.version() RETURNS text LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'ModuleNotFoundError: No module named ''pg_bridge'''; END $$"
    )
    status, said = doctor(capsys, database.dsn)
    assert status == 1
    assert "FAIL  the server's Python" in said
    assert "cannot import pg_bridge: ModuleNotFoundError: No module named 'pg_bridge'" in said
    assert "docs/install.md" in said


@pytest.mark.slow
def test_a_dependency_that_the_servers_python_lacks(capsys: pytest.CaptureFixture[str], engine: EngineDouble) -> None:
    python = f"Python {platform.python_version()}"
    with Cluster() as cluster:
        cluster.psql("CREATE EXTENSION pg_bridge CASCADE")
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            create_server(connection, engine.url)
        status, said = doctor(capsys, cluster.dsn)
        assert status == 0, said
        assert f"the server's {python} imports pg_bridge" in said

        shutil.rmtree(cluster.python_path / "aiohttp")
        status, said = doctor(capsys, cluster.dsn)
        assert status == 1
        assert f"the server's {python} cannot import aiohttp" in said
        assert "all is well" not in said
        with psycopg.connect(cluster.dsn, autocommit=True) as connection, pytest.raises(psycopg.Error) as caught:
            connection.execute("SELECT llm.complete('Is it?')")
        assert caught.value.sqlstate == "58P01"
        assert "cannot import aiohttp" in str(caught.value)
        assert "defect" not in str(caught.value)

        (cluster.python_path / "numpy/__init__.py").write_text("raise ImportError('\\n\\nfor another Python\\n')\n")
        status, said = doctor(capsys, cluster.dsn)
        assert status == 1
        assert f"the server's {python} cannot import pg_bridge: ImportError: for another Python" in said
