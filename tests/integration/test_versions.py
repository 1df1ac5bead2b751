"""Package, extension and native module that are not of one version say so, and what to do."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge import EXTENSION_VERSION
from pg_bridge.cli import main, native
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import create_server

Conn = psycopg.Connection[Any]

NEWER = "0.10"
ASK = "SELECT llm.complete('Say hello.')"


@pytest.fixture
def database(cluster: Cluster, engine: EngineDouble) -> Iterator[str]:
    cluster.psql("CREATE DATABASE versions")
    cluster.psql("CREATE EXTENSION pg_bridge CASCADE", database="versions")
    dsn = cluster.dsn_of("versions")
    with psycopg.connect(dsn, autocommit=True) as conn:
        create_server(conn, engine.url)
        conn.execute(ASK)
    engine.reset()
    yield dsn
    cluster.psql("DROP DATABASE versions")


def test_an_extension_that_is_newer_than_the_package(
    database: str, engine: EngineDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        newer = (
            f"UPDATE pg_proc SET prosrc = replace(prosrc, '{EXTENSION_VERSION}', '{NEWER}') WHERE proname = '_connect'"
        )
        conn.execute(newer.encode())
        conn.execute(f"UPDATE pg_extension SET extversion = '{NEWER}' WHERE extname = 'pg_bridge'".encode())
        with pytest.raises(
            psycopg.Error, match=r"is version 0\.10, and the server's Python package is of 0\.2"
        ) as told:
            conn.execute(ASK)
        assert told.value.sqlstate == "55000"
        assert f"Install the package of version {NEWER}" in str(told.value.diag.message_hint)
    assert engine.received.requests == []
    assert main(["doctor", "--dsn", database]) == 1
    said = capsys.readouterr().out
    assert f"extension pg_bridge is version {NEWER}, and this command of {EXTENSION_VERSION}" in said
    assert f"install pg_bridge {NEWER} here and where the server's Python finds it, then connect anew" in said


def test_a_session_that_has_an_old_module(
    database: str,
    cluster: Cluster,
    engine: EngineDouble,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = native.install_folder(str(cluster.binaries / "pg_config")) / native.MODULE
    if not library.exists():
        pytest.skip("this server has no native module")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        old = Path(folder, native.MODULE)
        shutil.copy(library, old)
        told_by_it = f"pg_bridge version {EXTENSION_VERSION}\0".encode()
        older = told_by_it.translate(bytes.maketrans(b"123456789", b"0" * 9))
        old.write_bytes(library.read_bytes().replace(told_by_it, older))
        loads = f"-c session_preload_libraries={old}"
        with psycopg.connect(database, autocommit=True, options=loads) as conn:
            for _ in range(2):
                with pytest.raises(
                    psycopg.Error, match=f"native module of version 0.0, and .* of {EXTENSION_VERSION}"
                ) as told:
                    conn.execute(ASK)
                assert told.value.sqlstate == "55000"
                assert "Connect anew" in str(told.value.diag.message_hint)
        with monkeypatch.context() as environment:
            environment.setenv("PGOPTIONS", loads)
            assert main(["doctor", "--dsn", database]) == 1
    assert "FAIL  a new session has the native module of version 0.0" in capsys.readouterr().out
    assert engine.received.requests == []
    with psycopg.connect(database, autocommit=True) as conn:
        assert conn.execute(ASK).fetchone() != (None,)


def test_a_module_that_is_not_for_this_server(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        other = Path(folder, native.MODULE)
        other.write_bytes(b"of another machine")
        other.chmod(0o644)
        monkeypatch.setenv("PGOPTIONS", f"-c session_preload_libraries={other}")
        assert main(["doctor", "--dsn", cluster.dsn]) == 1
    said = capsys.readouterr().out
    assert "no connection to PostgreSQL" in said
    assert "run pg-bridge install --pg-config of that server on its machine" in said


def test_a_preloaded_module_that_was_removed(
    database: str, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"session_preload_libraries": "pg_bridge", "dynamic_library_path": "/nonexistent"}
    for name, value in settings.items():
        cluster.psql(f"ALTER DATABASE versions SET {name} = '{value}'")
    assert main(["doctor", "--dsn", database]) == 1
    said = capsys.readouterr().out
    assert re.search('could not (access file|load library) "pg_bridge"', said)
    assert "mend: run pg-bridge install on that server's machine; or, where pg_bridge was removed, reset" in said
    with psycopg.connect(database, options="-c session_preload_libraries=", autocommit=True) as conn:
        conn.execute("ALTER DATABASE versions RESET ALL")
    psycopg.connect(database).close()
