"""What `pip install .` leaves out would be missed only on a user's machine."""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_installed() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    found = {".".join(file.relative_to(ROOT).parent.parts) for file in (ROOT / "pg_bridge").rglob("__init__.py")}
    assert found - {"pg_bridge.dev"} | {"pg_bridge.native", "pg_bridge.sql"} == set(listed)


def test_the_wheel_holds_no_model() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    files = [
        file
        for package in data
        for pattern in data[package]
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    ]
    assert {file.suffix for file in files} == {".c", ".h", ".sql", ".control", ".typed", ""}
    assert sum(file.stat().st_size for file in files) < 1 << 20


def test_what_is_locked_is_what_is_wanted() -> None:
    """`make setup` installs the lock files; what they are written from stands in pyproject.toml."""
    extras = PROJECT["project"]["optional-dependencies"]
    runtime, development = locked("runtime"), locked("dev")
    assert not runtime.keys() & development.keys()
    for wanted, versions in (
        (PROJECT["project"]["dependencies"], runtime),
        (PROJECT["dependency-groups"]["dev"], development),
        (extras["multicorn"] + extras["doctor"] + extras["jobs"], development),
        (extras["vllm-cpu"], locked("engine-cpu")),
    ):
        for requirement in map(Requirement, wanted):
            assert requirement.specifier.contains(versions[requirement.name]), requirement


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / f"requirements/{name}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def run_without_psycopg(program: str) -> str:
    """Run a program in a Python that has no psycopg, and return what it says."""
    blocked = f"import sys\nsys.modules['psycopg'] = None\n{program}"
    ended = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def test_the_plpython_host_needs_no_psycopg() -> None:
    modules = [f"pg_bridge.{file.parent.name}.{file.stem}" for file in (ROOT / "pg_bridge/plpython").glob("[!_]*.py")]
    assert len(modules) > 3
    assert run_without_psycopg(f"import {', '.join(modules)}") == ""


def test_the_multicorn_host_says_which_extra_is_missing() -> None:
    said = run_without_psycopg(
        """
from pg_bridge.errors import BrokenInstallation
from pg_bridge.multicorn.foreign_table import source_for
try:
    source_for({})
except BrokenInstallation as error:
    print(error.sqlstate, error.message, error.hint)
"""
    )
    assert said.startswith("58P01 the server's Python ")
    assert "cannot import psycopg" in said
    assert "pip install 'pg-bridge[multicorn]'" in said


def test_doctor_says_which_extra_is_missing() -> None:
    said = run_without_psycopg("from pg_bridge.cli import main\nprint(main(['doctor', '--dsn', 'dbname=x']))")
    assert "pg-bridge: psycopg is needed to look at a database" in said
    assert "hint: Install it where this command is: pip install 'pg-bridge[doctor]'." in said
    assert said.startswith("1\n")
    said = run_without_psycopg(
        """
from pg_bridge.cli import main
from pg_bridge.testing.double import EngineDouble
with EngineDouble() as engine:
    print(main(['doctor', '--endpoint', engine.url]))
"""
    )
    assert "psycopg" not in said
    assert "all is well" in said


def test_map_says_which_extra_is_missing() -> None:
    words = ["--query", "SELECT 1 AS a", "--key", "a", "--prompt", "Well?", "--into", "t", "--endpoint", "http://x"]
    said = run_without_psycopg(f"from pg_bridge.cli import main\nprint(main(['map', *{words}]))")
    assert "pg-bridge: psycopg is needed to reach a database" in said
    assert "pip install 'pg-bridge[jobs]'" in said
    assert said.startswith("1\n")


def test_a_reader_that_goes_away_is_no_failure_of_ours(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a\n" + "x\n" * 100)
    command = [sys.executable, "-c", "from pg_bridge.cli import main; raise SystemExit(main())", "plan", str(table)]
    # A pipe whose reading end is closed before anything is written.
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        assert reader.stdin is not None
        ended = subprocess.run(command, stdout=reader.stdin, stderr=subprocess.PIPE, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (141, "")
