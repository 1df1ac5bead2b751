"""What the Python of a throw-away cluster is copied from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pg_bridge.testing.python_path import copy_file


def test_what_was_compiled_once_is_not_compiled_again(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "some.py").write_text("print('imported')")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def is_compiled(folder: Path) -> bool:
        """Whether Python finds the module compiled; if not, it compiles it."""
        command = [sys.executable, "-v", "-c", "import some"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        assert "imported" in done.stdout
        return any("matches" in line and "some.py" in line for line in done.stderr.splitlines())

    assert not is_compiled(here)
    copy_file(here / "some.py", there / "some.py")
    assert is_compiled(there)


def test_what_was_not_compiled_is_copied_alone(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("")
    copy_file(tmp_path / "some.py", tmp_path / "other.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.py", "some.py"]
