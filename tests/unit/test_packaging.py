"""What `pip install .` leaves out would be missed only on a user's machine."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(file.relative_to(ROOT).parent.parts) for file in (ROOT / "pg_bridge").rglob("__init__.py")}
    assert found - {"pg_bridge.dev"} | {"pg_bridge.model", "pg_bridge.native", "pg_bridge.sql"} == set(listed)


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
