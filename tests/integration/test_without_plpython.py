"""A dump with the extension in it, restored into a server that has no PL/Python: told so, and nothing half done."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pg_bridge.cli import main
from pg_bridge.testing.cluster import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def bare_pg_config(cluster: Cluster) -> Iterator[str]:
    """A PostgreSQL like the one of the tests, without what Debian has in postgresql-plpython3-NN.

    A server finds its files from where its own program is; so that one is copied, with the folder that is shared.
    """
    command = [str(cluster.binaries / "pg_config"), "--bindir", "--sharedir", "--pkglibdir"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    programs, shared, libraries = (Path(line) for line in printed.split())
    above = Path(os.path.commonpath([programs, shared, libraries]))
    with tempfile.TemporaryDirectory(prefix="pg_bridge-bare-") as name:
        Path(name).chmod(0o755)
        there = [Path(name) / folder.relative_to(above) for folder in (programs, shared, libraries)]
        shutil.copytree(programs, there[0])
        shutil.copytree(shared, there[1], ignore=shutil.ignore_patterns("plpython3u*", "multicorn*"))
        there[2].symlink_to(libraries)
        yield str(there[0] / "pg_config")


def test_a_restore_says_what_is_missing_and_leaves_nothing(
    cluster: Cluster, bare_pg_config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.psql("CREATE DATABASE to_be_dumped")
    try:
        cluster.psql("CREATE EXTENSION pg_bridge CASCADE; CREATE TABLE t (a int)", database="to_be_dumped")
        command = [str(cluster.binaries / "pg_dump"), cluster.dsn_of("to_be_dumped")]
        dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        cluster.psql("DROP DATABASE to_be_dumped")
    with Cluster(pg_config=bare_pg_config) as bare:
        # As docs/operations.md says it: all or nothing.
        restore = [str(bare.binaries / "psql"), "-X", "-q", "--single-transaction", "-v", "ON_ERROR_STOP=1", bare.dsn]
        ended = subprocess.run(restore, input=dump, capture_output=True, text=True, check=False)
        assert ended.returncode == 3
        assert 'extension "plpython3u" is not available' in ended.stderr
        assert "HINT:  The extension must first be installed on the system" in ended.stderr
        with psycopg.connect(bare.dsn, autocommit=True) as db:
            assert db.execute("SELECT count(*) FROM pg_class WHERE relname = 't'").fetchone() == (0,)
            assert db.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'llm%'").fetchone() == (0,)
            with pytest.raises(psycopg.Error, match='required extension "plpython3u" is not installed'):
                db.execute("CREATE EXTENSION pg_bridge")
            with pytest.raises(psycopg.Error, match='extension "plpython3u" is not available'):
                db.execute("CREATE EXTENSION pg_bridge CASCADE")
        assert main(["doctor", "--dsn", bare.dsn]) == 1
        said = capsys.readouterr().out
        assert "FAIL  the server has pg_bridge's files but no Python" in said
        assert "mend: install plpython3u (Debian: apt install postgresql-plpython3-NN)" in said
