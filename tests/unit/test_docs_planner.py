"""docs/planner.md says what the program says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pg_bridge.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def test_the_six_rows_and_their_picture_are_the_programs_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "six_rows.svg"
    rows = str(DOCS / "planner" / "six_rows.csv")
    monkeypatch.setattr("sys.argv", ["pg-bridge", "plan", rows, "--bound", "--json", "--tree", str(picture)])
    assert main() == 0
    found = json.loads(capsys.readouterr().out)
    text = (DOCS / "planner.md").read_text(encoding="utf-8")
    by_strategy = {each["strategy"]: each["hit_rate"] for each in found["strategies"]}
    rates = [by_strategy[name] for name in ("original", "rows only", "greedy", "refined", "tree")]
    for rate in (*rates, found["bounds"]["neighbours"]):
        assert f"{100 * rate:.1f} %" in text
    assert found["strategy"] == "tree"
    assert picture.read_text(encoding="utf-8") == (DOCS / "planner" / "six_rows.svg").read_text(encoding="utf-8")
