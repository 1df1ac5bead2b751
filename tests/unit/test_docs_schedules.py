"""The units that docs/jobs.md shows are units to systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def test_systemd_takes_the_units_as_they_are(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze, the program, verifies units, and is not here")
    blocks = re.findall(r"```ini\n(\[Unit\].*?)```", PAGE.read_text(), re.S)
    names = re.findall(r"`/etc/systemd/system/([\w@-]+\.\w+)`", PAGE.read_text())
    assert names == ["review-kind.service", "review-kind.timer", "pg-bridge-worker@.service"]
    for name, block in zip(names, blocks, strict=True):
        # Neither the user nor the program are on this machine.
        text = block.replace("User=pg_bridge", "User=root").replace("/opt/pg_bridge/bin/pg-bridge", "/bin/true")
        (tmp_path / name).write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / name for name in names)], check=False, capture_output=True, text=True
    )
    assert (verified.returncode, verified.stderr) == (0, "")
