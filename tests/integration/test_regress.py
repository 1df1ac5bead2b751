"""Golden SQL: what a person at psql sees, errors included. The same expected file holds for both hosts.

`PG_BRIDGE_REGRESS_UPDATE=1 pytest tests/integration/test_regress.py` writes what PL/Python prints as the new golden
files; read the difference before you commit it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import EXTENSIONS, Database

REGRESS = Path(__file__).parent.parent / "regress"
PREAMBLE = r"\set SHOW_CONTEXT never" + "\n"
ONE_HOST = {"batching": "plpython"}  # the other has not these functions' batches


@pytest.mark.parametrize("script", sorted(path.stem for path in (REGRESS / "sql").glob("*.sql")))
def test_golden(script: str, database: Database, engine: EngineDouble) -> None:
    if ONE_HOST.get(script, database.host) != database.host:
        pytest.skip(f"{script} is of the other host")
    if script == "batching" and not database.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    engine.behaviour.reject_marker = "reject me"
    extension = EXTENSIONS[database.host]
    printed = subprocess.run(
        ["psql", "-X", "-a", "-q", "-v", f"endpoint={engine.url}", "-v", f"extension={extension}", "-f", "-"],
        input=PREAMBLE + (REGRESS / "sql" / f"{script}.sql").read_text(),
        env=database.cluster.client_environment(database.name) | {"PGCLIENTENCODING": "UTF8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout
    printed = printed.replace(EXTENSIONS["multicorn"], EXTENSIONS["plpython"]).replace(engine.url, "<endpoint>")
    printed = printed.replace(PREAMBLE, "")
    golden = REGRESS / "expected" / f"{script}.out"
    if os.environ.get("PG_BRIDGE_REGRESS_UPDATE") and database.host == "plpython":
        golden.write_text(printed)
    assert printed.splitlines() == golden.read_text().splitlines()
