"""Golden SQL: what a person at psql sees, errors included. But for EXPLAIN, one file holds for both hosts.

`PG_BRIDGE_REGRESS_UPDATE=1 pytest tests/integration/test_regress.py` writes what PL/Python prints as the new golden
files, and what each host prints of EXPLAIN; read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from pg_bridge.multicorn.connection import SessionSource
from pg_bridge.plpython.source import PlpySource
from pg_bridge.testing.double import EngineDouble
from tests.conftest import EXTENSIONS, WRAPPER, Database

REGRESS = Path(__file__).parent.parent / "regress"
MULTICORN_IS_SLOW = True
PREAMBLE = r"\set SHOW_CONTEXT never" + "\n"
ONE_HOST = {"aggregates": "plpython", "batching": "plpython"}  # the other has not these functions' batches
A_FILE_A_HOST = ("foreign_explain",)
NATIVE = ("aggregates", "batching", "foreign", "foreign_explain")  # on PL/Python they need the module


@pytest.mark.parametrize("script", sorted(path.stem for path in (REGRESS / "sql").glob("*.sql")))
def test_golden(script: str, database: Database, engine: EngineDouble) -> None:
    if ONE_HOST.get(script, database.host) != database.host:
        pytest.skip(f"{script} is of the other host")
    if script in NATIVE and database.host == "plpython" and not database.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    engine.behaviour.reject_marker = "reject me"
    extension = EXTENSIONS[database.host]
    wrapper = "".join(f", {name} '{value}'" for name, value in WRAPPER[database.host].items())
    variables = {"endpoint": engine.url, "extension": extension, "wrapper": wrapper}
    printed = subprocess.run(
        ["psql", "-X", "-a", "-q", *(f"--set={name}={value}" for name, value in variables.items()), "-f", "-"],
        input=PREAMBLE + (REGRESS / "sql" / f"{script}.sql").read_text(),
        env=database.cluster.client_environment(database.name) | {"PGCLIENTENCODING": "UTF8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout
    printed = printed.replace(EXTENSIONS["multicorn"], EXTENSIONS["plpython"]).replace(engine.url, "<endpoint>")
    # What Multicorn writes before a line of EXPLAIN, and where the code stands that it cannot pass on.
    printed = re.sub(r"DETAIL:  SQLSTATE \w{5}\n", "", printed.replace(PREAMBLE, "").replace("Multicorn: ", ""))
    printed = as_every_version(printed)
    for source in (SessionSource, PlpySource):
        printed = printed.replace(source.sees, "<what the source sees>")
    host = f".{database.host}" if script in A_FILE_A_HOST else ""
    golden = REGRESS / "expected" / f"{script}{host}.out"
    if os.environ.get("PG_BRIDGE_REGRESS_UPDATE") and (host or database.host == "plpython"):
        golden.write_text(printed)
    assert printed.splitlines() == golden.read_text().splitlines()


def as_every_version(printed: str) -> str:
    """What EXPLAIN prints, without what differs from one version of PostgreSQL to the next."""
    # Up to 16 a parameter is named twice; later the column of its plan is named.
    printed = re.sub(r"(InitPlan \d+) \(returns \$\d+\)", r"\1", printed)
    printed = re.sub(r"\(InitPlan \d+\)\.col1", "$0", printed)
    # From 18 on: windows have a line of their own, and counts of rows have decimals.
    printed = re.sub(r"^ +Window: .*\n", "", printed, flags=re.MULTILINE)
    printed = re.sub(r"(actual rows=\d+)\.00", r"\1", printed)
    return re.sub(r"(Join Filter: )\((\S+) = (\S+)\)", _by_name, printed)


def _by_name(match: re.Match[str]) -> str:
    left, right = sorted(match.group(2, 3))
    return f"{match[1]}({left} = {right})"
