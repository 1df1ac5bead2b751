"""What `make test-matrix` reads and writes; what it runs needs root, a mirror and time."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "scripts"))
matrix = importlib.import_module("matrix")
documented = importlib.import_module("documented")
sys.path.pop(0)


def test_blocks_run_in_order_as_their_readers_would_run_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nPG=15\n```\n\n<!-- not run: no GPU -->\n\n```sh\nfalse\n```\n\n```\nSOME OUTPUT\n```\n\n"
        "```sql\nSELECT 1;\n```\n\n<!-- as ana -->\n\n```sql\nSELECT 2;\n```\n"
    )
    count, script = documented.script(page)
    assert count == 3
    assert "false" not in script
    assert "OUTPUT" not in script
    assert script.index("PG=15") < script.index("SELECT 1;") < script.index("SET ROLE ana;\nSELECT 2;")


def test_versions_are_written_once_in_the_installation() -> None:
    text = (ROOT / "docs/install.md").read_text()
    commands = documented.script(ROOT / "docs/install.md")[1]
    assert commands.count("PG=") == 1
    assert "3.11/" not in commands
    assert "postgresql/1" not in text.replace("postgresql/$PG", "")


def test_commands_reach_the_cluster_that_is_meant_where_there_are_two() -> None:
    commands = documented.script(ROOT / "docs/install.md")[1]
    clients = re.findall(r"^.*\b(?:psql|createdb|dropdb|createuser|pg_dump)\b .*$", commands, re.M)
    assert len(clients) > 3
    for line in clients:
        assert '--cluster "$PG/main"' in line, line
    assert all("port=" in dsn for dsn in re.findall(r"--dsn (.*)", commands))


@pytest.mark.skipif(shutil.which("pg_conftool") is None, reason="pg_conftool is Debian's")
def test_the_doctor_of_the_installation_is_told_the_port_of_its_cluster(tmp_path: Path) -> None:
    for version, port in (("15", 5432), ("17", 5433)):
        folder = tmp_path / version / "main"
        folder.mkdir(parents=True)
        (folder / "postgresql.conf").write_text(f"port = {port}  # as pg_createcluster writes it\n")
    commands = documented.script(ROOT / "docs/install.md")[1]
    (port_of_it,) = re.findall(r"^PORT=.*$", commands, re.M)
    (dsn,) = re.findall(r"--dsn (.*)", commands)
    said = subprocess.run(
        ["bash", "-euc", f"PG=17\n{port_of_it}\nprintf '%s' {dsn}"],
        env={**os.environ, "PG_CLUSTER_CONF_ROOT": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout == "dbname=shop port=5433"


@pytest.mark.parametrize("second", ["sid", "12"])
def test_rows_of_other_lines_stay(second: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{matrix.MARKS[0]}\n{matrix.MARKS[1]}\nafter\n")
    lines = {line.name: line for line in matrix.LINES}
    for name, tests in (("12", "1 passed"), (second, "2 passed")):
        matrix.write(page, [matrix.row_of(matrix.Outcome(lines[name], {"tests": tests}, commit="c0ffee"), "")])
    rows = [line for line in page.read_text().splitlines() if line.startswith(("| 12 ", "| sid "))]
    assert len(rows) == (2 if second == "sid" else 1)
    assert "2 passed" in rows[-1]
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
