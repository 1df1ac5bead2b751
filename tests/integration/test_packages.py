"""What `make dist` makes is all that one needs, and nothing else: installed where there is no checkout."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pg_bridge import __version__
from pg_bridge.cli.install import extension_files
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.python_path import copy_distribution, runtime_distributions

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "scripts"))
dist_script = importlib.import_module("dist")
sys.path.pop(0)

NAME = f"pg_bridge-{__version__}"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sdist, wheel and PGXN's archive."""
    if not (ROOT / ".git").exists():
        pytest.skip("packages are made from a git checkout")
    folder = tmp_path_factory.mktemp("dist")
    assert dist_script.main(["--only", "python", "--into", str(folder)]) == 0
    return folder


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that every user can read, the server's, too."""
    with tempfile.TemporaryDirectory(prefix="pg_bridge-packages-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def tracked(*patterns: str) -> set[str]:
    command = ["git", "ls-files", *patterns]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_the_wheel_holds_what_installing_needs_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"{NAME}-py3-none-any.whl") as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = wheel.read(f"{NAME}.dist-info/METADATA").decode()
        assert f"{NAME}.dist-info/licenses/LICENSE" in wheel.namelist()
    python = {file for file in tracked("pg_bridge") if not file.startswith("pg_bridge/dev/")}
    python -= {"pg_bridge/native", "pg_bridge/sql"}  # links
    beside = tracked("native", "sql") - {"native/valgrind.supp", "native/.gitignore", "sql/demo.sql"}
    assert held == python | {f"pg_bridge/{file}" for file in beside}
    assert "License-Expression: PostgreSQL" in metadata
    assert "Description-Content-Type: text/markdown" in metadata


def test_the_sdist_is_the_checkout_less_the_model_in_the_box(dist: Path) -> None:
    with tarfile.open(dist / f"{NAME}.tar.gz") as sdist:
        held = {member.name.removeprefix(f"{NAME}/") for member in sdist if member.isfile()}
    left_out = {file for file in tracked() if file.startswith((".", "debian/", "models/demo/"))}
    assert tracked() - left_out - {"pg_bridge/native", "pg_bridge/sql"} <= held
    assert not {file for file in held if file.startswith("models/demo/")}
    with zipfile.ZipFile(dist / f"{NAME}.zip") as pgxn:
        assert {name.removeprefix(f"{NAME}/") for name in pgxn.namelist()} == held


def test_made_again_it_is_the_same(dist: Path, tmp_path: Path) -> None:
    assert dist_script.main(["--only", "python", "--into", str(tmp_path)]) == 0
    assert dist_script.main(["--only", "python", "--into", str(tmp_path)]) == 0
    assert (tmp_path / "SHA256SUMS").read_text() == (dist / "SHA256SUMS").read_text()
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True)


def test_unit_tests_run_in_the_sdist(dist: Path, tmp_path: Path) -> None:
    """All are found; those of files and of pages, where something could be missing, are run."""
    subprocess.run(["tar", "-xzf", dist / f"{NAME}.tar.gz", "-C", tmp_path], check=True)
    source = tmp_path / NAME
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    some = [f"tests/unit/test_{each}.py" for each in ("docs", "options", "cli_install", "cli_serve", "random_model")]
    for words in (["tests", "--collect-only", "-m", ""], some):
        ended = subprocess.run(
            [*command, *words], cwd=source, env=without_checkout(source), capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout[-3000:]


def without_checkout(path: Path | str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}


@pytest.mark.parametrize("source", [f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"])
def test_installed_into_an_empty_environment_it_answers(source: str, dist: Path, elsewhere: Path) -> None:
    """From the archive alone: the environment has what the package requires, by its own word, and no checkout."""
    home = elsewhere / "venv"
    venv.create(home, with_pip=False)
    (packages,) = home.glob("lib/python3*/site-packages")
    for name in runtime_distributions():
        copy_distribution(name, packages)
    # No index is asked: what pip finds missing here is not required where it must be.
    offline = ["--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "--python", str(home / "bin/python"), "install", "-q", *offline]
    if source.endswith(".gz"):  # the build backend, as isolation would bring it
        copy_distribution("setuptools", packages)
    subprocess.run([*command, str(dist / source)], cwd=elsewhere, env=without_checkout(""), check=True)

    def pg_bridge(*words: str) -> str:
        command = [str(home / "bin/pg-bridge"), *words]
        return subprocess.check_output(command, cwd=elsewhere, env=without_checkout(""), text=True)

    assert "worker" in pg_bridge("--help")
    with Cluster(environment={"PYTHONPATH": str(packages)}) as cluster, EngineDouble() as engine:
        pg_config = str(cluster.binaries / "pg_config")
        said = pg_bridge("install", "--pg-config", pg_config, "--destdir", str(elsewhere / "staged"))
        assert "native module: installed" in said or "native module: left out" in said
        staged = {path.name: path for path in (elsewhere / "staged").rglob("*") if path.is_file()}
        assert {name: staged[name].read_text() for name in extension_files()} == extension_files()
        assert staged.keys() - extension_files().keys() <= {"pg_bridge.so"}
        assert "up to date" in pg_bridge("install", "--check", "--pg-config", pg_config)
        with psycopg.connect(cluster.dsn, autocommit=True) as db:
            told: list[str] = []
            db.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
            db.execute("CREATE EXTENSION pg_bridge CASCADE")
            db.execute(f"CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint '{engine.url}')")
            assert db.execute("SELECT llm.complete('Is {} so?', 'this')").fetchone() is not None
            assert len(engine.received.prompts) == 1
            db.execute("SET client_min_messages = debug2")
            assert db.execute("SELECT llm.version()").fetchone() == (__version__,)
        assert any(f"from {packages}" in line for line in told)
